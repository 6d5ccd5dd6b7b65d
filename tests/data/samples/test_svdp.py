"""SVDP's training samples: fields, history, regions of the driver, attributes."""

from dataclasses import replace

import numpy as np
import pytest

from durian_jax.data import ClipList
from durian_jax.data.samples.svdp import SVDPSamples
from durian_jax.data.samples.views import BLANK
from durian_jax.errors import InputError
from durian_jax.faces.clip import Driver
from durian_jax.faces.regions import driven_region
from durian_jax.models.batch import STORED_TYPES, training_fields
from tests.helpers import svdp
from tests.helpers.data import STILL, assert_same, sample
from tests.helpers.faces import clip

SIZE = 64
CONFIG = SVDPSamples(image_size=SIZE, frames=2, history=2, attributes=1, **STILL)


@pytest.fixture(scope="module")
def driven(clips):
    """The clips, each with the next one as its driver."""
    following = [*clips[1:], clips[0]]
    return ClipList([replace(each, driver=Driver(other.frames, other.keypoints, other.identity))
                     for each, other in zip(clips, following, strict=True)])


def numbered(frames: int = 12):
    """A clip whose n-th frame has the grey level 10 n, and so has its driver's."""
    base = clip(0, frames, SIZE)
    levels = (10 * np.arange(frames, dtype=np.uint8))[:, None, None, None]
    pictures = np.broadcast_to(levels, base.frames.shape).copy()
    return replace(base, frames=pictures, driver=Driver(pictures, base.keypoints, "other"))


@pytest.mark.parametrize(("frames", "history", "attributes"), [(3, 0, 1), (2, 2, 2), (1, 1, 0)])
def test_a_sample_follows_the_spec_of_the_model(driven, frames, history, attributes):
    model = replace(svdp.tiny(), image_size=SIZE)
    config = SVDPSamples.for_model(model, {"frames": frames, "history": history, "attributes": attributes})
    expected = {name: (field.shape({"B": 1, **config.sizes})[1:], STORED_TYPES[field.kind])
                for name, field in training_fields(model.batch_spec()).items()}
    values = sample(driven, 1, 0, config)
    assert {name: (value.shape, value.dtype) for name, value in values.items()} == expected
    assert values["history_valid"] == (history > 0)


def test_samples_of_clips_without_drivers_have_the_same_fields(clips, driven):
    bare, recorded = (sample(source, 1, 0, CONFIG) for source in (ClipList(clips), driven))
    assert {name: (x.shape, x.dtype) for name, x in bare.items()} == {
        name: (x.shape, x.dtype) for name, x in recorded.items()}
    assert bare["driving_masks"].any((1, 2, 3)).all()


def test_a_sample_depends_on_the_seed_only(clips, driven):
    for source in (ClipList(clips), driven):
        assert_same(sample(source, 1, 3, CONFIG), sample(source, 1, 3, CONFIG))
        assert len({sample(source, 1, seed, CONFIG)["driving_regions"].tobytes() for seed in range(6)}) > 1


def test_history_precedes_the_frames():
    source = ClipList([numbered()])
    strides = set()
    for seed in range(20):
        values = sample(source, 0, seed, replace(CONFIG, history=3, max_stride=2))
        shown = np.concatenate([values["history"], values["frames"]])[:, 0, 0, 0].astype(int) // 10
        steps = np.diff(shown)
        assert len(shown) == 5 and (steps == steps[0]).all() and steps[0] in (1, 2)
        strides.add(int(steps[0]))
        # The driver's regions are of the same frames.
        for regions, masks, frames in (("history_regions", "history_masks", "history"),
                                       ("driving_regions", "driving_masks", "frames")):
            for picture, mask, frame in zip(values[regions], values[masks][..., 0], values[frames], strict=True):
                assert mask.any() and (picture[mask > 0] == frame[0, 0]).all()
    assert strides == {1, 2}


def test_the_model_sees_nothing_of_the_driver_outside_the_masks(driven, clips):
    for seed in range(4):
        values = sample(driven, 1, seed, replace(CONFIG, region_jitter=2.0, region_occlusion=1.0, region_dropout=0.5))
        for regions, masks in (("driving_regions", "driving_masks"), ("history_regions", "history_masks")):
            assert (values[regions][values[masks][..., 0] == 0] == BLANK).all()
            assert set(np.unique(values[masks])) <= {0, 1}


def test_the_loss_weighs_the_frames_own_features(clips):
    """The masks for the loss are those of the clip's own face, not of its driver's."""
    own = clip(0, 3, SIZE, kinds=())
    keypoints = own.keypoints + np.float32([0.1, 0.05, 0])
    source = ClipList([replace(own, driver=Driver(own.frames, keypoints, "other"))])
    values = sample(source, 0, 0, replace(CONFIG, frames=1, history=0, attribute_probability=0.0, max_stride=1))
    mine = [driven_region(points, SIZE, SIZE) for points in own.keypoints]
    theirs = [driven_region(points, SIZE, SIZE) for points in keypoints]
    assert any((values["frame_masks"][0, ..., 0] == mask).all() for mask in mine)
    assert any((values["driving_masks"][0, ..., 0] == mask).all() for mask in theirs)


def test_attributes_are_blanked_in_the_source_where_a_sample_has_some(driven):
    whole = sample(driven, 1, 0, replace(CONFIG, attribute_probability=0.0))
    assert not whole["portrait_mask"].any() and not whole["attribute_valid"].any()
    masked = sample(driven, 1, 0, replace(CONFIG, attribute_probability=1.0, absent_probability=0.0))
    region = masked["portrait_mask"][..., 0] == 1
    assert region.any() and (masked["portrait"][region] == BLANK).all() and masked["attribute_valid"].all()


@pytest.mark.parametrize(("field", "value"), [("history", -1), ("attribute_probability", 1.5), ("regions", ("ears",)),
                                              ("driver_shape", (2.0, 1.0))])
def test_contradictory_numbers_are_refused(field, value):
    with pytest.raises(InputError, match=field):
        SVDPSamples(**{field: value})
