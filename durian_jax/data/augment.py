"""Random changes of reference pictures (reference augmentation, arXiv 2509.04434).

Without augmentation the attribute always lies where the target needs it. The model would then learn to
copy in place instead of searching for the attribute.
"""

import cv2
import numpy as np

from durian_jax.faces.fill_region import dilate


def random_affine(rng: np.random.Generator, size: int, shift: float, scale: float,
                  rotation: float) -> np.ndarray:
    """Return a random (2, 3) similarity in pixels around the centre of a `size` x `size` picture.

    Args:
        rng: source of the four uniform draws.
        size: H = W in pixels.
        shift: largest shift in each direction, as a fraction of the picture's width.
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
    """Change the brightness of an (H, W, 3) uint8 picture by at most the relative `amount`.

    The target keeps its own colours. A strong jitter would teach that the reference's colour does not
    matter. A small jitter covers different exposures of two photos. The portrait gets no jitter,
    because its visible part must continue seamlessly into the result.
    """
    if amount == 0:
        return image
    return cv2.convertScaleAbs(image, alpha=1 + rng.uniform(-amount, amount))


def random_colours(rng: np.random.Generator, amount: float) -> np.ndarray | None:
    """Return a (3, 4) affine RGB map that changes brightness, contrast and saturation by at most `amount` (relative).

    Apply the same map to all pictures of a sample, so that their colours still agree. Returns None (no
    change) if `amount` is 0.
    """
    if amount == 0:
        return None
    brightness, contrast, saturation = 1 + rng.uniform(-amount, amount, 3)
    grey = np.full((3, 3), 1 / 3)
    linear = brightness * contrast * (grey + saturation * (np.eye(3) - grey))
    return np.concatenate([linear, np.full((3, 1), 127.5 * brightness * (1 - contrast))], 1)


def change_colours(image: np.ndarray, colours: np.ndarray | None) -> np.ndarray:
    """Apply a map of `random_colours` to an (H, W, 3) uint8 picture."""
    return image if colours is None else cv2.transform(image, colours)


def degrade(rng: np.random.Generator, image: np.ndarray, blur_probability: float, blur: float,
            jpeg_probability: float) -> np.ndarray:
    """Blur and compress an (H, W, 3) uint8 picture at random, like a worse camera.

    Args:
        rng: source of all draws.
        image: (H, W, 3) uint8 RGB.
        blur_probability: probability of a Gaussian blur.
        blur: largest standard deviation of the blur in pixels.
        jpeg_probability: probability of JPEG compression with a quality from 30 to 90.
    """
    if rng.random() < blur_probability:
        image = cv2.GaussianBlur(image, (0, 0), max(rng.uniform(0, blur), 1e-3))
    if rng.random() < jpeg_probability:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 91))]
        # OpenCV takes RGB for BGR here. Both calls do so, and the loss of JPEG is nearly the same.
        image = cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR)
    return image


def jitter_mask(rng: np.random.Generator, mask: np.ndarray, pixels: float) -> np.ndarray:
    """Simulate annotation errors in an (H, W) bool mask: erode or dilate it by up to `pixels`, or cut holes."""
    how = rng.integers(3)
    if how < 2:
        return dilate(mask, (-1, 1)[how] * int(rng.integers(1, max(1, round(pixels)) + 1)))
    y, x = np.nonzero(mask)
    if len(x):
        holes = mask.astype(np.uint8)
        for _ in range(rng.integers(1, 4)):
            at, radius = rng.integers(len(x)), rng.uniform(pixels, 3 * pixels)
            cv2.circle(holes, (int(x[at]), int(y[at])), max(1, round(radius)), 0, -1)
        mask = holes > 0
    return mask
