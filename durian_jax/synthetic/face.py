"""The face as points in space: outline, lids, irises, brows, nose and lips, moved by expression.

The same points are drawn and returned as keypoints (`faces.topology`).
"""

import numpy as np

from durian_jax.faces.topology import GROUPS, K
from durian_jax.synthetic.geometry import Points, ball, join, solid
from durian_jax.synthetic.motion import Motion
from durian_jax.synthetic.person import Identity

# Half of the face's outline, from the middle of the forehead to the chin: x in half widths, y in half heights.
_OUTLINE = np.array([
    (0, -1), (.24, -.985), (.46, -.94), (.64, -.86), (.79, -.74), (.895, -.58), (.955, -.39), (.99, -.18),
    (1, .02), (.985, .20), (.95, .36), (.89, .52), (.80, .66), (.69, .78), (.56, .87), (.43, .935),
    (.29, .975), (.145, .995), (0, 1)], np.float32)
JAW_DROP = 0.05  # picture widths by which the chin sinks when the mouth opens


class Face:
    """The face of one identity over the frames of one motion.

    Attributes:
        width, height: half of the outline's extent, in picture widths.
        parts: name of a keypoint group -> Points with its keypoints in order.
        yaw: (T, 1) radians.
        mouth_y, nose_y, eye_x, eye_y: positions in picture widths from the head's centre.
    """

    def __init__(self, identity: Identity, motion: Motion):
        self.identity = identity
        self.width, self.height = 0.186 * identity.face_width, 0.236 * identity.face_height
        self.mouth_open = motion.mouth[:, None]
        self.yaw = np.radians(motion.yaw)[:, None]
        self.eye_x, self.eye_y = 0.083 * identity.eye_distance, -0.022 * identity.face_height
        self.nose_y = self.eye_y + 0.092 * identity.nose_length
        self.mouth_y = 0.143 * identity.face_height
        self.parts: dict[str, Points] = {"contour": self._contour()}
        for side, sign in (("right", -1), ("left", 1)):
            self._eye(side, sign, motion)
        self._nose()
        self._mouth(motion)

    def keypoints(self) -> Points:
        """Return all K keypoints in the order of `faces.topology`."""
        points = join(*(self.parts[name] for name in GROUPS))
        assert len(points) == K
        return points

    def surface(self, x, y) -> np.ndarray:
        """Return z of the face's front at (x, y)."""
        across = np.clip(np.asarray(x) / self.width, -1, 1)
        down = np.clip(np.asarray(y) / self.height, -1, 1)
        return 0.02 - 0.165 * np.sqrt(1 - 0.985 * across**2) * (1 - 0.42 * down**2)

    def on(self, x, y, lift: float = 0.0) -> Points:
        """Return points on the face's surface, raised by `lift` towards the camera."""
        return solid(x, y, self.surface(x, y) - lift)

    def with_jaw(self, points: Points, amount: float = 1.0) -> Points:
        """Lower the points below the nose as the mouth opens; the chin sinks fully."""
        y = points.anchor[..., 1]
        share = np.clip((y - self.nose_y) / (self.height - self.nose_y), 0, 1)
        anchor = np.broadcast_to(points.anchor, (len(self.mouth_open), *points.anchor.shape[-2:])).copy()
        anchor[..., 1] += amount * JAW_DROP * self.mouth_open * share
        return Points(anchor, points.spread, points.follow)

    def _contour(self) -> Points:
        one = self.identity
        x, y = _OUTLINE.T
        low = np.clip(y, 0, 1)
        x = x * (1 + 0.055 * one.jaw * np.sin(np.pi * low)) * (1 - 0.10 * (1 + one.chin) * low**3)
        x, y = np.concatenate([x, -x[-2:0:-1]]) * self.width, np.concatenate([y, y[-2:0:-1]]) * self.height
        return self.with_jaw(self.on(x, y))

    def _eye(self, side: str, sign: int, motion: Motion) -> None:
        one = self.identity
        half = 0.046 * one.eye_size
        # u runs from the outer corner (-1) to the inner corner (+1).
        u = -np.cos(np.pi * np.arange(9) / 8)
        arch = np.sqrt(np.clip(1 - u**2, 0, 1))
        lower = 0.021 * one.eye_size * one.eye_round * arch ** 1.1
        upper = -0.033 * one.eye_size * one.eye_round * arch ** 0.9
        slope = -(0.004 + 0.006 * one.eye_tilt) * -u
        x = sign * (self.eye_x - half * u)
        blink = motion.blink[:, None]
        wide = 1 + 0.12 * np.clip(motion.brows[:, None], 0, 1)
        squint = 1 - 0.25 * np.clip(motion.smile[:, None], 0, 1)
        low = lower * (squint + (1 - squint) * blink)
        lid = upper * wide * (1 - blink) + low * blink
        centre_y = self.eye_y
        y = np.concatenate([low + slope, (lid + slope)[:, -2:0:-1]], 1) + centre_y
        x = np.concatenate([x, x[-2:0:-1]])
        self.parts[f"{side}_eye"] = solid(x, y, self.surface(x, centre_y))

        self.iris_radius = 0.0275 * one.eye_size
        gaze_x = 0.0175 * motion.gaze_x[:, None] + sign * self.eye_x
        gaze_y = -0.012 * motion.gaze_y[:, None] + centre_y - 0.003
        radius = self.iris_radius
        rim = ball((0, 0, float(self.surface(self.eye_x, centre_y))),
                   np.array([0, radius, 0, -radius, 0]), np.array([0, 0, -radius, 0, radius]))
        anchor = np.broadcast_to(rim.anchor, (len(motion), 5, 3)).copy()
        anchor[..., 0], anchor[..., 1] = gaze_x, gaze_y
        self.parts[f"{side}_iris"] = Points(anchor, rim.spread, rim.follow)

        v = np.linspace(0, 1, 5)  # from the outer end to the inner end
        raised = -0.022 * motion.brows[:, None] + 0.006 * motion.blink[:, None]
        arched = -(0.016 + 0.008 * one.brow_arch) * np.sin(np.pi * (0.15 + 0.75 * v))
        y = self.eye_y - 0.064 + arched + 0.009 * one.brow_tilt * (v - 0.5) + raised * (0.7 + 0.3 * v)
        y = y - 0.012 * np.clip(motion.brows[:, None], -1, 0) * (v - 0.4)
        x = sign * (self.eye_x + 0.056 * (1 - 2.0 * v))
        self.parts[f"{side}_brow"] = solid(x, y, self.surface(x, self.eye_y - 0.06) - 0.005)

    def _nose(self) -> None:
        one = self.identity
        v = np.linspace(0, 1, 6)
        y = self.eye_y - 0.015 + v * (self.nose_y - 0.012 - self.eye_y + 0.015)
        self.parts["nose_bridge"] = solid(0, y, self.surface(0, 0.0) - 0.01 - 0.045 * v**1.5)
        half = 0.034 * one.nose_width
        x = np.array([-1, -0.55, 0, 0.55, 1]) * half
        y = self.nose_y + np.array([-0.008, 0.004, 0.009, 0.004, -0.008])
        depth = self.surface(x, self.nose_y) - np.array([0.005, 0.022, 0.034, 0.022, 0.005])
        self.parts["nose_base"] = solid(x, y, depth)

    def _mouth(self, motion: Motion) -> None:
        one = self.identity
        s = np.linspace(0, 1, 11)  # from the picture's left corner to its right corner
        hump = np.sin(np.pi * s)
        smile, gap = motion.smile[:, None], 0.062 * self.mouth_open
        half = 0.067 * one.mouth_width * (1 + 0.14 * smile - 0.16 * self.mouth_open)
        across = -np.cos(np.pi * s)
        x = half * across
        corner = self.mouth_y - 0.036 * smile * (np.abs(across) ** 1.6 - 0.4) + 0.3 * gap
        cupid = hump ** 0.7 * (1 - 0.24 * np.exp(-((s - 0.5) / 0.09) ** 2))
        lips = 0.0185 * one.lips
        inner_up = corner - 0.35 * gap * hump
        inner_low = corner + 0.75 * gap * hump ** 0.8
        outer_up = inner_up - lips * cupid
        outer_low = inner_low + 1.3 * lips * hump ** 0.75
        self.parts["outer_lips"] = self._ring(x, outer_low, outer_up)
        self.parts["inner_lips"] = self._ring(0.93 * x, inner_low, inner_up)

    def _ring(self, x, low, up) -> Points:
        """Return points along the lower line to the right end, then back along the upper line."""
        x = np.concatenate([x, x[:, -2:0:-1]], 1)
        y = np.concatenate([low, up[:, -2:0:-1]], 1)
        return solid(x, y, self.surface(x, self.mouth_y) - 0.012)
