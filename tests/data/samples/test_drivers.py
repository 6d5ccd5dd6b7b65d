"""Drivers of training samples: recorded ones, re-rendered ones, and the regions that are cut out."""

from dataclasses import replace

import numpy as np
import pytest

from durian_jax.data import ClipList, RecordedClips
from durian_jax.data import dataset_writer as records
from durian_jax.data.samples.drivers import DriverConfig, choose_regions, driver_of, driving_regions
from durian_jax.data.samples.rerendered import RerenderedDriver, choose_other, clip_colours
from durian_jax.data.samples.views import BLANK, View
from durian_jax.data.sources import DecodedClip
from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip, Driver, attribute_bit
from durian_jax.faces.regions import driven_region
from durian_jax.faces.topology import POSITION, REGION_KINDS
from durian_jax.synthetic import add_driver, render, sample_motion, sample_person, still

SIZE, FRAMES = 64, 6


@pytest.fixture(scope="module")
def people() -> list[Clip]:
    """Four people without glasses, hats and beards; the first one talks."""
    motion = sample_motion("validation", 0, FRAMES, 6.0)
    return [render(sample_person("validation", index).without("glasses", "hat", "beard"), motion, SIZE)
            for index in range(4)]


@pytest.fixture(scope="module")
def source(people) -> ClipList:
    return ClipList(people)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def views(clip, size: int = SIZE) -> list[View]:
    return [View(clip, index, size) for index in range(len(clip.keypoints))]


def opening(keypoints: np.ndarray) -> np.ndarray:
    """(T,): the opening of the mouth."""
    return np.linalg.norm(keypoints[:, POSITION[13], :2] - keypoints[:, POSITION[14], :2], axis=-1)


# --- who drives ---------------------------------------------------------------------------------------

def test_a_recorded_driver_is_taken_as_it_is(people):
    driven = replace(people[0], driver=Driver(people[1].frames, people[1].keypoints, "another"))
    driver = driver_of(ClipList([driven]), 0, DecodedClip(driven), rng(), DriverConfig())
    np.testing.assert_array_equal(driver.frame(2), people[1].frames[2])
    np.testing.assert_array_equal(driver.keypoints, people[1].keypoints)


def test_own_pixels_drive_only_where_asked(people):
    driven = replace(people[0], driver=Driver(people[1].frames, people[1].keypoints, "another"))
    clip = DecodedClip(driven)
    own = driver_of(ClipList([driven]), 0, clip, rng(), DriverConfig(own_probability=1.0))
    assert own is clip
    half = [driver_of(ClipList([driven]), 0, clip, rng(seed), DriverConfig(own_probability=0.5)) is clip
            for seed in range(200)]
    assert 0.35 < np.mean(half) < 0.65


def test_another_person_is_chosen(people):
    same = [replace(people[0], identity="same") for _ in range(5)]
    clips = ClipList([*same, people[1]])
    assert {choose_other(clips, index, rng(seed), 1) for index in range(5) for seed in range(4)} == {5}
    assert {choose_other(clips, 5, rng(seed), 4) for seed in range(40)} == set(range(5))
    with pytest.raises(InputError, match="at least two people, found only 'same'"):
        driver_of(ClipList(same), 0, DecodedClip(same[0]), rng(), DriverConfig())


# --- re-rendered drivers ------------------------------------------------------------------------------

def test_a_rerendered_driver_keeps_the_motion(people):
    driver = RerenderedDriver(DecodedClip(people[0]), DecodedClip(people[1]), 1.0, 1.0)
    before, after = opening(people[0].keypoints), opening(driver.keypoints)
    assert np.ptp(before) > 0.02 and np.corrcoef(before, after)[0, 1] > 0.999
    np.testing.assert_allclose(after, before, atol=2e-3)
    # Every point moves from frame to frame as the clip's does, but for the turning head.
    steps = np.diff(driver.keypoints, axis=0) - np.diff(people[0].keypoints, axis=0)
    assert np.abs(steps[..., :2]).max() < 0.35 * np.abs(driver.keypoints - people[0].keypoints)[..., :2].max()


def test_a_rerendered_driver_shows_another_person(people):
    """Its regions are nearer to the other person in the same motion than the clip's own are."""
    driver = RerenderedDriver(DecodedClip(people[0]), DecodedClip(people[2]), 1.0, 1.0)
    masks = [driven_region(keypoints, SIZE, SIZE) for keypoints in people[2].keypoints]

    def away(frames) -> float:
        return float(np.mean([np.abs(a.astype(float) - b)[mask].mean()
                              for a, b, mask in zip(frames, people[2].frames, masks, strict=True)]))
    assert away([driver.frame(index) for index in range(FRAMES)]) < 0.6 * away(people[0].frames)
    moved = np.abs(driver.keypoints - people[0].keypoints)[..., :2].max() * SIZE
    assert 0.7 < moved < 0.1 * SIZE


