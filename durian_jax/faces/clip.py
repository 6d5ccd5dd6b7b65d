"""Clips: annotated frames of one person, the data type that all parts of the project exchange."""

from dataclasses import dataclass, replace

import numpy as np

from durian_jax.errors import InputError
from durian_jax.faces.topology import ATTRIBUTE_KINDS, MESH_POINTS, REGION_KINDS, K

# Layer of each bit of a mask pixel, from bit 0 upwards.
MASK_LAYERS = (*ATTRIBUTE_KINDS, "person", *REGION_KINDS)


def attribute_bit(kind: str) -> int:
    """Return the bit of `Clip.masks` for an attribute kind.

    Raises:
        InputError: `kind` is not one of `ATTRIBUTE_KINDS`.
    """
    if kind not in ATTRIBUTE_KINDS:
        raise InputError(f"unknown attribute kind {kind!r}; expected one of {', '.join(ATTRIBUTE_KINDS)}")
    return 1 << ATTRIBUTE_KINDS.index(kind)


def layer_bit(layer: str) -> int:
    """Return the bit of `Clip.masks` for one of `MASK_LAYERS`.

    Raises:
        InputError: `layer` is not one of `MASK_LAYERS`.
    """
    return 1 << MASK_LAYERS.index(layer) if layer in MASK_LAYERS else attribute_bit(layer)


@dataclass(frozen=True)
class Driver:
    """Another person who makes the motion of a clip, frame by frame (cross-identity supervision, arXiv 2509.17476).

    Attributes:
        frames: (T, H, W, 3) uint8, RGB, with the clip's margin.
        keypoints: (T, K, 3) float32, in the units of the clip's.
        identity: name of the person.
    """

    frames: np.ndarray
    keypoints: np.ndarray
    identity: str = ""


@dataclass(frozen=True)
class Clip:
    """T annotated frames of one person; a photo is a clip with T = 1.

    Attributes:
        frames: (T, H, W, 3) uint8, RGB.
        keypoints: (T, K, 3) float32; x / W and y / H (0..1 inside the picture), and depth in units of W.
            Depth is smaller towards the camera and zero around the head's centre.
        masks: (T, H, W) uint8 bit field, bits as in `MASK_LAYERS`: where each attribute kind is visible.
            Prepared clips also mark the person and the regions of eyes, nose and mouth.
        fps: frames per second.
        identity: name of the person; clips with equal names show the same person.
        margin: pixels on each side beyond the view that a model sees. A reference that augmentation moves
            shows some of them.
        mesh: (T, 478, 3) float32, MediaPipe's full face mesh in the units of `keypoints`; None if unknown
            (procedural clips).
        driver: another person who makes the same motion; None: unknown.
        box: (T, 3) float32, the square of the picture that each frame was cut from: centre x, y and side, in pixels
            from the picture's corner; None: unknown.
    """

    frames: np.ndarray
    keypoints: np.ndarray
    masks: np.ndarray
    fps: float = 25.0
    identity: str = ""
    margin: int = 0
    mesh: np.ndarray | None = None
    driver: Driver | None = None
    box: np.ndarray | None = None

    def __post_init__(self):
        t, h, w = self.frames.shape[:3]
        expected = {"frames": (t, h, w, 3), "keypoints": (t, K, 3), "masks": (t, h, w)}
        if self.mesh is not None:
            expected["mesh"] = (t, MESH_POINTS, 3)
        if self.box is not None:
            expected["box"] = (t, 3)
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"Clip.{name}: expected shape {shape}, got {getattr(self, name).shape}")
        if self.driver is not None and (self.driver.frames.shape != expected["frames"]
                                        or self.driver.keypoints.shape != expected["keypoints"]):
            raise ValueError(f"Clip.driver: expected frames and keypoints of the clip's shapes, got "
                             f"{self.driver.frames.shape} and {self.driver.keypoints.shape}")
        if not 0 <= 2 * self.margin < min(h, w):
            raise ValueError(f"Clip.margin: expected less than half of {h} x {w} px, got {self.margin}")

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, frames: slice | np.ndarray) -> "Clip":
        """Select frames by a slice or an integer array."""
        driver = self.driver
        if driver is not None:
            driver = replace(driver, frames=driver.frames[frames], keypoints=driver.keypoints[frames])
        return replace(self, frames=self.frames[frames], keypoints=self.keypoints[frames], driver=driver,
                       masks=self.masks[frames], mesh=None if self.mesh is None else self.mesh[frames],
                       box=None if self.box is None else self.box[frames])

    def mask(self, layer: str) -> np.ndarray:
        """Return (T, H, W) bool: where one of `MASK_LAYERS` is visible."""
        return (self.masks & layer_bit(layer)) > 0

    def view(self) -> "Clip":
        """Return the clip without its margin."""
        if not self.margin:
            return self
        inside = slice(self.margin, -self.margin)
        height, width = self.frames.shape[1:3]
        inner = (height - 2 * self.margin, width - 2 * self.margin)
        driver = self.driver
        if driver is not None:
            driver = replace(driver, frames=driver.frames[:, inside, inside],
                             keypoints=view_keypoints(driver.keypoints, *inner, self.margin))
        return replace(
            self, margin=0, driver=driver, frames=self.frames[:, inside, inside], masks=self.masks[:, inside, inside],
            keypoints=view_keypoints(self.keypoints, *inner, self.margin),
            mesh=None if self.mesh is None else view_keypoints(self.mesh, *inner, self.margin),
            box=None if self.box is None else self.box * np.array([1, 1, inner[1] / width], np.float32))


def view_keypoints(keypoints: np.ndarray, height: int, width: int, margin: int) -> np.ndarray:
    """Convert keypoints (..., 3) of a picture with a margin to units of its view; return float32.

    `height` and `width` are the view's size in pixels. A negative margin converts back; then they are the
    size of the larger picture.
    """
    size = np.array([width, height], np.float32)
    xy = (keypoints[..., :2] * (size + 2 * margin) - margin) / size
    return np.concatenate([xy, keypoints[..., 2:] * ((width + 2 * margin) / width)], -1).astype(np.float32)
