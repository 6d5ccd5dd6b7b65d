"""Crops: boxes around the head, smooth tracks, and shot cuts."""

import numpy as np
import pytest

from durian_jax.faces.topology import GROUPS, MEDIAPIPE_INDICES
from durian_jax.prepare import crop
from tests.helpers.prepare import face_mesh


def test_crop_and_keypoints_agree():
    image = np.zeros((480, 640, 3), np.uint8)
    image[299:302, 249:252] = 255  # centre of the spot: pixel (250, 300), at 250.5, 300.5
    points = np.array([[[250.5, 300.5, 10.0]]])
    for side in (150.0, 777.0):
        box = crop.Box(np.array([[270.0, 280.0]]), np.array([side]))
        where = box.keypoints(points)[0, 0]
        small = box.crop(image, 0, 128)[..., 0].astype(float)
        y, x = np.mgrid[:128, :128] + 0.5
        assert (x * small).sum() / small.sum() == pytest.approx(where[0] * 128, abs=0.3)
        assert (y * small).sum() / small.sum() == pytest.approx(where[1] * 128, abs=0.3)
        assert where[2] == pytest.approx(10 / side)


def test_box_is_fixed_and_gives_the_face_its_share():
    points = face_mesh()
    points += np.random.default_rng(0).normal(0, 2, (20, 1, 3)).astype(np.float32)  # camera shake
    box = crop.head_box(points, 25, 720, 1280)
    assert np.ptp(box.centre, axis=0).max() == 0 and np.ptp(box.side) == 0
    contour = box.keypoints(points)[:, MEDIAPIPE_INDICES[GROUPS["contour"]]]
    assert np.ptp(contour[..., 1], axis=1) == pytest.approx(crop.FACE_HEIGHT, abs=0.01)
    assert contour[..., 1].mean() == pytest.approx(crop.FACE_CENTRE, abs=0.01)


def test_box_follows_a_walking_face_smoothly():
    points = face_mesh(frames=100)
    points[..., 0] += np.linspace(0, 500, 100)[:, None]
    box = crop.head_box(points, 25, 720, 1280)
    middle = crop.face_centre(box.keypoints(points))
    assert np.abs(middle[10:-10, 0] - 0.5).max() < 0.1
    assert np.abs(np.diff(box.centre[:, 0], n=2)).max() < 0.5


def test_box_stays_in_the_picture_and_gives_up_margin_in_close_ups():
    box = crop.head_box(face_mesh((150, 130), 200), 25, 512, 512)
    assert (box.centre - box.side[:, None] / 2 >= -0.15 * box.side[:, None]).all()
    close = crop.head_box(face_mesh((256, 256), 280), 25, 512, 512)
    assert close.side[0] == pytest.approx(512)


def test_smoothing_has_no_lag():
    time = np.arange(30.0)
    parabola = np.broadcast_to((0.3 * time ** 2 - 4 * time)[:, None, None], (30, 4, 3)).astype(np.float32)
    smooth = crop.smooth_track(parabola)
    assert smooth[2:-2] == pytest.approx(parabola[2:-2], abs=1e-3)
    noise = np.random.default_rng(0).normal(0, 1, (200, 4, 3)).astype(np.float32)
    assert crop.smooth_track(noise)[5:-5].std() < 0.75


def test_shot_cut_is_found_and_motion_is_not():
    wave = 120 + 60 * np.sin(np.arange(32) / 5)[None, :, None].repeat(32, 0).repeat(3, 2)
    # The camera pans through both shots. The second shot is the first one rotated by 90 degrees.
    thumbnails = np.stack([np.roll(wave if t < 12 else wave.transpose(1, 0, 2), t, 1) for t in range(24)])
    still = np.zeros((24, 2)), np.full(24, 100.0)
    assert np.flatnonzero(crop.shot_cuts(thumbnails.astype(np.uint8), 25, *still)).tolist() == [12]
    jump = np.where(np.arange(24) < 7, 0.0, 80.0)[:, None].repeat(2, 1)
    same = np.zeros((24, 32, 32, 3), np.uint8)
    flash = thumbnails[:10].astype(np.uint8).copy()
    flash[5] = 255
    assert not crop.scene_cuts(flash, 25).any()
    assert np.flatnonzero(crop.shot_cuts(same, 25, jump, still[1])).tolist() == [7]