def test_a_rerendered_driver_without_strength_is_the_clip(people):
    driver = RerenderedDriver(DecodedClip(people[0]), DecodedClip(people[1]), 0.0, 0.0)
    np.testing.assert_allclose(driver.keypoints, people[0].keypoints, atol=1e-6)
    mask = driven_region(people[0].keypoints[1], SIZE, SIZE)
    assert np.abs(driver.frame(1).astype(int) - people[0].frames[1])[mask].max() <= 2


def test_a_still_clip_has_a_still_driver(people):
    photo = render(sample_person("validation", 0).without("glasses", "hat", "beard"), still(), SIZE)
    clip = photo[np.zeros(3, int)]
    driver = RerenderedDriver(DecodedClip(clip), DecodedClip(people[1]), 1.3, 1.0)
    first = driver.frame(0)
    assert all((driver.frame(index) == first).all() for index in (1, 2))


def test_draws_are_made_once_per_clip_and_follow_the_seed(people, source):
    clip = DecodedClip(people[0])
    first, again, other = (driver_of(source, 0, clip, rng(seed), DriverConfig()) for seed in (0, 0, 1))
    assert isinstance(first, RerenderedDriver)
    np.testing.assert_array_equal(first.keypoints, again.keypoints)
    np.testing.assert_array_equal(first.frame(3), again.frame(3))
    assert (first.frame(3) != other.frame(3)).any()


def test_pixels_far_from_the_features_are_blank(people):
    driver = RerenderedDriver(DecodedClip(people[0]), DecodedClip(people[1]), 1.0, 1.0)
    assert (driver.frame(0)[:4] == BLANK).all() and (driver.frame(0)[-4:] == BLANK).all()


def test_a_face_outside_the_picture_has_a_blank_driver(people):
    away = replace(people[0], keypoints=people[0].keypoints + np.float32([3, 0, 0]))
    driver = RerenderedDriver(DecodedClip(away), DecodedClip(people[1]), 1.0, 1.0)
    assert (driver.frame(0) == BLANK).all()


def test_some_drivers_wear_glasses_that_the_person_does_not_wear(people, source):
    """A clip that shows glasses keeps its own."""
    config = DriverConfig(driver_glasses=1.0, driver_shape=(0.0, 0.0), driver_colours=(0.0, 0.0))
    masks = [driven_region(keypoints, SIZE, SIZE) for keypoints in people[0].keypoints]

    def changed(clip: Clip, probability: float) -> np.ndarray:
        clips = ClipList([clip, *people[1:]])
        driver = driver_of(clips, 0, clips.open(0), rng(), replace(config, driver_glasses=probability))
        return np.stack([(np.abs(driver.frame(index).astype(int) - clip.frames[index]).max(-1) > 20) & mask
                         for index, mask in enumerate(masks)])
    seen = changed(people[0], 1.0)
    assert seen.any((1, 2)).all() and not changed(people[0], 0.0).any()
    eyes = [driven_region(keypoints, SIZE, SIZE, ("eyes", "nose")) for keypoints in people[0].keypoints]
    assert not (seen & ~np.stack(eyes)).any(), "the mouth stays"
    wearing = replace(people[0], masks=np.full_like(people[0].masks, attribute_bit("glasses")))
    assert not changed(wearing, 1.0).any()


def test_records_without_drivers_get_them_on_the_fly(people, tmp_path):
    records.write_clips(tmp_path, (replace(clip, margin=8) for clip in people))
    clips = RecordedClips(tmp_path)
    driver = driver_of(clips, 1, clips.open(1), rng(), DriverConfig())
    regions, masks = driving_regions(views(driver, 48), REGION_KINDS, rng(), DriverConfig())
    assert regions.shape == (FRAMES, 48, 48, 3) and masks.any((1, 2)).all()


def test_real_clips_keep_their_motion(portraits, annotator, tmp_path):
    """Two people of real clips: openings of the mouth stay, colours become the other person's."""
    from durian_jax.prepare.clips import Settings
    from durian_jax.prepare.pipeline import prepare

    prepare([portraits / "clips" / name for name in ("lp_d0.mp4", "lp_d3.mp4")], tmp_path / "set",
            Settings(size=128, margin=16, fps=6.0, segment_frames=12, max_frames=60))
    clips = RecordedClips(tmp_path / "set")
    first, second = clips.open(0), clips.open(choose_other(clips, 0, rng(), 16))
    driver = RerenderedDriver(first, second, 1.0, 1.0)
    assert np.corrcoef(opening(first.keypoints), opening(driver.keypoints))[0, 1] > 0.98
    own, wanted = clip_colours(first), clip_colours(second)
    masks = [driven_region(keypoints, *first.frame(0).shape[:2]) for keypoints in driver.keypoints]
    shown = np.mean([driver.frame(index)[mask].mean(0) for index, mask in enumerate(masks)], 0)
    assert np.abs(shown - wanted.skin).mean() < np.abs(shown - own.skin).mean()


