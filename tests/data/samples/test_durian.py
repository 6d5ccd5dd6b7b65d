"""Training samples: references, region to fill, donors, target frames."""

import dataclasses

import numpy as np
import pytest

from durian_jax.data import ClipList
from durian_jax.data import clip_record as record
from durian_jax.data.samples import donors
from durian_jax.data.samples.durian import DurianSamples, target_frames
from durian_jax.data.samples.views import BLANK
from durian_jax.errors import InputError
from durian_jax.faces.topology import ATTRIBUTE_KINDS, K
from durian_jax.models.batch import STORED_TYPES, model_inputs, training_fields
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.unet.config import UNetConfig
from tests.helpers.data import CONFIG, STILL, assert_same, sample
from tests.helpers.faces import clip


def test_fields_shapes_and_ranges(clips):
    values = sample(ClipList(clips), 1, 0)
    assert {name: value.shape for name, value in values.items()} == {
        "frames": (2, 64, 64, 3), "frame_masks": (2, 64, 64, 1), "keypoints": (2, K, 3),
        "portrait": (64, 64, 3), "portrait_mask": (64, 64, 1),
        "attributes": (2, 64, 64, 3), "attribute_masks": (2, 64, 64, 1), "attribute_valid": (2,)}
    floats = {"keypoints", "attribute_valid"}
    assert all(value.dtype == (np.float32 if name in floats else np.uint8) for name, value in values.items())
    assert all(values[name].max() == 1 for name in ("portrait_mask", "attribute_masks", "frame_masks"))


@pytest.mark.parametrize("identity_dim", [None, 512])
def test_a_sample_follows_the_spec_of_the_model(clips, identity_dim):
    """Only "face" is not in the spec: the loader of a run embeds it as "identity"."""
    model = DurianConfig(image_size=64, identity_dim=identity_dim, unet=UNetConfig(context_dim=8))
    config = DurianSamples.for_model(model, {"frames": 3, "attributes": 2})
    expected = {name: (field.shape({"B": 1, **config.sizes})[1:], STORED_TYPES[field.kind])
                for name, field in training_fields(model.batch_spec()).items()}
    if identity_dim is not None:
        assert expected.pop("identity") == ((identity_dim,), "float32")
        expected["face"] = ((112, 112, 3), "uint8")
    values = sample(ClipList(clips), 1, 0, config)
    assert {name: (value.shape, value.dtype) for name, value in values.items()} == expected


def test_model_inputs_are_floats_and_grey_in_hidden_regions(clips):
    values = sample(ClipList(clips), 1, 0)
    inputs = model_inputs(values, DurianConfig(image_size=64).batch_spec())
    assert all(value.dtype == np.float32 for value in inputs.values()) and inputs.keys() == values.keys()
    assert inputs["frames"].min() >= -1 and inputs["frames"].max() <= 1
    np.testing.assert_allclose(inputs["frames"], values["frames"] / 127.5 - 1, atol=1e-6)
    hidden, region = values["portrait_mask"][..., 0] == 1, values["attribute_masks"][..., 0] == 0
    # BLANK is half a level away from 0. The model sets these pixels to 0.
    assert abs(inputs["portrait"][hidden]).max() < 0.005 and abs(inputs["attributes"][region]).max() < 0.005
    assert (values["portrait"][hidden] == BLANK).all() and (values["attributes"][region] == BLANK).all()


def test_references_are_complementary(clips):
    """The portrait has no attribute pixel left, and the attribute image has no other pixel."""
    source = ClipList(clips)
    colours = np.array([10 + 60 * bit for bit in range(4)])
    seen = np.zeros(4, int)
    for seed in range(60):
        config = dataclasses.replace(CONFIG, **STILL) if seed % 2 else CONFIG
        values = sample(source, seed % 12, seed, config)
        assert (values["portrait"][values["portrait_mask"][..., 0] == 1] == BLANK).all()
        assert (values["attributes"][values["attribute_masks"][..., 0] == 0] == BLANK).all()
        if not seed % 2:
            continue
        for slot in np.flatnonzero(values["attribute_valid"]):
            pixels = values["attributes"][slot][values["attribute_masks"][slot, ..., 0] == 1]
            bit = int(np.argmin(abs(colours - pixels[0, 0])))
            seen[bit] += 1
            np.testing.assert_array_equal(pixels, colours[bit])  # only the kind's own colour
            assert (values["portrait"] != colours[bit]).any(-1).all()  # which the portrait does not show
    assert (seen > 0).all(), dict(zip(ATTRIBUTE_KINDS, seen, strict=True))


