"""The value that every room hands to the next: annotated frames of one person."""

from dataclasses import dataclass, replace

import numpy as np

from durian_jax.errors import InputError
from durian_jax.faces.topology import ATTRIBUTE_KINDS, K


def attribute_bit(kind: str) -> int:
    """The bit of `Clip.masks` that stands for an attribute kind.

    Raises:
        InputError: the kind is not one of `ATTRIBUTE_KINDS`.
    """
    if kind not in ATTRIBUTE_KINDS:
        raise InputError(f"unknown attribute kind {kind!r}; expected one of {', '.join(ATTRIBUTE_KINDS)}")
    return 1 << ATTRIBUTE_KINDS.index(kind)


@dataclass(frozen=True)
class Clip:
    """T annotated frames of one person; a photo is a clip with T = 1.

    Attributes:
        frames: (T, H, W, 3) uint8, RGB.
        keypoints: (T, K, 3) float32; x / W and y / H of the picture (0..1 inside it) and depth in
            units of W, smaller towards the camera, zero around the head's centre.
        masks: (T, H, W) uint8; bit i set where attribute kind i is visible.
        fps: frames per second.
        identity: name of the person; clips with equal names show the same person.
    """

    frames: np.ndarray
    keypoints: np.ndarray
    masks: np.ndarray
    fps: float = 25.0
    identity: str = ""

    def __post_init__(self):
        t, h, w = self.frames.shape[:3]
        expected = {"frames": (t, h, w, 3), "keypoints": (t, K, 3), "masks": (t, h, w)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"Clip.{name}: expected shape {shape}, got {getattr(self, name).shape}")

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, frames: slice | np.ndarray) -> "Clip":
        """The clip of some frames only (a slice or an integer array)."""
        return replace(self, frames=self.frames[frames], keypoints=self.keypoints[frames],
                       masks=self.masks[frames])

    def mask(self, kind: str) -> np.ndarray:
        """(T, H, W) bool: where one attribute kind is visible."""
        return (self.masks & attribute_bit(kind)) > 0
