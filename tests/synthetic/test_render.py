"""Rendering: determinism, and agreement of pixels, masks and keypoints."""

import dataclasses
import subprocess
import sys

import cv2
import numpy as np
import pytest

from durian_jax.faces.topology import ATTRIBUTE_KINDS, GROUPS, POSITION
from durian_jax.synthetic import Person, render, sample_motion, sample_person, still
from durian_jax.synthetic.attributes import CUTS, HAT_FORMS, Hair
from durian_jax.synthetic.colours import HAIRS


def plain_hair(cut):
    return Hair(cut, "red", HAIRS["red"], "none", 0.0, 0.0, 1.0)


def test_the_same_seed_gives_the_same_clip():
    first, second = (render(sample_person("train", 3), sample_motion("train", 5, 3), 64) for _ in range(2))
    np.testing.assert_array_equal(first.frames, second.frames)
    np.testing.assert_array_equal(first.masks, second.masks)
    np.testing.assert_array_equal(first.keypoints, second.keypoints)
    assert first.identity == "train-3"


def test_attributes_change_only_their_pixels():
    """Removing glasses changes only the pixels of their mask, dilated by the antialiased edge."""
    person = sample_person("train", 11, ("glasses", "hair")).without("hat")
    motion = sample_motion("train", 11, 2)
    clip, bare = render(person, motion, 96), render(person.without("glasses"), motion, 96)
    grown = np.stack([cv2.dilate(m.astype(np.uint8), np.ones((5, 5))) for m in clip.mask("glasses")]) > 0
    np.testing.assert_array_equal(clip.frames[~grown], bare.frames[~grown])
    assert np.abs(clip.frames.astype(int) - bare.frames)[clip.mask("glasses")].mean() > 15


def test_masks_are_exclusive_and_large_enough():
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
        # The rims stay visible; hair may hide only the arms.
        lost = no_hair.mask("glasses") & ~with_hat.mask("glasses")
        assert lost.sum() <= 0.12 * no_hair.mask("glasses").sum()


def test_hair_mask_has_the_hair_colour():
    person = sample_person("train", 9).without(*ATTRIBUTE_KINDS)
    person = Person(person.identity, {"hair": plain_hair("long")})
    clip = render(person, still(), 128)
    typical = np.median(clip.frames[0][clip.mask("hair")[0]], 0)
    np.testing.assert_allclose(typical, HAIRS["red"], atol=4)


@pytest.mark.parametrize("index", range(4))
def test_keypoints_match_the_drawing(index):
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
    # Below the chin's outline, the picture changes from skin to the neck's shadow.
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
    assert turned[POSITION[4], 0] > calm[POSITION[4], 0] + 0.05  # the nose turns to the picture's right
    assert turned[POSITION[454], 2] > turned[POSITION[234], 2]  # and that side of the face turns away from the camera
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


def test_every_hat_and_half_of_the_cuts_draw_at_extreme_poses():
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


def test_imports_no_jax():
    code = "import sys, durian_jax.synthetic; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