def test_the_moved_portrait_shows_no_trace_of_the_attribute():
    """Neither in blended edges nor in repeated borders. The attribute's colour is far from all others."""
    white = clip(0, kinds=("hair",))
    white.frames[white.masks > 0] = 255
    white.frames[white.masks == 0] = 0
    config = dataclasses.replace(CONFIG, absent_probability=0.0, portrait_shift=0.3, expand_probability=0.0)
    for seed in range(20):
        values = sample(ClipList([white]), 0, seed, config)
        assert set(np.unique(values["portrait"])) <= {0, BLANK}  # black face and grey region, no white hair


def test_degraded_references_show_no_trace_of_the_attribute():
    """Two clips that differ only in the attribute's colour give the same portraits, blurred or not."""
    config = dataclasses.replace(CONFIG, absent_probability=0.0, blur_probability=0.7, jpeg_probability=0.7, blur=3.0,
                                 clip_colour=0.1, mask_jitter=0.5, attributes=1, second_probability=0.0)
    light = clip(0, kinds=("hair",))
    dark = dataclasses.replace(light, frames=light.frames.copy())
    dark.frames[dark.masks > 0], light.frames[light.masks > 0] = 0, 255
    skin = dataclasses.replace(light, frames=light.frames.copy())
    skin.frames[skin.masks == 0] = 255 - skin.frames[skin.masks == 0]
    for seed in range(30):
        a, b, c = (sample(ClipList([own]), 0, seed, config) for own in (light, dark, skin))
        np.testing.assert_array_equal(a["portrait"], b["portrait"])
        assert (a["portrait"] != c["portrait"]).any() and (a["attributes"] != b["attributes"]).any()


def test_expansion_adds_a_donors_mask():
    short, long = clip(0, kinds=("hair",)), clip(1, kinds=("hair",))
    long.masks[:] |= np.roll(long.masks, 8, axis=1)  # 8 of 64 pixels further down
    source = ClipList([short] + [long] * 3)
    plain = dataclasses.replace(CONFIG, expand_probability=0.0, absent_probability=0.0, margin=(2, 2))
    for seed in range(10):
        own = sample(source, 0, seed, plain)["portrait_mask"]
        grown = sample(source, 0, seed, dataclasses.replace(plain, expand_probability=1.0))["portrait_mask"]
        assert (grown >= own).all() and grown.sum() > 1.15 * own.sum()


def test_a_moved_reference_shows_its_margin():
    """With and without margin the views are equal, but a moved portrait with margin shows its real surroundings."""
    wide = dataclasses.replace(clip(0, size=96, kinds=("hair",)), margin=16)
    still = dataclasses.replace(CONFIG, **STILL, expand_probability=0.0)
    for seed in range(4):
        assert_same(sample(ClipList([wide]), 0, seed, still), sample(ClipList([wide.view()]), 0, seed, still))
    wide.frames[:] = 0
    wide.frames[:, :, :16] = wide.frames[:, :, -16:] = 255  # white margins left and right
    wide.masks[:] = 0
    moving = dataclasses.replace(CONFIG, augment_probability=1.0, portrait_shift=0.2, portrait_rotation=0.0)
    brought = [(sample(ClipList([wide]), 0, seed, moving)["portrait"] == 255).any() for seed in range(8)]
    bare = [(sample(ClipList([wide.view()]), 0, seed, moving)["portrait"] == 255).any() for seed in range(8)]
    assert sum(brought) >= 4 and not any(bare)


def test_larger_records_give_the_same_view():
    """A clip stored at twice the size, margin included, gives the same frames, masks and keypoints."""
    small = dataclasses.replace(clip(3, size=80, kinds=("hair", "glasses")), margin=8)
    large = dataclasses.replace(small, frames=small.frames.repeat(2, 1).repeat(2, 2),
                                masks=small.masks.repeat(2, 1).repeat(2, 2), margin=16)
    config = dataclasses.replace(CONFIG, **STILL, expand_probability=0.0)
    a, b = (sample(ClipList([c]), 0, 5, config) for c in (small, large))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-6, err_msg=name)


