"""One clip as bytes: an example of the TFDS dataset `portrait_clips` (a tf.train.Example).

Frames and masks are compressed one by one, so that a training sample of 6 frames decodes 6 frames, whatever
the clip's length. Anything that reads TFDS reads the examples; `read_record` is the fast way in, which
leaves pictures compressed until they are asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError as ProtobufError
from tensorflow_datasets.proto import tf_example_pb2

from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip
from durian_jax.faces.pose import head_pose, spread_poses
from durian_jax.faces.topology import ATTRIBUTE_KINDS, MESH_POINTS, K

# Name -> file type, encoder settings. The first two are lossless and meant for drawn frames.
ENCODINGS = {
    "png": (".png", [cv2.IMWRITE_PNG_COMPRESSION, 4]),
    "webp-lossless": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
    "webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 95]),
    "jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 90]),
}

# What is measured of every prepared clip (see `prepare.clips.clip_quality`); NaN where it was not.
QUALITIES = ("sharpness", "face_height", "occlusion", "yaw_range", "pitch_range", "blink_range", "mouth_range")


class DecodeError(ValueError):
    """A record's bytes are not what they should be; the message names the record."""


@dataclass(frozen=True)
class Provenance:
    """Where a clip comes from, and how good it is.

    Attributes:
        name: of the clip, unique in its dataset.
        video: the file it was cut from, empty for procedural people.
        first_frame: number of its first frame in the video.
        stride: it holds each so-manieth frame from there.
        quality: value of each of `QUALITIES`.
    """

    name: str = ""
    video: str = ""
    first_frame: int = 0
    stride: int = 1
    quality: Mapping[str, float] = field(default_factory=dict)


# Of each clip, the masks of so many frames, at this size, are kept beside the records for other clips' sake.
DONORS, DONOR_SIZE = 4, 64


@dataclass(frozen=True)
class Donors:
    """Frames of a clip in poses as different as it has, for expanding the regions of other people.

    Attributes:
        frames: (DONORS,) numbers of the frames; a clip that has fewer repeats its last.
        masks: (DONORS, DONOR_SIZE, DONOR_SIZE) uint8 bit fields of the whole stored pictures.
        keypoints: (DONORS, K, 3) float32.
    """

    frames: np.ndarray
    masks: np.ndarray
    keypoints: np.ndarray


@dataclass(frozen=True)
class Outline:
    """What is known of a clip without opening it.

    Attributes:
        areas: (T, kinds) float32, share of the view that shows each attribute kind, 0..1.
        poses: (T, 3) float32, yaw, pitch and roll in degrees (`faces.pose`).
        identity: name of the person.
        name: of the clip, unique in its dataset.
        quality: (qualities,) float32, in the order of `QUALITIES`; NaN where not measured.
        donors: of a record that is being written; None elsewhere, where they are fetched one by one.
    """

    areas: np.ndarray
    poses: np.ndarray
    identity: str
    name: str = ""
    quality: np.ndarray = field(default_factory=lambda: np.full(len(QUALITIES), np.nan, np.float32))
    donors: Donors | None = None

    def __len__(self) -> int:
        return len(self.areas)


def outline(clip: Clip) -> Outline:
    """The outline of a decoded clip."""
    areas = np.stack([_areas(mask, clip.margin) for mask in clip.masks])
    return Outline(areas, head_pose(clip.keypoints), clip.identity, clip.identity)


def encoded_outline(clip: "EncodedClip") -> Outline:
    """The outline of a record, with its donors; decodes its masks only."""
    areas = np.stack([_areas(clip.mask(i), clip.margin) for i in range(len(clip))])
    provenance = clip.provenance
    quality = np.array([provenance.quality[key] for key in QUALITIES], np.float32)
    return Outline(areas, clip.pose, clip.identity, provenance.name, quality, donors(clip))


def donors(clip: "EncodedClip") -> Donors:
    """The donors of a record: farthest-point sampling of its head poses, from the most frontal one on."""
    poses = clip.pose[:, :2]
    chosen = spread_poses(poses, DONORS, first=int((poses ** 2).sum(-1).argmin()))
    chosen += chosen[-1:] * (DONORS - len(chosen))
    masks = np.stack([cv2.resize(clip.mask(i), (DONOR_SIZE, DONOR_SIZE), interpolation=cv2.INTER_NEAREST_EXACT)
                      for i in chosen])
    return Donors(np.array(chosen, np.int32), masks, clip.keypoints[chosen])


