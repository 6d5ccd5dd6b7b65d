"""Draw keypoints as a picture: the motion signal of the denoiser (K in arXiv 2509.04434).

The code uses the array API, so that numpy (sheets, tests) and jax.numpy (inside the training step) run the
same lines.

A line is drawn as many small Gaussian dots along its segment. A dot is separable: exp(-dy^2) * exp(-dx^2).
A group of lines is therefore one matrix product (H, dots) @ (dots, W), which is fast on every accelerator.
Computing the distance of every pixel to every segment costs about fifty times more.
"""

import numpy as np

from durian_jax.faces.topology import GROUPS, SEGMENTS

# Group -> RGB. Neighbouring groups differ clearly in at least one channel. Right and left brows and eyes differ too.
COLOURS = {
    "contour": (0.45, 0.45, 0.45),
    "right_brow": (1.0, 0.55, 0.0),
    "left_brow": (0.55, 1.0, 0.0),
    "right_eye": (0.0, 0.6, 1.0),
    "left_eye": (0.0, 1.0, 0.6),
    "right_iris": (1.0, 1.0, 1.0),
    "left_iris": (1.0, 1.0, 1.0),
    "nose_bridge": (0.6, 0.3, 1.0),
    "nose_base": (1.0, 1.0, 0.0),
    "outer_lips": (1.0, 0.0, 0.35),
    "inner_lips": (0.8, 0.0, 1.0),
}
LINE_SIGMA = 0.006  # sigma of the line profile in picture widths: 0.8 px at 128 px, so that lids stay apart
DOTS = 6  # dots per segment; if the face fills the frame, a segment is up to 8 sigma long
DENSITY = 2.5  # the middle of a straight line has the value 1 - exp(-2.5) = 0.92


def keypoint_image(keypoints, height: int, width: int, xp=np):
    """Draw keypoints as soft coloured lines and filled irises.

    Args:
        keypoints: (..., K, 3) x / W, y / H and depth (not drawn). Points outside the picture are allowed.
        height: H of the picture in pixels.
        width: W of the picture in pixels.
        xp: the array module, numpy or jax.numpy.

    Returns:
        (..., H, W, 3) float32 in [0, 1]: per pixel, the maximum over groups of line value times colour.
    """
    points = xp.asarray(keypoints, dtype=xp.float32)[..., :2]
    points = points * np.array([width, height], np.float32)
    sigma = max(LINE_SIGMA * width, 0.5)
    picture = None
    for group, colour in COLOURS.items():
        if group.endswith("iris"):
            value = _disc(points[..., GROUPS[group], :], height, width, sigma, xp)
        else:
            value = _lines(points, SEGMENTS[group], height, width, sigma, xp)
        layer = value[..., None] * np.array(colour, np.float32)
        picture = layer if picture is None else xp.maximum(picture, layer)
    return picture


def _lines(points, segments: np.ndarray, height: int, width: int, sigma: float, xp):
    """Return (..., H, W): soft lines along `segments` (S, 2) of `points` (..., K, 2) in pixels."""
    start, end = points[..., segments[:, 0], :], points[..., segments[:, 1], :]
    along = ((np.arange(DOTS, dtype=np.float32) + 0.5) / DOTS)[:, None]
    dots = start[..., None, :] + (end - start)[..., None, :] * along  # (..., S, DOTS, 2)
    lead = dots.shape[:-3]
    dots = dots.reshape(*lead, -1, 2)
    # Weight each dot by its share of the segment's length, so that brightness does not depend on the
    # dot spacing. A standard Gaussian integrates to sqrt(2 pi) across a line.
    length = xp.sqrt(xp.sum((end - start) ** 2, axis=-1))
    weight = length * np.float32(DENSITY / (DOTS * sigma * np.sqrt(2 * np.pi)))
    weight = xp.broadcast_to(weight[..., None], (*weight.shape, DOTS)).reshape(*lead, -1)
    across_x = _gaussian(dots[..., 0], width, sigma, xp) * weight[..., None]
    across_y = _gaussian(dots[..., 1], height, sigma, xp)
    return 1.0 - xp.exp(-xp.matmul(xp.swapaxes(across_y, -1, -2), across_x))


def _gaussian(centres, size: int, sigma: float, xp):
    """Return (..., N, size): a Gaussian around each of `centres` (..., N), sampled at pixel centres i + 0.5."""
    pixels = np.arange(size, dtype=np.float32) + 0.5
    return xp.exp(-0.5 * ((pixels - centres[..., None]) * np.float32(1 / sigma)) ** 2)


def _disc(points, height: int, width: int, sigma: float, xp):
    """Return (..., H, W): a filled soft disc. `points` (..., 5, 2) are its centre and four rim points."""
    centre, rim = points[..., :1, :], points[..., 1:, :]
    radius = xp.mean(xp.sqrt(xp.sum((rim - centre) ** 2, axis=-1)), axis=-1)[..., None, None]
    x = np.arange(width, dtype=np.float32) + 0.5 - centre[..., 0, :1, None]
    y = np.arange(height, dtype=np.float32)[:, None] + 0.5 - centre[..., 0, 1:, None]
    distance = xp.sqrt(x * x + y * y)
    return 0.5 + 0.5 * xp.tanh((radius - distance) * np.float32(1 / sigma))
