"""The 2.5-D head: points in space, smooth curves through them, and their projection into the picture.

Space: the unit is the picture width at scale 1 / ZOOM. The origin is the head's centre; x points to the
picture's right, y down, z away from the camera. A point has

    anchor (x, y, z)   turns with the head,
    spread (x, y)      only rolls with the head, because round things have the same outline from every side,
    follow             1 moves with the head, 0 with the shoulders.

All points of all frames are projected at once; drawing then only fills polygons.
"""

from dataclasses import dataclass

import numpy as np

from durian_jax.synthetic.motion import Motion

CENTRE = (0.5, 0.54)  # the head's centre in the picture at rest
ZOOM = 1.06  # global scale that makes the face half as high as the picture
SHOULDER_SHIFT = 0.45  # share of the head's shift that the shoulders follow
SHOULDER_ROLL = 0.15  # share of the head's roll that the shoulders follow
BACK = 0.035  # z of the skull's axis


@dataclass
class Points:
    """N points. `anchor` is (N, 3), or (T, N, 3) if expression moves the points."""

    anchor: np.ndarray
    spread: np.ndarray  # (N, 2)
    follow: np.ndarray  # (N,)

    def __len__(self) -> int:
        return self.anchor.shape[-2]


def solid(x, y, z, follow=1.0) -> Points:
    """Return points fixed to the head, or to the shoulders if follow = 0; arguments broadcast."""
    anchor = np.stack(np.broadcast_arrays(*(np.asarray(v, np.float32) for v in (x, y, z))), -1)
    count = anchor.shape[-2]
    return Points(anchor, np.zeros((count, 2), np.float32), np.broadcast_to(np.float32(follow), (count,)))


def round_outline(x, y, z=BACK, follow=1.0) -> Points:
    """Return the outline (x, y) of a body that is round about a vertical axis; its width is the same at any yaw."""
    x, y = np.broadcast_arrays(np.asarray(x, np.float32), np.asarray(y, np.float32))
    points = solid(np.zeros_like(x), y, z, follow)
    points.spread = np.stack([x, np.zeros_like(x)], -1)
    return points


def ball(centre: tuple[float, float, float], x, y, follow=1.0) -> Points:
    """Return the outline (x, y) about a centre in space; it looks the same from every side."""
    x, y = np.broadcast_arrays(np.asarray(x, np.float32), np.asarray(y, np.float32))
    points = solid(np.full_like(x, centre[0]), centre[1], centre[2], follow)
    points.spread = np.stack([x, y], -1)
    return points


def join(*parts: Points) -> Points:
    """Concatenate points."""
    anchors = [p.anchor for p in parts]
    frames = max((a.shape[0] for a in anchors if a.ndim == 3), default=0)
    if frames:
        anchors = [np.broadcast_to(a, (frames, *a.shape[-2:])) for a in anchors]
    return Points(np.concatenate(anchors, -2), np.concatenate([p.spread for p in parts]),
                  np.concatenate([p.follow for p in parts]))


def take(points: Points, index) -> Points:
    """Select points by a slice or an index array."""
    return Points(points.anchor[..., index, :], points.spread[index], points.follow[index])


def reverse(points: Points) -> Points:
    """Reverse the order of the points."""
    return take(points, slice(None, None, -1))


_WEIGHTS = {}


def _subdivision(count: int, closed: bool, steps: int) -> np.ndarray:
    """Return (M, count) weights of a Catmull-Rom curve through `count` points, `steps` points per segment."""
    if (count, closed, steps) not in _WEIGHTS:
        t = np.arange(steps)[:, None] / steps
        basis = 0.5 * np.concatenate([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3,
                                      t + 4 * t**2 - 3 * t**3, -t**2 + t**3], 1)
        rows = []
        for segment in range(count if closed else count - 1):
            around = np.arange(segment - 1, segment + 3)
            around = around % count if closed else np.clip(around, 0, count - 1)
            for weights in basis:
                row = np.zeros(count)
                np.add.at(row, around, weights)
                rows.append(row)
        if not closed:
            rows.append(np.eye(count)[-1])
        _WEIGHTS[count, closed, steps] = np.array(rows, np.float32)
    return _WEIGHTS[count, closed, steps]


def smooth(points: Points, closed: bool = True, steps: int = 3) -> Points:
    """Return a smooth curve through the points (Catmull and Rom 1974)."""
    weights = _subdivision(len(points), closed, steps)
    return Points(weights @ points.anchor, weights @ points.spread, weights @ points.follow)


def project(points: Points, motion: Motion) -> np.ndarray:
    """Project points into each frame of a motion; return (T, N, 3): x and y in picture widths, and depth."""
    yaw, pitch, roll = (np.radians(v)[:, None, None] for v in (motion.yaw, motion.pitch, motion.roll))
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)

    def matrix(*rows):
        return np.concatenate([np.concatenate(row, -1) for row in rows], -2)

    turn = matrix((np.cos(yaw), zero, -np.sin(yaw)), (zero, one, zero), (np.sin(yaw), zero, np.cos(yaw)))
    nod = matrix((one, zero, zero), (zero, np.cos(pitch), np.sin(pitch)),
                 (zero, -np.sin(pitch), np.cos(pitch)))

    def tilt(angle):
        return matrix((np.cos(angle), -np.sin(angle), zero), (np.sin(angle), np.cos(angle), zero),
                      (zero, zero, one))

    lean = tilt(roll)
    head = points.anchor @ (lean @ nod @ turn).swapaxes(-1, -2)
    head[..., :2] += points.spread @ lean[:, :2, :2].swapaxes(-1, -2)
    flat = points.anchor + np.concatenate([points.spread, np.zeros_like(points.spread[:, :1])], -1)
    body = flat @ tilt(SHOULDER_ROLL * roll).swapaxes(-1, -2)
    shift = np.stack([motion.shift_x, motion.shift_y, np.zeros_like(motion.shift_x)], -1)[:, None]
    scale = ZOOM * motion.scale[:, None, None]
    follow = points.follow[:, None]
    mixed = follow * (head * scale + shift)
    mixed += (1 - follow) * (body * (0.4 * ZOOM + 0.6 * scale) + SHOULDER_SHIFT * shift)
    mixed[..., 0] += CENTRE[0]
    mixed[..., 1] += CENTRE[1]
    return mixed.astype(np.float32)