def _areas(mask: np.ndarray, margin: int) -> np.ndarray:
    """(kinds,) float32: share of the view of an (H, W) bit field."""
    view = mask[margin:mask.shape[0] - margin, margin:mask.shape[1] - margin]
    counts = np.bincount(view.reshape(-1), minlength=256)
    bits = np.arange(256)[:, None] >> np.arange(len(ATTRIBUTE_KINDS)) & 1
    return (counts @ bits / view.size).astype(np.float32)


@cache
def features() -> tfds.features.FeaturesDict:
    """The fields of an example; pictures are compressed bytes, one an element."""
    pictures = tfds.features.Sequence(tfds.features.Tensor(shape=(), dtype=np.object_))
    raw = {"dtype": np.float32, "encoding": tfds.features.Encoding.BYTES}
    return tfds.features.FeaturesDict({
        "name": tfds.features.Text(doc="of the clip, unique in the dataset"),
        "identity": tfds.features.Text(doc="clips with equal identity show the same person"),
        "video": tfds.features.Text(doc="the file it was cut from"),
        "first_frame": tfds.features.Scalar(np.int64, doc="number of the first frame in the video"),
        "stride": tfds.features.Scalar(np.int64, doc="every so-manieth frame of the video"),
        "fps": tfds.features.Scalar(np.float32, doc="frames per second of the clip"),
        "height": tfds.features.Scalar(np.int64, doc="of the frames, in pixels"),
        "width": tfds.features.Scalar(np.int64, doc="of the frames, in pixels"),
        "margin": tfds.features.Scalar(np.int64, doc="pixels on each side around the view meant for a model"),
        "frames": pictures,
        "masks": pictures,
        "keypoints": tfds.features.Tensor(shape=(None, K, 3), **raw),
        "mesh": tfds.features.Tensor(shape=(None, MESH_POINTS, 3), **raw),
        "pose": tfds.features.Tensor(shape=(None, 3), **raw),
        "quality": {name: tfds.features.Scalar(np.float32) for name in QUALITIES},
        # Regions that generated attributes would take (`durian expand`): bit fields like masks, at these frames.
        "generated_frames": tfds.features.Sequence(np.int64),
        "generated_masks": pictures,
    })


def write_record(clip: Clip, encoding: str = "png", provenance: Provenance | None = None,
                 generated: Mapping[int, np.ndarray] | None = None) -> bytes:
    """One clip as bytes.

    Args:
        clip: what to keep.
        encoding: key of `ENCODINGS` for the frames; masks are always PNG.
        provenance: where it comes from.
        generated: frame -> (H, W) uint8 bit field of the regions that generated attributes take there.

    Raises:
        InputError: unknown encoding.
    """
    if encoding not in ENCODINGS:
        raise InputError(f"unknown frame encoding {encoding!r}; expected one of {', '.join(ENCODINGS)}")
    extension, settings = ENCODINGS[encoding]
    return _serialize(
        identity=clip.identity, provenance=provenance or Provenance(name=clip.identity), fps=clip.fps,
        size=(*clip.frames.shape[1:3], clip.margin), keypoints=clip.keypoints, mesh=clip.mesh,
        frames=[_encode(extension, frame[..., ::-1], settings) for frame in clip.frames],
        masks=[encode_mask(mask) for mask in clip.masks], generated=generated or {})


def rewrite_record(clip: "EncodedClip", *, masks: np.ndarray | None = None, identity: str | None = None,
                   generated: Mapping[int, np.ndarray] | None = None) -> bytes:
    """The record again with other (T, H, W) masks, identity or generated regions; frames keep their bytes."""
    shape = (len(clip), clip.height, clip.width)
    if masks is not None and masks.shape != shape:
        raise ValueError(f"expected masks of shape {shape}, got {masks.shape}")
    return _serialize(
        identity=clip.identity if identity is None else identity, provenance=clip.provenance, fps=clip.fps,
        size=(clip.height, clip.width, clip.margin), keypoints=clip.keypoints, mesh=clip.mesh,
        frames=[clip.compressed("frames", i) for i in range(len(clip))],
        masks=[clip.compressed("masks", i) for i in range(len(clip))] if masks is None
        else [encode_mask(mask) for mask in masks],
        generated=clip.generated() if generated is None else generated)


