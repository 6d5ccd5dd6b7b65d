"""The procedural world: one seed one picture, splits apart, pixels, masks and keypoints in agreement."""

import dataclasses
import subprocess
import sys

import cv2
import numpy as np
import pytest

from durian_jax.errors import InputError
from durian_jax.faces.topology import ATTRIBUTE_KINDS, GROUPS, POSITION
from durian_jax.synthetic import SPLITS, Person, held_out, render, sample_motion, sample_person, still
from durian_jax.synthetic.attributes import CUTS, FREQUENCY, HAT_FORMS, PAIRS, Hair
from durian_jax.synthetic.colours import HAIRS

FORM = {"hair": ("cut", "family"), "glasses": ("shape", "tint"), "beard": ("form", "family"),
        "hat": ("form", "band")}


def pair(kind, attribute):
    return tuple(getattr(attribute, name) for name in FORM[kind])


def plain_hair(cut):
    return Hair(cut, "red", HAIRS["red"], "none", 0.0, 0.0, 1.0)


def test_same_seed_same_clip():
    first, second = (render(sample_person("train", 3), sample_motion("train", 5, 3), 64) for _ in range(2))
    np.testing.assert_array_equal(first.frames, second.frames)
    np.testing.assert_array_equal(first.masks, second.masks)
    np.testing.assert_array_equal(first.keypoints, second.keypoints)
    assert first.identity == "train-3"


def test_motion_goes_on():
    short, long = sample_motion("train", 1, 8), sample_motion("train", 1, 24)
    np.testing.assert_array_equal(short.yaw, long.yaw[:8])
    assert short.blink.max() <= 1 and len(long[4:9]) == 5


def test_motion_stays_in_range_and_wanders():
    clips = [sample_motion("train", index, 16) for index in range(200)]
    yaw = np.stack([clip.yaw for clip in clips])
    assert np.abs(yaw).max() <= 30 and np.abs(yaw).max() > 25
    assert np.ptp(yaw, axis=1).mean() > 20  # degrees in 16 frames
    blink = np.stack([clip.blink for clip in clips])
    assert 0.03 < (blink > 0.8).mean() < 0.4


def test_splits_differ():
    people = [sample_person(split, index) for split in SPLITS for index in range(40)]
    assert len({(p.identity.skin, p.identity.face_width) for p in people}) == len(people)
    assert len({p.name for p in people}) == len(people)


@pytest.mark.parametrize("kind", ATTRIBUTE_KINDS)
def test_benchmark_combinations_are_unseen(kind):
    seen = {split: {pair(kind, sample_person(split, i, (kind,)).attributes[kind]) for i in range(400)}
            for split in ("train", "validation", "benchmark")}
    assert not seen["benchmark"] & (seen["train"] | seen["validation"])
    assert all(held_out(kind, *p) for p in seen["benchmark"])
    forms, families = PAIRS[kind]
    assert {p[0] for p in seen["train"]} == set(forms) == {p[0] for p in seen["benchmark"]}
    assert {p[1] for p in seen["train"]} == set(families)


def test_frequencies():
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


def test_wear_is_the_exact_transfer():
    a, b = sample_person("benchmark", 0), sample_person("benchmark", 1, ("hair", "hat"))
    motion = sample_motion("benchmark", 2, 2)
    worn = a.wear(hair=b, hat=b)
    taken = {kind: b.attributes[kind] for kind in ("hair", "hat")}
    direct = Person(a.identity, {**a.attributes, **taken}, a.name)
    np.testing.assert_array_equal(render(worn, motion, 64).frames, render(direct, motion, 64).frames)
    assert worn.name == a.name and worn.identity == a.identity
    np.testing.assert_array_equal(render(worn, motion, 64).keypoints, render(a, motion, 64).keypoints)


def test_attributes_change_only_their_pixels():
    """Taking off glasses changes pixels only where their mask, grown by the antialiased edge, was."""
    person = sample_person("train", 11, ("glasses", "hair")).without("hat")
    motion = sample_motion("train", 11, 2)
    clip, bare = render(person, motion, 96), render(person.without("glasses"), motion, 96)
    grown = np.stack([cv2.dilate(m.astype(np.uint8), np.ones((5, 5))) for m in clip.mask("glasses")]) > 0
    np.testing.assert_array_equal(clip.frames[~grown], bare.frames[~grown])
    assert np.abs(clip.frames.astype(int) - bare.frames)[clip.mask("glasses")].mean() > 15


def test_masks_are_exclusive_and_substantial():
    for index in range(12):
        person = sample_person("train", index, ATTRIBUTE_KINDS)
        clip = render(person, still(), 128)
        assert set(np.unique(clip.masks)) <= {0, 1, 2, 4, 8}
        for kind, least in (("glasses", 300), ("beard", 60), ("hat", 900)):
            assert clip.mask(kind).sum() >= least, (kind, person.attributes[kind])
    bare = render(Person(person.identity), still(), 64)
    assert not bare.masks.any()


