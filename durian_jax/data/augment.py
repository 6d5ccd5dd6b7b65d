"""Random changes of reference pictures (Durian: reference augmentation).

Without them the attribute would always lie where the target wants it and the model would learn to
copy in place instead of looking for it.
"""

import numpy as np


def random_affine(rng: np.random.Generator, size: int, shift: float, scale: float,
                  rotation: float) -> np.ndarray:
    """(2, 3) similarity in pixels around the middle of a `size` x `size` picture.

    Args:
        rng: source of the four uniform draws.
        size: H = W in pixels.
        shift: largest shift in each direction, of the picture's width.
        scale: largest relative change of scale, symmetric in its logarithm.
        rotation: largest angle in degrees.
    """
    dx, dy, log_scale, angle = rng.uniform(-1, 1, 4) * (shift, shift, np.log1p(scale), np.radians(rotation))
    factor = np.exp(log_scale)
    cos, sin = factor * np.cos(angle), factor * np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]])
    middle = np.full(2, size / 2)
    return np.concatenate([linear, (middle + np.array([dx, dy]) * size - linear @ middle)[:, None]], 1)


def jitter_colour(rng: np.random.Generator, image: np.ndarray, amount: float) -> np.ndarray:
    """(H, W, 3) uint8 with brightness changed by at most the relative `amount`.

    The target keeps its own colours, so a strong jitter would teach that the reference's colour
    does not matter. A small one covers what exposure does between two photos. For the same reason
    the portrait gets none: its visible part must continue seamlessly into the result.
    """
    if amount == 0:
        return image
    factor = 1 + rng.uniform(-amount, amount)
    table = np.clip(np.arange(256) * factor + 0.5, 0, 255).astype(np.uint8)
    return table[image]
