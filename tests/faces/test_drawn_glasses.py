"""Drawn glasses."""

from dataclasses import replace

import numpy as np
import pytest

from durian_jax.faces.drawn_glasses import DrawnGlasses
from durian_jax.faces.topology import GROUPS
from durian_jax.synthetic import render, sample_person, still

SIZE = 128
CLEAR = DrawnGlasses(0.9, 0.8, 0.5, 0.12, np.array([255.0, 0, 255]), np.zeros(3), 0.0)


def photo(**pose: float):
    clip = render(sample_person("validation", 2).without("glasses", "hat"), still(**pose), SIZE)
    return clip.frames[0], clip.keypoints[0, :, :2] * SIZE


@pytest.mark.parametrize("pose", [{}, {"yaw": 25.0}, {"roll": 15.0, "yaw": -20.0}])
def test_clear_glasses_leave_the_irises_visible(pose):
    frame, points = photo(**pose)
    changed = (CLEAR.worn(frame, points) != frame).any(-1)
    assert 100 < changed.sum() < 0.1 * SIZE**2
    for eye in ("right_iris", "left_iris"):
        x, y = points[GROUPS[eye]][0].astype(int)
        assert not changed[y - 1:y + 2, x - 1:x + 2].any()


def test_glasses_stay_in_place_when_the_eyes_blink():
    (open_eyes, points), (closed, blinking) = photo(), photo(blink=1.0)
    first, second = CLEAR.worn(open_eyes, points), CLEAR.worn(closed, blinking)
    rims = [(picture.astype(int) == CLEAR.colour).all(-1) for picture in (first, second)]
    assert rims[0].sum() > 50 and (rims[0] & rims[1]).sum() > 0.9 * (rims[0] | rims[1]).sum()


def test_a_tint_covers_the_lenses_only():
    frame, points = photo()
    tinted = replace(CLEAR, opacity=0.5).worn(frame, points)
    darker = (tinted.sum(-1) < CLEAR.worn(frame, points).sum(-1) - 20)
    x, y = points[GROUPS["right_iris"]][0].astype(int)
    assert darker[y + 2, x + 3] and not darker[:y - 25].any() and darker.mean() < 0.08


def test_drawn_at_random_and_reproducible():
    frame, points = photo()
    worn = [DrawnGlasses.sample(np.random.default_rng(seed)).worn(frame, points) for seed in (0, 0, 1)]
    assert (worn[0] == worn[1]).all() and (worn[0] != worn[2]).any()
