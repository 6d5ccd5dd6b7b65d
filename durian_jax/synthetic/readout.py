"""Read a motion curve off a picture, without a detector: the value whose drawing matches best.

T frames, H x W pixels.
"""

from dataclasses import replace

import numpy as np

from durian_jax.synthetic.motion import CURVES, RANGES, Motion
from durian_jax.synthetic.person import Person
from durian_jax.synthetic.render import render

# Curve -> lowest and highest value that is looked for.
LIMITS = {"gaze_x": RANGES["gaze_x"][:2], "gaze_y": RANGES["gaze_y"][:2], "blink": (0.0, 1.0), "mouth": (0.0, 1.0)}


def read_curve(person: Person, motion: Motion, curve: str, picture: np.ndarray, region: np.ndarray, points: int = 11
               ) -> float:
    """Return the value of a curve that a picture shows.

    The person is drawn over a grid of values; the best match in the region is refined by a parabola through it and its
    neighbours.

    Args:
        person: who is shown.
        motion: of one frame; its other curves are taken as they are.
        curve: a key of `LIMITS`.
        picture: (H, W, 3) uint8, H = W.
        region: (H, W) bool, the pixels to compare.
        points: number of values of the grid.
    """
    low, high = LIMITS[curve]
    grid = np.linspace(low, high, points)
    constant = {name: np.repeat(getattr(motion, name)[:1], points) for name in CURVES}
    drawn = render(person, replace(motion, **{**constant, curve: grid.astype(np.float32)}), picture.shape[0]).frames
    errors = ((drawn[:, region].astype(np.float64) - picture[region]) ** 2).mean((1, 2))
    best = int(errors.argmin())
    if not 0 < best < points - 1:
        return float(grid[best])
    before, here, after = errors[best - 1:best + 2]
    bend = before - 2 * here + after
    shift = 0.5 * (before - after) / bend if bend > 0 else 0.0
    return float(grid[best] + shift * (grid[1] - grid[0]))