def read_record(record: bytes, name: str = "record") -> "EncodedClip":
    """Opens the bytes of `write_record`; frames are decoded when asked for.

    Raises:
        DecodeError: the bytes are not a record.
    """
    try:
        return EncodedClip(tf_example_pb2.Example.FromString(record).features.feature, name)
    except (ProtobufError, KeyError, IndexError, ValueError) as error:
        raise DecodeError(f"{name}: not a clip record ({error})") from error


class EncodedClip:
    """One clip whose pictures are still compressed.

    Attributes:
        keypoints: (T, K, 3) float32.
        pose: (T, 3) float32 degrees.
        mesh: (T, 478, 3) float32, or None.
        height, width, margin: of the frames in pixels.
        fps, identity: as in `Clip`.
        provenance: where it comes from.
        generated_frames: frames that have a generated mask.
    """

    def __init__(self, fields: Mapping, name: str):
        self._fields, self._name = fields, name
        self.height, self.width, self.margin = (self._integer(key) for key in ("height", "width", "margin"))
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
        for key in ("frames", "masks"):
            found = len(fields[key].bytes_list.value)
            if found != count:
                raise DecodeError(f"{name}: expected {count} {key} as there are keypoints, found {found}")

    def __len__(self) -> int:
        return len(self.keypoints)

    def frame(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB of one frame."""
        return self._picture("frames", index, cv2.IMREAD_COLOR_RGB, (self.height, self.width, 3))

    def mask(self, index: int) -> np.ndarray:
        """(H, W) uint8 bit field of one frame."""
        return self._picture("masks", index, cv2.IMREAD_GRAYSCALE, (self.height, self.width))

    def generated_mask(self, number: int) -> np.ndarray:
        """(H, W) uint8 bit field: regions of generated attributes at frame `generated_frames[number]`."""
        return self._picture("generated_masks", number, cv2.IMREAD_GRAYSCALE, (self.height, self.width))

    def generated(self) -> dict[int, np.ndarray]:
        """All of them: frame -> (H, W) uint8 bit field."""
        return {frame: self.generated_mask(number) for number, frame in enumerate(self.generated_frames)}

    def clip(self, frames: Sequence[int] | None = None) -> Clip:
        """Decodes the frames of the given indices, or all."""
        chosen = list(range(len(self)) if frames is None else frames)
        return Clip(np.stack([self.frame(i) for i in chosen]), self.keypoints[chosen],
                    np.stack([self.mask(i) for i in chosen]), self.fps, self.identity, self.margin,
                    None if self.mesh is None else self.mesh[chosen])

    def compressed(self, key: str, index: int) -> bytes:
        """The bytes of one of the `frames`, `masks` or `generated_masks`."""
        return self._fields[key].bytes_list.value[index]

    def _picture(self, key: str, index: int, flags: int, shape: tuple[int, ...]) -> np.ndarray:
        compressed = np.frombuffer(self.compressed(key, index), np.uint8)
        try:
            picture = cv2.imdecode(compressed, flags) if len(compressed) else None
        except cv2.error:  # a header that asks for an absurd size
            picture = None
        if picture is None or picture.shape != shape:
            found = "undecodable bytes" if picture is None else f"a picture of {picture.shape}"
            raise DecodeError(f"{self._name}, {key} {index}: expected a picture of {shape}, found {found}")
        return picture

    def _array(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        return np.frombuffer(self._fields[key].bytes_list.value[0], "<f4").reshape(shape)

    def _integer(self, key: str) -> int:
        return int(self._fields[key].int64_list.value[0])

    def _text(self, key: str) -> str:
        return self._fields[key].bytes_list.value[0].decode()


def encode_mask(mask: np.ndarray) -> bytes:
    """(H, W) uint8 bit field as PNG."""
    # Without row filters a flat mask decodes twice as fast (benchmarks/data.py).
    return _encode(".png", mask, [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE])


def _serialize(*, identity: str, provenance: Provenance, fps: float, size: tuple[int, int, int],
               keypoints: np.ndarray, mesh: np.ndarray | None, frames: list[bytes], masks: list[bytes],
               generated: Mapping[int, np.ndarray]) -> bytes:
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
    })
    # TFDS leaves the order of the fields to chance: equal clips are to have equal bytes.
    return tf_example_pb2.Example.FromString(example).SerializeToString(deterministic=True)


def _encode(extension: str, picture: np.ndarray, settings: list[int]) -> bytes:
    done, encoded = cv2.imencode(extension, np.ascontiguousarray(picture), settings)
    if not done:
        raise ValueError(f"could not encode a picture of {picture.shape} as {extension}")
    return encoded.tobytes()