def test_hat_over_hair_and_glasses_over_fringe():
    person = sample_person("train", 4, ATTRIBUTE_KINDS)
    for cut in CUTS:
        person = Person(person.identity, {**person.attributes, "hair": plain_hair(cut)})
        with_hat, no_hat = render(person, still(), 64), render(person.without("hat"), still(), 64)
        no_hair = render(person.without("hair"), still(), 64)
        np.testing.assert_array_equal(with_hat.mask("hat"), no_hair.mask("hat"))
        assert with_hat.mask("hair").sum() < no_hat.mask("hair").sum()
        # The rims' own pixels stay; only the arms may vanish under hair.
        lost = no_hair.mask("glasses") & ~with_hat.mask("glasses")
        assert lost.sum() <= 0.12 * no_hair.mask("glasses").sum()


def test_hair_mask_has_the_hair_colour():
    person = sample_person("train", 9).without(*ATTRIBUTE_KINDS)
    person = Person(person.identity, {"hair": plain_hair("long")})
    clip = render(person, still(), 128)
    typical = np.median(clip.frames[0][clip.mask("hair")[0]], 0)
    np.testing.assert_allclose(typical, HAIRS["red"], atol=4)


@pytest.mark.parametrize("index", range(4))
def test_keypoints_sit_on_what_is_drawn(index):
    size = 256
    person = Person(sample_person("train", 20 + index).identity)
    clip = render(person, still(yaw=8, gaze_x=-0.4), size)
    points = clip.keypoints[0, :, :2] * size
    frame = clip.frames[0].astype(float)

    def at(point):
        return frame[int(point[1]), int(point[0])]

    for side in ("right", "left"):
        iris = points[GROUPS[f"{side}_iris"]]
        ring = iris[0] + 0.72 * (iris[[1, 3]] - iris[0])  # beside the pupil, clear of the lids
        for point in ring:
            assert np.abs(at(point) - person.identity.iris).max() < 25
    contour = points[GROUPS["contour"]].astype(np.float32)
    inner = points[GROUPS["contour"].stop:]
    assert all(cv2.pointPolygonTest(contour, tuple(map(float, p)), False) > 0 for p in inner)
    # Across the chin's outline the picture changes from skin to the neck's shadow.
    chin = points[POSITION[152]]
    assert np.abs(at(chin - (0, 4)) - person.identity.skin).max() < 40
    assert at(chin + (0, 4)).sum() < at(chin - (0, 4)).sum() - 20


def test_keypoints_follow_expression():
    person = sample_person("train", 30)

    def gap(upper, lower, **values):
        points = render(person, still(**values), 32).keypoints[0]
        return points[POSITION[lower], 1] - points[POSITION[upper], 1]

    assert gap(159, 145) > 0.03 and abs(gap(159, 145, blink=1)) < 1e-3
    assert abs(gap(13, 14)) < 1e-3 and gap(13, 14, mouth=1) > 0.04
    right, left = (render(person, still(gaze_x=g), 32).keypoints[0, POSITION[468], 0] for g in (1, -1))
    assert right - left > 0.02
    turned = render(person, still(yaw=25), 32).keypoints[0]
    calm = render(person, still(), 32).keypoints[0]
    assert turned[POSITION[4], 0] > calm[POSITION[4], 0] + 0.05  # the nose goes to the picture's right
    assert turned[POSITION[454], 2] > turned[POSITION[234], 2]  # and that side away from the camera
    assert calm[POSITION[4], 2] < calm[POSITION[234], 2]
    tall = np.ptp(calm[GROUPS["contour"], 1])
    assert 0.45 < tall < 0.54


def test_resolutions_agree():
    person, motion = sample_person("train", 40, ATTRIBUTE_KINDS), sample_motion("train", 40, 2)
    small, large, huge = (render(person, motion, size) for size in (64, 128, 256))
    np.testing.assert_array_equal(small.keypoints, large.keypoints)
    for fine, coarse in ((large, small), (huge, large)):
        size = coarse.frames.shape[1]
        reduced = np.stack([cv2.resize(f, (size, size), interpolation=cv2.INTER_AREA) for f in fine.frames])
        error = ((reduced.astype(float) - coarse.frames) ** 2).mean()
        assert 10 * np.log10(255**2 / error) > 27
        for kind in ATTRIBUTE_KINDS:
            shares = fine.mask(kind).mean(), coarse.mask(kind).mean()
            assert abs(shares[0] - shares[1]) < 0.01


def test_every_hat_and_cut_draws_at_extreme_poses():
    person = sample_person("train", 50, ATTRIBUTE_KINDS)
    signs = np.float32([-1, 1, -1, 1])
    motion = dataclasses.replace(still(4), yaw=30 * signs, pitch=np.float32([18, 18, -18, -18]),
                                 roll=-15 * signs, shift_x=-0.06 * signs)
    for number, form in enumerate(HAT_FORMS):
        hat = dataclasses.replace(person.attributes["hat"], form=form)
        hair = plain_hair(CUTS[2 * number])
        clip = render(Person(person.identity, {**person.attributes, "hat": hat, "hair": hair}), motion, 64)
        assert (clip.mask("hat").sum((1, 2)) > 150).all()
        assert np.isfinite(clip.keypoints).all()


def test_mistakes_are_named():
    person, other = sample_person("train", 0), sample_person("train", 1).without("hat")
    with pytest.raises(InputError, match="split"):
        sample_person("test", 0)
    with pytest.raises(InputError, match="negative"):
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


def test_imports_no_jax():
    code = "import sys, durian_jax.synthetic; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
