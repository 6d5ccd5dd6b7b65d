"""Head motion: smooth curves over time, with one tempo per clip."""

from dataclasses import dataclass, fields

import numpy as np

from durian_jax.errors import InputError
from durian_jax.synthetic.person import split_rng


@dataclass(frozen=True)
class Motion:
    """Motion curves, float32 arrays of length T; x points to the picture's right, y down.

    Attributes:
        yaw: degrees, about +-30; positive turns the nose to the picture's right.
        pitch: degrees, about +-18; positive lifts the nose.
        roll: degrees, about +-15; positive tilts the head clockwise in the picture.
        shift_x, shift_y: picture widths, about +-0.06.
        scale: factor, 0.9..1.1.
        mouth: 0 closed .. 1 wide open.
        smile: -0.3 sad .. 1 broad smile.
        blink: 0 open .. 1 closed.
        gaze_x, gaze_y: -1..1; positive looks to the picture's right and up.
        brows: -1 frowning .. 1 raised.
        fps: frames per second.
    """

    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    shift_x: np.ndarray
    shift_y: np.ndarray
    scale: np.ndarray
    mouth: np.ndarray
    smile: np.ndarray
    blink: np.ndarray
    gaze_x: np.ndarray
    gaze_y: np.ndarray
    brows: np.ndarray
    fps: float = 25.0

    def __len__(self) -> int:
        return len(self.yaw)

    def __getitem__(self, frames: slice | np.ndarray) -> "Motion":
        """Select frames by a slice or an integer array."""
        return Motion(**{name: getattr(self, name)[frames] for name in CURVES}, fps=self.fps)


CURVES = tuple(f.name for f in fields(Motion) if f.name != "fps")
# Curve -> (lowest, highest value, tempo relative to the clip's).
RANGES = {"yaw": (-30, 30, 0.8), "pitch": (-18, 18, 0.8), "roll": (-15, 15, 0.7),
          "shift_x": (-0.06, 0.06, 0.7), "shift_y": (-0.045, 0.045, 0.7), "scale": (0.9, 1.1, 0.6),
          "mouth": (-0.45, 1.0, 1.6), "smile": (-0.3, 1.0, 0.8), "gaze_x": (-1, 1, 1.0),
          "gaze_y": (-0.8, 0.8, 1.0), "brows": (-0.7, 1.0, 1.0)}


def still(frames: int = 1, fps: float = 25.0, **values: float) -> Motion:
    """Return a motionless face that looks into the camera; `still(yaw=20)` sets a curve to a constant."""
    unknown = set(values) - set(CURVES)
    if unknown:
        raise InputError(f"unknown motion curves {sorted(unknown)}; choose from {', '.join(CURVES)}")
    values = {"scale": 1.0, "smile": 0.35, **values}
    return Motion(**{name: np.full(frames, values.get(name, 0.0), np.float32) for name in CURVES}, fps=fps)


def sample_motion(split: str, index: int, frames: int, fps: float = 25.0) -> Motion:
    """Return the `index`-th motion of a split; more frames continue the same motion.

    Each curve is a sum of two sines. The slower one has 0.3 to 3 Hz, so that 8 to 16 frames at 25 fps cover
    much of the curve's range.

    Args:
        split: "train", "validation" or "benchmark".
        index: 0, 1, 2, ...
        frames: T, at least 1.
        fps: frames per second, above 0.

    Raises:
        InputError: the split is unknown, the index is negative, there are no frames, or fps is not above 0.
    """
    if frames < 1 or not fps > 0:
        raise InputError(f"motion: expected at least 1 frame and fps above 0, found {frames} frames at "
                         f"{fps} fps; use larger values")
    rng = split_rng(split, index, 100)
    time = np.arange(frames) / fps
    tempo = rng.uniform(0.7, 1.5)
    curves = {}
    for name, (low, high, relative) in RANGES.items():
        frequency = tempo * relative * rng.uniform(0.8, 1.25, 2) * (1, 2.1)
        phase = rng.uniform(0, 2 * np.pi, 2)
        wave = np.sin(2 * np.pi * frequency[:, None] * time + phase[:, None])
        weight = rng.uniform(0.1, 0.3)
        swing = rng.uniform(0.45, 1.0)
        centre = rng.uniform(-1, 1) * (1 - swing)
        value = centre + swing * ((1 - weight) * wave[0] + weight * wave[1])
        curves[name] = (low + high) / 2 + (high - low) / 2 * value
    curves["mouth"] = np.maximum(curves["mouth"], 0)
    curves["blink"] = _blinks(rng, time)
    return Motion(**{name: curve.astype(np.float32) for name, curve in curves.items()}, fps=fps)


def _blinks(rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    """Return blinks of about a third of a second, one to two seconds apart; time 0 may lie within one."""
    level, start = np.zeros_like(time), rng.uniform(-0.4, 1.0)
    while start < time[-1] + 1:
        length = rng.uniform(0.24, 0.44)
        inside = np.clip((time - start) / length, 0, 1)
        level = np.maximum(level, np.minimum(1.15 * np.sin(np.pi * inside) ** 1.5, 1))
        start += length + rng.uniform(0.7, 1.8)
    return level
