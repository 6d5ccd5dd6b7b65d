"""People: splits, frequencies, transfer of attributes, and refused input of the procedural world."""

import numpy as np
import pytest

from durian_jax.errors import InputError
from durian_jax.faces.pose import head_pose
from durian_jax.synthetic import (
    SPLITS,
    Person,
    add_driver,
    render,
    sample_driver,
    sample_motion,
    sample_person,
    still,
)
from durian_jax.synthetic.attributes import FREQUENCY


def test_people_of_all_splits_differ():
    people = [sample_person(split, index) for split in SPLITS for index in range(40)]
    assert len({(p.identity.skin, p.identity.face_width) for p in people}) == len(people)
    assert len({p.name for p in people}) == len(people)


def test_attribute_frequencies():
    people = [sample_person("train", index) for index in range(600)]
    for kind, share in FREQUENCY.items():
        assert abs(np.mean([kind in p.attributes for p in people]) - share) < 0.07


def test_require_changes_nothing_else():
    for index in range(20):
        free = sample_person("validation", index)
        asked = sample_person("validation", index, ("hat", "glasses"))
        assert free.identity == asked.identity
        assert {"hat", "glasses"} <= set(asked.attributes)
        assert all(asked.attributes[kind] == value for kind, value in free.attributes.items())


def test_wear_transfers_attributes_exactly():
    a, b = sample_person("benchmark", 0), sample_person("benchmark", 1, ("hair", "hat"))
    motion = sample_motion("benchmark", 2, 2)
    worn = a.wear(hair=b, hat=b)
    taken = {kind: b.attributes[kind] for kind in ("hair", "hat")}
    direct = Person(a.identity, {**a.attributes, **taken}, a.name)
    np.testing.assert_array_equal(render(worn, motion, 64).frames, render(direct, motion, 64).frames)
    assert worn.name == a.name and worn.identity == a.identity
    np.testing.assert_array_equal(render(worn, motion, 64).keypoints, render(a, motion, 64).keypoints)


def test_wrong_input_is_refused():
    person, other = sample_person("train", 0), sample_person("train", 1).without("hat")
    with pytest.raises(InputError, match="split"):
        sample_person("test", 0)
    with pytest.raises(InputError, match="found -1"):
        sample_motion("train", -1, 4)
    with pytest.raises(InputError, match="at least 1 frame"):
        sample_motion("train", 0, 0)
    with pytest.raises(InputError, match="scarf"):
        sample_person("train", 0, ("scarf",))
    with pytest.raises(InputError, match="wears no hat"):
        person.wear(hat=other)
    with pytest.raises(InputError, match="scarf"):
        person.without("scarf")
    with pytest.raises(InputError, match="16 px"):
        render(person, still(), 8)
    with pytest.raises(InputError, match="yawn"):
        still(yawn=1.0)


def test_drivers_are_nobodys_clip_and_reproducible():
    people = [sample_person("train", index) for index in range(20)]
    drivers = [sample_driver("train", index, person) for index, person in enumerate(people)]
    assert drivers == [sample_driver("train", index, person) for index, person in enumerate(people)]
    assert not {driver.name for driver in drivers} & {f"train-{index}" for index in range(100_000)}
    assert len({driver.name for driver in drivers}) == 20


def test_half_of_the_drivers_wear_what_the_person_does_not():
    """Else models would learn to copy the driver's glasses and beard."""
    extra = []
    for index in range(60):
        person = sample_person("train", index)
        worn = {*sample_driver("train", index, person).attributes} - {"hair"}
        assert worn <= {"glasses", "beard"} - {*person.attributes}
        if not {"glasses", "beard"} <= {*person.attributes}:
            extra.append((index % 2, worn))
    assert all(bool(worn) == bool(odd) for odd, worn in extra)
    assert {kind for _, worn in extra for kind in worn} == {"glasses", "beard"}


def test_a_driver_makes_the_same_motion():
    person, motion = sample_person("train", 4), sample_motion("train", 4, 5)
    clip = add_driver(render(person, motion, 64), sample_driver("train", 4, person), motion)
    assert clip.driver.frames.shape == clip.frames.shape and clip.driver.identity != clip.identity
    np.testing.assert_allclose(head_pose(clip.driver.keypoints), head_pose(clip.keypoints), atol=0.5)
    assert np.abs(clip.driver.keypoints - clip.keypoints).max() > 0.005
    np.testing.assert_array_equal(clip.view()[2:4].driver.frames, clip.driver.frames[2:4])
