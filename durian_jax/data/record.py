"""One clip as bytes: a safetensors file (never pickle) whose pictures are compressed one by one.

`frames` and `masks` are the compressed pictures one after the other, `frame_ends` and `mask_ends`
where each stops. Frames are compressed singly so that a training sample of 6 frames decodes 6 frames,
whatever the clip's length.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip
from durian_jax.faces.topology import ATTRIBUTE_KINDS, K

# Name -> file type, encoder settings. The first two are lossless and meant for drawn frames.
ENCODINGS = {
    "png": (".png", [cv2.IMWRITE_PNG_COMPRESSION, 4]),
    "webp-lossless": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
    "webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 95]),
    "jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95]),
}


class DecodeError(ValueError):
    """A record's bytes are not what they should be; the message names the record."""


@dataclass(frozen=True)
class Outline:
    """What is known of a clip without opening it.

    Attributes:
        areas: (T, kinds) float32, share of the picture that shows each attribute kind, 0..1.
        identity: name of the person.
    """

    areas: np.ndarray
    identity: str

    def __len__(self) -> int:
        return len(self.areas)


def outline(clip: Clip) -> Outline:
    """The outline of a decoded clip."""
    bits = np.stack([(clip.masks & (1 << bit)) > 0 for bit in range(len(ATTRIBUTE_KINDS))], -1)
    return Outline(bits.mean((1, 2), dtype=np.float32), clip.identity)


def write_record(clip: Clip, encoding: str = "png") -> bytes:
    """One clip as bytes.

    Args:
        clip: what to keep.
        encoding: key of `ENCODINGS` for the frames; masks are always PNG.

    Raises:
        InputError: unknown encoding.
    """
    if encoding not in ENCODINGS:
        raise InputError(f"unknown frame encoding {encoding!r}; expected one of {', '.join(ENCODINGS)}")
    extension, settings = ENCODINGS[encoding]
    frames = [_encode(extension, frame[..., ::-1], settings) for frame in clip.frames]
    masks = [_encode(".png", mask, [cv2.IMWRITE_PNG_COMPRESSION, 4]) for mask in clip.masks]
    return save({
        "frames": np.concatenate(frames), "frame_ends": np.cumsum([len(f) for f in frames]),
        "masks": np.concatenate(masks), "mask_ends": np.cumsum([len(m) for m in masks]),
        "keypoints": np.ascontiguousarray(clip.keypoints, np.float32),
        "size": np.array(clip.frames.shape[1:3]),
        "fps": np.array([clip.fps], np.float64),
        "identity": np.frombuffer(clip.identity.encode(), np.uint8),
    })


def read_record(record: bytes, name: str = "record") -> "EncodedClip":
    """Opens the bytes of `write_record`; frames are decoded when asked for.

    Raises:
        DecodeError: the bytes are not a record.
    """
    try:
        fields = load(record)
        return EncodedClip(fields, name)
    except (SafetensorError, KeyError, IndexError, ValueError, UnicodeDecodeError) as error:
        raise DecodeError(f"{name}: not a clip record ({error})") from error


class EncodedClip:
    """One clip whose pictures are still compressed.

    Attributes:
        keypoints: (T, K, 3) float32.
        height, width: of the frames in pixels.
        fps, identity: as in `Clip`.
    """

    def __init__(self, fields: dict[str, np.ndarray], name: str):
        self._fields, self._name = fields, name
        self.keypoints = fields["keypoints"]
        self.height, self.width = (int(n) for n in fields["size"])
        self.fps = float(fields["fps"][0])
        self.identity = fields["identity"].tobytes().decode()
        count = len(self.keypoints)
        if self.keypoints.shape != (count, K, 3):
            raise DecodeError(f"{name}: keypoints are {self.keypoints.shape}, expected (T, {K}, 3)")
        if len(fields["frame_ends"]) != count or len(fields["mask_ends"]) != count:
            raise DecodeError(f"{name}: expected {count} frames and masks")

    def __len__(self) -> int:
        return len(self.keypoints)

    def frame(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB of one frame."""
        return self._picture("frame", index, cv2.IMREAD_COLOR_RGB, (self.height, self.width, 3))

    def mask(self, index: int) -> np.ndarray:
        """(H, W) uint8 bit field of one frame."""
        return self._picture("mask", index, cv2.IMREAD_GRAYSCALE, (self.height, self.width))

    def clip(self, frames: Sequence[int] | None = None) -> Clip:
        """Decodes the frames of the given indices, or all."""
        chosen = list(range(len(self)) if frames is None else frames)
        return Clip(np.stack([self.frame(i) for i in chosen]), self.keypoints[chosen],
                    np.stack([self.mask(i) for i in chosen]), self.fps, self.identity)

    def _picture(self, field: str, index: int, flags: int, shape: tuple[int, ...]) -> np.ndarray:
        ends, pictures = self._fields[f"{field}_ends"], self._fields[f"{field}s"]
        begin = int(ends[index - 1]) if index else 0
        compressed = pictures[begin:int(ends[index])]
        picture = cv2.imdecode(compressed, flags) if len(compressed) else None
        if picture is None or picture.shape != shape:
            found = "undecodable bytes" if picture is None else f"a picture of {picture.shape}"
            raise DecodeError(f"{self._name}, {field} {index}: expected a picture of {shape}, found {found}")
        return picture


def _encode(extension: str, picture: np.ndarray, settings: list[int]) -> np.ndarray:
    done, encoded = cv2.imencode(extension, np.ascontiguousarray(picture), settings)
    if not done:
        raise ValueError(f"could not encode a picture of {picture.shape} as {extension}")
    return encoded.reshape(-1)