# --- regions ------------------------------------------------------------------------------------------

def test_regions_are_blank_outside_their_masks(people):
    clip = DecodedClip(people[0])
    regions, masks = driving_regions(views(clip), REGION_KINDS, rng(), DriverConfig())
    assert regions.dtype == masks.dtype == np.uint8 and set(np.unique(masks)) == {0, 1}
    assert (regions[masks == 0] == BLANK).all()
    np.testing.assert_array_equal(regions[masks == 1], people[0].frames[masks == 1])


@pytest.mark.parametrize("kinds", [("eyes",), ("nose",), ("mouth",), ("eyes", "mouth"), REGION_KINDS])
def test_masks_are_those_of_the_region_set(people, kinds):
    _, masks = driving_regions(views(DecodedClip(people[0])), kinds, rng(), DriverConfig())
    for mask, keypoints in zip(masks, people[0].keypoints, strict=True):
        np.testing.assert_array_equal(mask > 0, driven_region(keypoints, SIZE, SIZE, kinds))


def test_dropout_removes_one_region_of_a_clip():
    assert choose_regions(rng(), DriverConfig()) == [*REGION_KINDS]
    chosen = [choose_regions(rng(seed), DriverConfig(region_dropout=1.0)) for seed in range(12)]
    assert all(len(kinds) == len(REGION_KINDS) - 1 for kinds in chosen)
    assert {kind for kinds in chosen for kind in REGION_KINDS if kind not in kinds} == set(REGION_KINDS)
    assert choose_regions(rng(), DriverConfig(regions=("nose",), region_dropout=1.0)) == ["nose"], "the only one stays"


def test_jitter_moves_a_region_in_the_same_way_in_all_frames(people):
    clip = people[0][np.zeros(3, int)]
    _, still_masks = driving_regions(views(DecodedClip(clip)), ["nose"], rng(), DriverConfig())
    sizes = set()
    for seed in range(8):
        _, masks = driving_regions(views(DecodedClip(clip)), ["nose"], rng(seed),
                                   DriverConfig(region_jitter=4.0))
        assert (masks == masks[0]).all()
        sizes.add(int(masks[0].sum()))
        middle = [np.argwhere(x[0]).mean(0) for x in (masks, still_masks)]
        assert np.abs(middle[0] - middle[1]).max() <= 2.6  # 4 pixels at 128 px are 2 at 64
    assert len(sizes) > 2


def test_occlusion_hides_a_rectangle(people):
    whole = views(DecodedClip(people[0]))
    _, full = driving_regions(whole, REGION_KINDS, rng(), DriverConfig())
    for seed in range(6):
        regions, masks = driving_regions(whole, REGION_KINDS, rng(seed), DriverConfig(region_occlusion=1.0))
        gone = (full > masks).any(0)
        assert gone.any() and not (masks > full).any() and (regions[masks == 0] == BLANK).all()
        y, x = np.nonzero(gone)
        box = np.zeros_like(gone)
        box[y.min():y.max() + 1, x.min():x.max() + 1] = True
        np.testing.assert_array_equal(masks, full * ~box)
        assert max(np.ptp(y), np.ptp(x)) <= SIZE // 3 + 1


@pytest.mark.parametrize(("field", "value"), [
    ("regions", ()), ("regions", ("ears",)), ("region_dropout", 1.5), ("region_occlusion", -0.1),
    ("own_probability", 2.0), ("driver_glasses", -1.0), ("region_jitter", -1.0),
    ("driver_shape", (1.0, 0.5)), ("driver_shape", (0.0, 3.0)), ("driver_colours", (0.5, 1.1)),
    ("driver_tries", 0)])
def test_wrong_settings_are_refused(field, value):
    with pytest.raises(InputError, match=f"^{field}.*: expected"):
        DriverConfig(**{field: value})


def test_a_rendered_driver_makes_the_same_motion(people):
    motion = sample_motion("validation", 0, FRAMES, 6.0)
    driven = add_driver(people[0], sample_person("validation", 9).without("glasses", "hat", "beard"), motion)
    assert driven.driver.identity == "validation-9" and (driven.frames == people[0].frames).all()
    assert np.corrcoef(opening(driven.keypoints), opening(driven.driver.keypoints))[0, 1] > 0.99
