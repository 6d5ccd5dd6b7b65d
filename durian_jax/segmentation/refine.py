"""Refine the network's coarse masks at the picture's size.

H x W pixels, T frames.
"""

import cv2
import numpy as np

_BINS = 20  # per Lab channel
_TRUST = 0.8  # weight of the clip's colours
_NEIGHBOURHOOD = 0.05  # the colours are compared within this share of the picture's side around a region
_RADIUS, _SMOOTH = 0.03, 1e-3  # of the guided filter; radius in sides of the picture


def with_clip_colours(logits: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Adjust uncertain logits by the colours of the whole clip; confident logits hardly change.

    The network's answer gives the colours of a region and of its surroundings.

    Args:
        logits: (T, H, W) of one kind.
        frames: (T, H, W, 3) uint8 RGB.

    Returns:
        (T, H, W) float32 logits.
    """
    side = frames.shape[2]
    lab = np.stack([cv2.cvtColor(cv2.GaussianBlur(frame, (0, 0), 0.005 * side), cv2.COLOR_RGB2LAB) for frame in frames])
    level = lab.astype(np.int32) * _BINS // 256
    bins = (level[..., 0] * _BINS + level[..., 1]) * _BINS + level[..., 2]
    weight, found = np.exp(-np.abs(logits) / 4) * _TRUST, logits
    for _ in range(2):
        probability = _sigmoid(found)
        near = np.stack([cv2.GaussianBlur((layer > 0.3).astype(np.float32), (0, 0), _NEIGHBOURHOOD * side) > 0.08
                         for layer in probability])
        ratio = np.log((_histogram(bins, probability * near) + 1e-4)
                       / (_histogram(bins, (1 - probability) * near) + 1e-4))
        found = logits + np.clip(ratio, -3, 3)[bins] * weight
    return found.astype(np.float32)


def follow_outlines(logits: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Return (T, H, W) float32 opacities 0..1 of a region, whose outlines follow the picture (`guided_filter`)."""
    radius = max(2, round(_RADIUS * frames.shape[2]))
    return np.stack([guided_filter(frame, _sigmoid(layer), radius, _SMOOTH, coarser=2)
                     for frame, layer in zip(frames, logits, strict=True)])


def guided_filter(picture: np.ndarray, layer: np.ndarray, radius: int, smooth: float, coarser: int = 1) -> np.ndarray:
    """Smooth a layer along the colours of a picture (He et al. 2010): locally it becomes a linear function of them.

    The functions vary slowly, so they can be computed at a lower resolution (He and Sun 2015).

    Args:
        picture: (H, W, 3) uint8.
        layer: (H, W) float.
        radius: of the windows in pixels.
        smooth: variance of the colours (0..1) below which a window counts as flat.
        coarser: factor by which both sides shrink before the fit; 1: none.

    Returns:
        (H, W) float32 within 0..1.
    """
    size = picture.shape[1::-1]
    full = picture.astype(np.float32) / 255
    small = tuple(max(1, side // coarser) for side in size)
    colours, layer = (cv2.resize(values, small, interpolation=cv2.INTER_AREA) if coarser > 1 else values
                      for values in (full, layer.astype(np.float32)))
    window = (2 * (radius // coarser) + 1,) * 2

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(values, -1, window, borderType=cv2.BORDER_REFLECT)

    means, level = mean(colours), mean(layer)
    products = mean(np.concatenate([colours * layer[..., None], colours * colours], axis=-1))
    shared = products[..., :3] - means * level[..., None]
    spread = products[..., 3:] - means * means + smooth  # rr, gg, bb
    cross = mean(colours * np.roll(colours, -1, axis=-1)) - means * np.roll(means, -1, axis=-1)  # rg, gb, br
    slope = _solve(spread, cross, shared)
    offset = level - (slope * means).sum(axis=-1)
    line = mean(np.concatenate([slope, offset[..., None]], axis=-1))
    line = cv2.resize(line, size, interpolation=cv2.INTER_LINEAR) if coarser > 1 else line
    return np.clip((line[..., :3] * full).sum(axis=-1) + line[..., 3], 0, 1)


def _solve(diagonal: np.ndarray, cross: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve the symmetric 3 x 3 system of every pixel by Cramer's rule; `cross` holds the elements 01, 12 and 20."""
    (a, d, f), (b, e, c) = np.moveaxis(diagonal, -1, 0), np.moveaxis(cross, -1, 0)
    # Rows of the adjugate matrix of [[a, b, c], [b, d, e], [c, e, f]].
    adjugate = np.stack([d * f - e * e, c * e - b * f, b * e - c * d,
                         a * f - c * c, b * c - a * e, a * d - b * b], axis=-1)
    determinant = a * adjugate[..., 0] + b * adjugate[..., 1] + c * adjugate[..., 2]
    rows = (adjugate[..., [0, 1, 2]], adjugate[..., [1, 3, 4]], adjugate[..., [2, 4, 5]])
    return np.stack([(row * right).sum(axis=-1) for row in rows], axis=-1) / determinant[..., None]


def _histogram(bins: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The (_BINS ** 3,) smoothed share of each colour."""
    count = np.bincount(bins.ravel(), weights.ravel(), minlength=_BINS ** 3).astype(np.float32).reshape((_BINS,) * 3)
    for axis in range(3):
        count = 0.25 * np.roll(count, 1, axis) + 0.5 * count + 0.25 * np.roll(count, -1, axis)
    return count.ravel() / max(float(count.sum()), 1e-6)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