def test_the_donor_has_the_most_similar_pose(clips):
    """Among people with different yaw, the mask comes from the person whose pose is nearest to the portrait's."""
    def turned(index, yaw):
        own = clip(index, frames=1, kinds=("hair",))
        own.keypoints[..., 2] += np.tan(np.radians(yaw)) * (own.keypoints[..., 0] - 0.5)
        return own

    people = [turned(i, yaw) for i, yaw in enumerate((-40, 40, 0, 24, -18))]
    source = ClipList(people)
    poses = np.stack([source.outline(i).poses[0] for i in range(5)])
    assert np.argsort(poses[:, 0]).tolist() == [0, 4, 2, 3, 1] or np.argsort(-poses[:, 0]).tolist() == [0, 4, 2, 3, 1]
    config = dataclasses.replace(CONFIG, closest_probability=1.0, donor_candidates=16, donor_tries=64)
    for index in range(5):
        donor, frame = donors._donor(source, index, "hair", poses[index], np.random.default_rng(0), config)
        donor = source[donor]
        away = np.linalg.norm(poses[:, :2] - poses[index, :2], axis=1)
        best = np.argsort(away)[1]
        assert donor.identity == people[best].identity and frame == 0
    alone = ClipList([people[0], dataclasses.replace(people[1], identity=people[0].identity)])
    assert donors._donor(alone, 0, "hair", np.zeros(3), np.random.default_rng(0), config) is None


def test_generated_masks_replace_a_donors_mask():
    short = clip(0, kinds=("hair",))
    region = np.zeros((64, 64), np.uint8)
    region[:60] = 1
    encoded = record.read_record(record.write_record(short, generated={2: region}))

    class Generated(ClipList):
        def open(self, index):
            return encoded if index == 0 else super().open(index)

    source = Generated([short] + [clip(1, kinds=("hair",))] * 3)
    config = dataclasses.replace(CONFIG, **STILL, absent_probability=0.0, expand_probability=1.0,
                                 generated_probability=1.0)
    for seed in range(5):
        mask = sample(source, 0, seed, config)["portrait_mask"][..., 0]
        assert mask[12:40, 14:50].all() and not mask[63].all()
        assert sample(source, 0, seed, dataclasses.replace(config, generated_probability=0.0)
                      )["portrait_mask"].mean() < 0.6


def test_an_absent_kind_gives_an_empty_reference_and_a_region_to_fill(clips):
    config = dataclasses.replace(CONFIG, absent_probability=1.0)
    values = sample(ClipList(clips), 2, 0, config)  # wears hair only
    assert not values["attribute_valid"].any() and not values["attribute_masks"].any()
    assert 0 < values["portrait_mask"].mean() < 0.5


def test_dropout_withholds_the_reference_but_blanks_the_region(clips):
    config = dataclasses.replace(CONFIG, attribute_dropout=1.0, absent_probability=0.0)
    values = sample(ClipList(clips), 3, 0, config)
    assert not values["attribute_valid"].any() and not values["attribute_masks"].any()
    assert values["portrait_mask"].any()


def test_two_attributes_share_a_sample(clips):
    config = dataclasses.replace(CONFIG, second_probability=1.0, absent_probability=0.0)
    assert sample(ClipList(clips), 3, 0, config)["attribute_valid"].sum() == 2
    assert sample(ClipList(clips), 2, 0, config)["attribute_valid"].tolist() == [1, 0]  # wears hair only


def test_target_and_portrait_frames_differ(clips):
    """Without augmentation, frames differ only by their noise."""
    config = dataclasses.replace(CONFIG, frames=1, **STILL)
    for seed in range(20):
        values = sample(ClipList(clips), 2, seed, config)
        visible = values["portrait_mask"][..., 0] == 0
        assert (values["frames"][0][visible] != values["portrait"][visible]).any()


def test_target_frames():
    rng = np.random.default_rng(0)
    drawn = [target_frames(12, 4, 3, rng) for _ in range(200)]
    assert {int(f[1] - f[0]) for f in drawn} == {1, 2, 3}
    assert min(f[0] for f in drawn) == 0 and max(f[-1] for f in drawn) == 11
    assert all(len(set(np.diff(f))) == 1 for f in drawn)
    assert target_frames(3, 7, 3, rng).tolist() == [0, 1, 2, 1, 0, 1, 2]
    assert target_frames(1, 3, 3, rng).tolist() == [0, 0, 0]


def test_a_photo_is_a_clip():
    values = sample(ClipList([clip(0, frames=1), clip(1, frames=1)]), 0, 0)
    np.testing.assert_array_equal(values["frames"][0], values["frames"][1])


def test_other_sizes_are_resampled(clips):
    values = sample(ClipList(clips), 0, 0, dataclasses.replace(CONFIG, image_size=32))
    assert values["frames"].shape == (2, 32, 32, 3) and values["portrait_mask"].shape == (32, 32, 1)


@pytest.mark.parametrize("change", [{"frames": 0}, {"expand_probability": 1.5}, {"kind_weights": (1.0,)},
                                    {"margin": (3, 1)}])
def test_contradictory_numbers_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        DurianSamples(**change)
