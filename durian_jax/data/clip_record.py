"""One clip as bytes: an example (tf.train.Example) of the TFDS dataset `portrait_clips`.

Each frame and each mask is compressed separately. A training sample of 6 frames therefore decodes 6 frames,
whatever the clip's length. TFDS can read the examples. `read_record` is faster, because it decodes a picture
only on access.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from google.protobuf.message import DecodeError as ProtobufError

from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip, Driver
from durian_jax.faces.pose import head_pose
from durian_jax.faces.topology import MESH_POINTS, K
from durian_jax.video import picture_size

if TYPE_CHECKING:
    from tensorflow_datasets.features import FeaturesDict

# Name -> file extension, encoder settings. The first two are lossless and meant for rendered frames.
ENCODINGS = {
    "png": (".png", [cv2.IMWRITE_PNG_COMPRESSION, 4]),
    "webp-lossless": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
    "webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 95]),
    "jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 90]),
}

# Quality measures of a prepared clip (see `prepare.clips.clip_quality`). NaN means not measured.
QUALITIES = ("sharpness", "face_height", "occlusion", "yaw_range", "pitch_range", "blink_range", "mouth_range")

_LARGEST = 8192  # height or width of a frame in pixels


class DecodeError(ValueError):
    """A damaged record; the message names it."""


@dataclass(frozen=True)
class Provenance:
    """Origin and quality of a clip.

    Attributes:
        name: name of the clip, unique in its dataset.
        video: source video file, empty for procedural people.
        first_frame: index of the clip's first frame in the video.
        stride: distance in video frames between two frames of the clip.
        quality: value of each of `QUALITIES`.
    """

    name: str = ""
    video: str = ""
    first_frame: int = 0
    stride: int = 1
    quality: Mapping[str, float] = field(default_factory=dict)


@cache
def features() -> "FeaturesDict":
    """Return the fields of an example. Pictures are compressed bytes, one picture per element."""
    import tensorflow_datasets as tfds  # takes a second, which commands that open no record need not wait

    pictures = tfds.features.Sequence(tfds.features.Tensor(shape=(), dtype=np.object_))
    raw = {"dtype": np.float32, "encoding": tfds.features.Encoding.BYTES}
    return tfds.features.FeaturesDict({
        "name": tfds.features.Text(doc="name of the clip, unique in the dataset"),
        "identity": tfds.features.Text(doc="clips with equal identity show the same person"),
        "video": tfds.features.Text(doc="source video file"),
        "first_frame": tfds.features.Scalar(np.int64, doc="index of the first frame in the video"),
        "stride": tfds.features.Scalar(np.int64, doc="distance in video frames between two frames of the clip"),
        "fps": tfds.features.Scalar(np.float32, doc="frames per second of the clip"),
        "height": tfds.features.Scalar(np.int64, doc="height of the frames in pixels"),
        "width": tfds.features.Scalar(np.int64, doc="width of the frames in pixels"),
        "margin": tfds.features.Scalar(np.int64, doc="pixels on each side around the view meant for a model"),
        "frames": pictures,
        "masks": pictures,
        "keypoints": tfds.features.Tensor(shape=(None, K, 3), **raw),
        "mesh": tfds.features.Tensor(shape=(None, MESH_POINTS, 3), **raw),
        "pose": tfds.features.Tensor(shape=(None, 3), **raw),
        "quality": {name: tfds.features.Scalar(np.float32) for name in QUALITIES},
        # From `durian expand`: bit fields like masks, of the regions that generated attributes cover in these frames.
        "generated_frames": tfds.features.Sequence(np.int64),
        "generated_masks": pictures,
        # Another person who makes the same motion: one frame per frame of the clip, or none.
        "driver_identity": tfds.features.Text(),
        "driver_frames": pictures,
        "driver_keypoints": tfds.features.Tensor(shape=(None, K, 3), **raw),
    })


def write_record(clip: Clip, encoding: str = "png", provenance: Provenance | None = None,
                 generated: Mapping[int, np.ndarray] | None = None) -> bytes:
    """Encode a clip as bytes.

    Args:
        clip: the clip to encode.
        encoding: key of `ENCODINGS` for the frames. Masks are always PNG.
        provenance: the clip's origin. None: its identity becomes its name.
        generated: frame index -> (H, W) uint8 bit field of the regions that generated attributes cover.

    Raises:
        InputError: unknown encoding.
    """
    return _serialize(
        identity=clip.identity, provenance=provenance or Provenance(name=clip.identity), fps=clip.fps,
        size=(*clip.frames.shape[1:3], clip.margin), keypoints=clip.keypoints, mesh=clip.mesh,
        frames=_encode_frames(clip.frames, encoding), masks=[encode_mask(mask) for mask in clip.masks],
        generated=generated or {}, driver=None if clip.driver is None else (
            clip.driver.identity, _encode_frames(clip.driver.frames, encoding), clip.driver.keypoints))


def rewrite_record(clip: "EncodedClip", *, masks: np.ndarray | None = None, identity: str | None = None,
                   generated: Mapping[int, np.ndarray] | None = None, driver: Driver | None = None,
                   encoding: str = "png") -> bytes:
    """Return the record with new (T, H, W) masks, identity, generated regions or driver. Frames keep their bytes.

    `encoding` is the key of `ENCODINGS` for a new driver's frames.
    """
    shape = (len(clip), clip.height, clip.width)
    if masks is not None and masks.shape != shape:
        raise ValueError(f"expected masks of shape {shape}, got {masks.shape}")
    driven = None
    if driver is not None:
        if driver.frames.shape != (*shape, 3) or driver.keypoints.shape != clip.keypoints.shape:
            raise ValueError(f"expected a driver's frames of shape {(*shape, 3)} and keypoints of shape "
                             f"{clip.keypoints.shape}, got {driver.frames.shape} and {driver.keypoints.shape}")
        driven = (driver.identity, _encode_frames(driver.frames, encoding), driver.keypoints)
    elif clip.driver_keypoints is not None:
        driven = (clip.driver_identity, [clip.compressed("driver_frames", i) for i in range(len(clip))],
                  clip.driver_keypoints)
    return _serialize(
        identity=clip.identity if identity is None else identity, provenance=clip.provenance, fps=clip.fps,
        size=(clip.height, clip.width, clip.margin), keypoints=clip.keypoints, mesh=clip.mesh,
        frames=[clip.compressed("frames", i) for i in range(len(clip))],
        masks=[clip.compressed("masks", i) for i in range(len(clip))] if masks is None
        else [encode_mask(mask) for mask in masks],
        generated=clip.generated() if generated is None else generated, driver=driven)


def read_record(record: bytes, name: str = "record") -> "EncodedClip":
    """Open the bytes of `write_record`. Pictures are decoded on access.

    Raises:
        DecodeError: the bytes are not a record.
    """
    try:
        return EncodedClip(_parse(record).features.feature, name)
    except (ProtobufError, KeyError, IndexError, ValueError) as error:
        raise DecodeError(f"{name}: not a clip record ({error})") from error


class EncodedClip:
    """One clip with compressed pictures.

    Attributes:
        keypoints: (T, K, 3) float32.
        pose: (T, 3) float32 degrees.
        mesh: (T, 478, 3) float32, or None.
        height, width, margin: size and margin of the frames in pixels.
        fps, identity: as in `Clip`.
        provenance: the clip's origin.
        generated_frames: indices of the frames that have a generated mask.
        driver_identity, driver_keypoints: of the person who makes the same motion, (T, K, 3) float32; None: no such
            person.
    """

    def __init__(self, fields: Mapping, name: str):
        self._fields, self._name = fields, name
        self.height, self.width, self.margin = (self._integer(key) for key in ("height", "width", "margin"))
        if not 0 < max(self.height, self.width) <= _LARGEST or not 0 <= 2 * self.margin < min(self.height, self.width):
            raise ValueError(f"frames of {self.width} x {self.height} pixels with a margin of {self.margin}")
        self.fps = float(fields["fps"].float_list.value[0])
        self.identity = self._text("identity")
        self.keypoints = self._array("keypoints", (-1, K, 3))
        self.pose = self._array("pose", (-1, 3))
        self.mesh = self._array("mesh", (-1, MESH_POINTS, 3))
        self.mesh = self.mesh if len(self.mesh) else None
        self.provenance = Provenance(
            self._text("name"), self._text("video"), self._integer("first_frame"), self._integer("stride"),
            {key: float(fields[f"quality/{key}"].float_list.value[0]) for key in QUALITIES})
        self.generated_frames = list(fields["generated_frames"].int64_list.value)
        count = len(self.keypoints)
        driven = "driver_keypoints" in fields  # records of version 0.1 have no drivers
        drivers = self._array("driver_keypoints", (-1, K, 3)) if driven else ()
        self.driver_identity = self._text("driver_identity") if driven else ""
        self.driver_keypoints = drivers if len(drivers) else None
        generated = len(self.generated_frames)
        pictures = {"frames": count, "masks": count, "generated_masks": generated,
                    "driver_frames": 0 if self.driver_keypoints is None else count}
        lengths = {key: len(fields[key].bytes_list.value) if key in fields else 0 for key in pictures}
        arrays = {"pose": self.pose, "mesh": self.mesh, "driver_keypoints": self.driver_keypoints}
        lengths |= {key: len(array) for key, array in arrays.items() if array is not None}
        for key, found in lengths.items():
            wanted = pictures.get(key, count)
            if found != wanted:
                raise DecodeError(f"{name}: expected {wanted} {key}, one per frame of keypoints, found {found}")
        if not count or not all(0 <= frame < count for frame in self.generated_frames):
            raise DecodeError(f"{name}: expected frames, and generated masks of some of them, found {count} frames and "
                              f"masks of {self.generated_frames[:8]}")
        if not all(np.isfinite(x).all() for x in (self.fps, self.keypoints, self.pose, *arrays.values())
                   if x is not None):
            raise DecodeError(f"{name}: expected finite keypoints, poses and frames per second, found others")

    def __len__(self) -> int:
        return len(self.keypoints)

    def frame(self, index: int) -> np.ndarray:
        """Decode one frame: (H, W, 3) uint8 RGB."""
        return self._picture("frames", index, cv2.IMREAD_COLOR_RGB, (self.height, self.width, 3))

    def driver_frame(self, index: int) -> np.ndarray:
        """Decode one frame of the driver: (H, W, 3) uint8 RGB."""
        return self._picture("driver_frames", index, cv2.IMREAD_COLOR_RGB, (self.height, self.width, 3))

    def mask(self, index: int) -> np.ndarray:
        """Decode the mask of one frame: (H, W) uint8 bit field."""
        return self._picture("masks", index, cv2.IMREAD_GRAYSCALE, (self.height, self.width))

    def generated_mask(self, number: int) -> np.ndarray:
        """Decode the regions of generated attributes in frame `generated_frames[number]`: (H, W) uint8 bit field."""
        return self._picture("generated_masks", number, cv2.IMREAD_GRAYSCALE, (self.height, self.width))

    def generated(self) -> dict[int, np.ndarray]:
        """Decode all generated masks: frame index -> (H, W) uint8 bit field."""
        return {frame: self.generated_mask(number) for number, frame in enumerate(self.generated_frames)}

    def clip(self, frames: Sequence[int] | None = None) -> Clip:
        """Decode the frames with the given indices, or all frames."""
        chosen = list(range(len(self)) if frames is None else frames)
        driver = None
        if self.driver_keypoints is not None:
            driver = Driver(np.stack([self.driver_frame(i) for i in chosen]), self.driver_keypoints[chosen],
                            self.driver_identity)
        return Clip(np.stack([self.frame(i) for i in chosen]), self.keypoints[chosen],
                    np.stack([self.mask(i) for i in chosen]), self.fps, self.identity, self.margin,
                    None if self.mesh is None else self.mesh[chosen], driver)

    def compressed(self, key: str, index: int) -> bytes:
        """Return the bytes of one picture of `frames`, `masks`, `generated_masks` or `driver_frames`."""
        return self._fields[key].bytes_list.value[index]

    def _picture(self, key: str, index: int, flags: int, shape: tuple[int, ...]) -> np.ndarray:
        data, found = self.compressed(key, index), "undecodable bytes"
        size = picture_size(data)
        try:
            # A picture of another size may be a million times as large as its bytes.
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if size == shape[1::-1] else None
        except cv2.error:
            picture = None
        if picture is None or picture.shape != shape:
            found = found if size is None or size == shape[1::-1] else f"one of {size[1], size[0]}"
            raise DecodeError(f"{self._name}, {key} {index}: expected a picture of {shape}, found {found}")
        return picture

    def _array(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        return np.frombuffer(self._fields[key].bytes_list.value[0], "<f4").reshape(shape)

    def _integer(self, key: str) -> int:
        return int(self._fields[key].int64_list.value[0])

    def _text(self, key: str) -> str:
        return self._fields[key].bytes_list.value[0].decode()


def encode_mask(mask: np.ndarray) -> bytes:
    """Encode an (H, W) uint8 bit field as PNG."""
    # Without row filters a flat mask decodes twice as fast (benchmarks/data.py).
    return _encode(".png", mask, [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE])


def _serialize(*, identity: str, provenance: Provenance, fps: float, size: tuple[int, int, int],
               keypoints: np.ndarray, mesh: np.ndarray | None, frames: list[bytes], masks: list[bytes],
               generated: Mapping[int, np.ndarray], driver: tuple[str, list[bytes], np.ndarray] | None) -> bytes:
    identity_of_driver, driver_frames, driver_keypoints = driver or ("", [], np.zeros((0, K, 3), np.float32))
    mesh = np.zeros((0, MESH_POINTS, 3), np.float32) if mesh is None else mesh
    height, width, margin = map(int, size)
    example = features().serialize_example({
        "name": provenance.name, "identity": identity, "video": provenance.video,
        "first_frame": provenance.first_frame, "stride": provenance.stride, "fps": fps,
        "height": height, "width": width, "margin": margin, "frames": frames, "masks": masks,
        "keypoints": np.ascontiguousarray(keypoints, np.float32),
        "mesh": np.ascontiguousarray(mesh, np.float32), "pose": head_pose(keypoints),
        "quality": {key: float(provenance.quality.get(key, np.nan)) for key in QUALITIES},
        "generated_frames": list(generated), "generated_masks": [encode_mask(mask) for mask in generated.values()],
        "driver_identity": identity_of_driver, "driver_frames": driver_frames,
        "driver_keypoints": np.ascontiguousarray(driver_keypoints, np.float32),
    })
    # TFDS serializes the fields in random order. A fixed order gives equal clips equal bytes.
    return _parse(example).SerializeToString(deterministic=True)


def load_parser() -> None:
    """Import what `read_record` needs. Call it before several threads read.

    Two threads that import TFDS at the same time can wait for each other forever (Python 3.11, etils' lazy imports).
    """
    _example_class()


@cache
def _example_class() -> type:
    from tensorflow_datasets.proto import tf_example_pb2  # takes a second, see `features`

    return tf_example_pb2.Example


def _parse(example: bytes):
    """Return the tf.train.Example of these bytes."""
    return _example_class().FromString(example)


def _encode_frames(frames: np.ndarray, encoding: str) -> list[bytes]:
    """Encode (T, H, W, 3) uint8 RGB frames one by one."""
    if encoding not in ENCODINGS:
        raise InputError(f"unknown frame encoding {encoding!r}; expected one of {', '.join(ENCODINGS)}")
    extension, settings = ENCODINGS[encoding]
    return [_encode(extension, frame[..., ::-1], settings) for frame in frames]


def _encode(extension: str, picture: np.ndarray, settings: list[int]) -> bytes:
    done, encoded = cv2.imencode(extension, np.ascontiguousarray(picture), settings)
    if not done:
        raise ValueError(f"could not encode a picture of {picture.shape} as {extension}")
    return encoded.tobytes()
