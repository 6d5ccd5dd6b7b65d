"""Random changes of reference pictures and masks."""

import dataclasses

import cv2
import numpy as np

from durian_jax.data import ClipList
from durian_jax.data.augment import change_colours, degrade, jitter_colour, jitter_mask, random_affine, random_colours
from durian_jax.data.samples.views import BLANK
from tests.helpers.data import CONFIG, STILL, sample
from tests.helpers.faces import clip


def test_augmentation_stays_within_its_bounds():
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(random_affine(rng, 64, 0, 0, 0), [[1, 0, 0], [0, 1, 0]])
    for _ in range(50):
        matrix = random_affine(rng, 64, 0.1, 0.2, 10.0)
        assert 1 / 1.2 - 1e-9 <= np.sqrt(np.linalg.det(matrix[:, :2])) <= 1.2 + 1e-9
        assert (abs(matrix @ [32, 32, 1] - 32) <= 6.4 + 1e-9).all()
    grey = np.full((2, 2, 3), 100, np.uint8)
    assert all(94 <= jitter_colour(rng, grey, 0.06)[0, 0, 0] <= 106 for _ in range(20))


def test_degraded_references_lose_detail():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    np.testing.assert_array_equal(degrade(rng, noise, 0, 2, 0), noise)
    blurred = [degrade(np.random.default_rng(seed), noise, 1, 2, 0).std() for seed in range(20)]
    assert min(blurred) < 0.5 * noise.std() and max(blurred) > 0.9 * noise.std()
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    packed = degrade(rng, smooth, 0, 2, 1)
    # The colour channels are not swapped.
    assert 0 < abs(packed.astype(int) - smooth).mean() < 6


def test_jittered_masks_are_eroded_dilated_or_have_holes():
    mask = np.zeros((64, 64), bool)
    mask[16:48, 16:48] = True
    jittered = [jitter_mask(np.random.default_rng(seed), mask, 2) for seed in range(40)]
    grown = [j for j in jittered if (j >= mask).all() and j.sum() > mask.sum()]
    smaller = [j for j in jittered if (j <= mask).all() and j.sum() < mask.sum()]
    holes = [j for j in smaller if j[16].any() and not j[18:46, 18:46].all()]
    assert len(grown) + len(smaller) == 40 and min(len(grown), len(smaller) - len(holes), len(holes)) >= 5
    assert not jitter_mask(np.random.default_rng(1), np.zeros((8, 8), bool), 2).any()
    values = sample(ClipList([clip(0)]), 0, 0, dataclasses.replace(CONFIG, mask_jitter=1.0))
    assert (values["attributes"][values["attribute_masks"][..., 0] == 0] == BLANK).all()


def test_all_pictures_of_a_sample_share_one_colour_change(clips):
    assert random_colours(np.random.default_rng(0), 0) is None
    grey = np.full((2, 2, 3), 90, np.uint8)
    changed = [change_colours(grey, random_colours(np.random.default_rng(seed), 0.2)) for seed in range(30)]
    assert all((c == c[0, 0]).all() for c in changed), "grey stays grey"
    assert np.ptp([int(c[0, 0, 0]) for c in changed]) > 20
    config = dataclasses.replace(CONFIG, **STILL, frames=1)
    for seed in range(6):
        plain = sample(ClipList(clips), 2, seed, config)
        vivid = sample(ClipList(clips), 2, seed, dataclasses.replace(config, clip_colour=0.1))
        known, seen = plain["frames"].reshape(-1, 3), plain["portrait_mask"][..., 0] == 0
        known = np.concatenate([known, np.ones((len(known), 1))], 1)
        colours = np.linalg.lstsq(known, vivid["frames"].reshape(-1, 3), rcond=None)[0]
        expected = plain["portrait"][seen] @ colours[:3] + colours[3]
        assert np.abs(expected - vivid["portrait"][seen]).mean() < 1
        assert np.abs(expected - plain["portrait"][seen]).mean() > 1
