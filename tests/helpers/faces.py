"""Hand-made faces and clips for tests that must not depend on the renderer."""

import numpy as np

from durian_jax.faces.clip import Clip
from durian_jax.faces.topology import ATTRIBUTE_KINDS, GROUPS, K


def face(rng: np.random.Generator) -> np.ndarray:
    """Return (K, 3) keypoints of a rough face around (0.5, 0.5)."""
    places = {"contour": (0.5, 0.5, 0.2, 0.27), "right_brow": (0.41, 0.4, 0.06, 0.02),
              "left_brow": (0.59, 0.4, 0.06, 0.02), "right_eye": (0.41, 0.45, 0.045, 0.02),
              "left_eye": (0.59, 0.45, 0.045, 0.02), "right_iris": (0.41, 0.45, 0.014, 0.014),
              "left_iris": (0.59, 0.45, 0.014, 0.014), "nose_bridge": (0.5, 0.49, 0.004, 0.06),
              "nose_base": (0.5, 0.57, 0.05, 0.015), "outer_lips": (0.5, 0.65, 0.08, 0.035),
              "inner_lips": (0.5, 0.65, 0.06, 0.015)}
    points = np.zeros((K, 3))
    for group, (x, y, rx, ry) in places.items():
        span = np.arange(K)[GROUPS[group]]
        angles = np.arange(len(span)) * (2 * np.pi / len(span)) + np.pi / 2
        points[span, 0] = x + rx * np.cos(angles) * (1 + 0.1 * rng.uniform())
        points[span, 1] = y + ry * np.sin(angles)
        points[span, 2] = -0.2 * np.sqrt(np.maximum(0, 0.09 - (points[span, :2] - 0.5)**2 @ [1, 1]))
        if group.endswith("iris"):
            points[span[0], :2] = x, y
    return points.astype(np.float32)


def clip(index: int, frames: int = 6, size: int = 64, kinds: tuple[str, ...] = ATTRIBUTE_KINDS) -> Clip:
    """Return a noise clip; each attribute kind's region has a colour that occurs nowhere else."""
    rng = np.random.default_rng(index)
    y, x = np.mgrid[:size, :size] / size
    aside = abs(x - 0.5)
    regions = {"hair": (y < 0.3) & (aside < 0.3), "glasses": (abs(y - 0.45) < 0.04) & (aside < 0.2),
               "beard": (y > 0.68) & (y < 0.8) & (aside < 0.15), "hat": (y < 0.12) & (aside < 0.35)}
    base = face(rng)
    pictures, keypoints, masks = [], [], []
    for _ in range(frames):
        shift = rng.uniform(-0.03, 0.03, 2)
        picture = rng.integers(100, 140, (size, size, 3)).astype(np.uint8)
        field = np.zeros((size, size), np.uint8)
        for bit, kind in enumerate(ATTRIBUTE_KINDS):
            if kind in kinds:
                moved = np.roll(regions[kind], (shift * size).round().astype(int)[::-1], (0, 1))
                field[moved] = 1 << bit
                picture[moved] = 10 + 60 * bit
        keypoints.append(base + np.float32([*shift, 0]))
        pictures.append(picture)
        masks.append(field)
    return Clip(np.stack(pictures), np.stack(keypoints), np.stack(masks), 25.0, f"person-{index}")
