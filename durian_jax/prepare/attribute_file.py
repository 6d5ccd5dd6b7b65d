"""Files that hold one attribute of a photo, ready to be transferred: FILE.attr.

A file holds the attribute's pixels at two sizes, its masks, the keypoints of the face, and the origin. Everything else
of the photo is blank. H x W pixels, K keypoints.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from durian_jax.errors import InputError, cut, listed, shown
from durian_jax.faces.clip import Clip, attribute_bit
from durian_jax.faces.fill_region import dilate
from durian_jax.faces.topology import ATTRIBUTE_KINDS, GROUPS, K
from durian_jax.fields import (
    Count,
    FieldError,
    NotNegative,
    OneOf,
    Positive,
    check_fields,
    check_names,
    check_present,
    check_value,
    read_fields,
)
from durian_jax.files import atomic_file, parse_json
from durian_jax.prepare.stretches import resized, resized_bits
from durian_jax.versions import __version__, is_newer
from durian_jax.video import picture_size
from durian_jax.video.given import existing_file

SUFFIX = ".attr"
# Sides of the stored pictures in pixels. A photo is cropped to at least 256 px and then made smaller, so a model of up
# to 256 px gets the photo's own pixels from the first picture. A model of 512 px gets them from the second.
SIZES = (256, 512)
# Pixels that are kept around the mask, at each size, and the grey of all others. Making a picture smaller, and
# `align_attributes`, mix pixels of the mask's edge with their neighbours.
MARGIN, BLANK = 6, 128

_FORMAT = 1
_LARGEST_FILE = 16 << 20  # bytes
_FARTHEST = 4.0  # largest coordinate of a keypoint, in picture sides
_SMALLEST_FACE = 0.05  # smallest width and height of a face, in picture sides
_AGAIN = "save it again with durian attribute save"


@dataclass(frozen=True)
class Origin:
    """Where an attribute comes from.

    Attributes:
        photo: name of the photo's file.
        sha256: of the photo's file, in hexadecimal.
        width, height: of the photo in pixels, upright.
        face_height: height of the face in the photo, in pixels.
        crop: side of the square that was cut from the photo, in pixels. Models of larger pictures see it enlarged.
        face: which face of the photo, see `annotate_image`.
        masker: what has found the attribute, see `maskers.make_masker`.
        evidence: of the attribute, in units of the threshold: below 1 it is unsure.
        version: of this package.
        created: date and time, ISO 8601.
    """

    photo: str
    sha256: str
    width: Count
    height: Count
    face_height: Positive
    crop: Positive
    face: str
    masker: str
    evidence: NotNegative
    version: str
    created: str

    def __post_init__(self):
        check_fields(self)
        if len(self.sha256) != 64 or not set(self.sha256) <= set("0123456789abcdef"):
            raise FieldError("sha256", f"expected 64 hexadecimal digits, found {shown(self.sha256)}")


@dataclass(frozen=True)
class Attribute:
    """One attribute of a photo.

    Attributes:
        kind: hair, glasses, beard or hat.
        pictures: (H, W, 3) uint8 RGB of each of `SIZES`, `BLANK` beyond the margin of the mask.
        masks: (H, W) bool of each of `SIZES`.
        keypoints: (K, 3) float32, as in `Clip`.
        origin: where it comes from.
    """

    kind: str
    pictures: Mapping[int, np.ndarray]
    masks: Mapping[int, np.ndarray]
    keypoints: np.ndarray
    origin: Origin

    @classmethod
    def of(cls, kind: str, photos: Mapping[int, Clip], origin: Origin) -> "Attribute":
        """Return an attribute of an annotated photo; `photos` are its crops of all `SIZES`."""
        masks = {size: photos[size].mask(kind)[0] for size in SIZES}
        pictures = {size: np.where(kept(masks[size])[..., None], photos[size].frames[0], np.uint8(BLANK))
                    for size in SIZES}
        return cls(kind, pictures, masks, photos[SIZES[0]].keypoints[0], origin)

    def clip(self, size: int = 128) -> Clip:
        """Return the attribute as an annotated photo, a clip of one frame.

        Sizes up to 256, and 512, have the same pixels as a crop of the photo. Other sizes up to 512 are made from the
        picture of 512 px. Larger ones are enlarged and show no more detail.

        Args:
            size: H = W in pixels.
        """
        stored = next((one for one in SIZES if one >= size), SIZES[-1])
        masks = resized_bits(self.masks[stored] * np.uint8(attribute_bit(self.kind)), size)
        return Clip(resized(self.pictures[stored], size)[None], self.keypoints[None], masks[None],
                    identity=Path(self.origin.photo).stem)


def kept(mask: np.ndarray) -> np.ndarray:
    """Return where a picture keeps its pixels, (H, W) bool: the mask of one of `SIZES`, and its margin."""
    return dilate(mask, MARGIN)


def is_attribute_file(path: str | Path) -> bool:
    """Return whether a file is an attribute file by its name."""
    return str(path).lower().endswith(SUFFIX)


def write_attribute(path: str | Path, attribute: Attribute) -> None:
    """Write an attribute file atomically.

    Raises:
        InputError: the file cannot be written.
    """
    tensors: dict[str, np.ndarray] = {"keypoints": np.ascontiguousarray(attribute.keypoints, np.float32)}
    for size in SIZES:
        _, png = cv2.imencode(".png", np.ascontiguousarray(attribute.pictures[size][..., ::-1]),
                              [cv2.IMWRITE_PNG_COMPRESSION, 9])
        tensors |= {f"picture.{size}": png.reshape(-1), f"mask.{size}": np.packbits(attribute.masks[size], axis=-1)}
    about = {"format": _FORMAT, "kind": attribute.kind, **asdict(attribute.origin)}
    with atomic_file(path) as temporary:
        save_file(tensors, temporary, {"about": json.dumps(about)})


def read_attribute(path: str | Path) -> Attribute:
    """Read an attribute file of `write_attribute`.

    Raises:
        InputError: the file is missing, damaged or newer than this program, or it is another file.
    """
    path = existing_file(path, f"an attribute file ({SUFFIX})")
    if path.stat().st_size > _LARGEST_FILE:
        raise InputError(f"{path}: expected an attribute file of at most {_LARGEST_FILE >> 20} MB, found "
                         f"{path.stat().st_size >> 20} MB; {_AGAIN}")
    try:
        with safe_open(path, "np") as stored:
            metadata = stored.metadata() or {}
            if "about" not in metadata:
                raise ValueError("it does not say which attribute it holds")
            kind, origin = _described(path, parse_json(metadata["about"]))
            _check_tensors(stored)
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
        keypoints = _checked_face(tensors["keypoints"])
        masks = {size: np.unpackbits(tensors[f"mask.{size}"], axis=-1) > 0 for size in SIZES}
        if not all(mask.any() for mask in masks.values()):
            raise ValueError("a mask is empty")
        pictures = {size: _picture(tensors[f"picture.{size}"], size) for size in SIZES}
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: expected an attribute file, found a damaged or another file ({cut(str(error))}); "
                         f"{_AGAIN}") from error
    return Attribute(kind, pictures, masks, keypoints, origin)


def attribute_of_kind(path: str | Path, kind: str) -> Attribute:
    """Read an attribute file that must hold this kind.

    Raises:
        InputError: it holds another kind, or see `read_attribute`.
    """
    attribute = read_attribute(path)
    if attribute.kind != kind:
        raise InputError(f"{path}: expected {kind}, found an attribute file of {attribute.kind}; name it as "
                         f"{attribute.kind}={path}, or choose another file")
    return attribute


def _check_tensors(stored: Any) -> None:
    """Refuse other tensors, types or shapes, by the header alone: safetensors cannot load all types as numpy."""
    found = {}
    for name in stored.keys():  # noqa: SIM118 - not a dict
        tensor = stored.get_slice(name)
        found[name] = (tensor.get_dtype(), *tensor.get_shape())
    expected: dict[str, tuple] = {"keypoints": ("F32", K, 3)}
    for size in SIZES:
        length = found.get(f"picture.{size}", (0, 0))[-1]
        expected |= {f"picture.{size}": ("U8", length), f"mask.{size}": ("U8", size, size // 8)}
    if found != expected:
        other = [f"{name}: {' '.join(map(str, what))}" for name, what in found.items() if expected.get(name) != what]
        raise ValueError(f"tensors {listed(other)}" if other else "some tensors are missing")


def _checked_face(keypoints: np.ndarray) -> np.ndarray:
    """Refuse (K, 3) keypoints that are no face in or near the picture."""
    if not np.abs(keypoints).max() <= _FARTHEST:  # also NaN
        raise ValueError("keypoints far outside of the picture")
    if np.ptp(keypoints[GROUPS["contour"], :2], axis=0).min() < _SMALLEST_FACE:
        raise ValueError("keypoints that are no face")
    return keypoints


def _picture(data: np.ndarray, size: int) -> np.ndarray:
    """Decode a PNG, which must have this size: a picture of another size may be a million times as large."""
    content = data.tobytes()
    try:
        fits = content.startswith(b"\x89PNG") and picture_size(content) == (size, size)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if fits else None
    except cv2.error:
        picture = None
    if picture is None or picture.shape != (size, size, 3):
        raise ValueError(f"no PNG picture of {size} x {size} pixels")
    return np.ascontiguousarray(picture[..., ::-1])


def _described(path: Path, about: dict[str, Any]) -> tuple[str, Origin]:
    """Return the kind and the origin that a file's metadata tell."""
    version = about.get("version", __version__)
    advice = _AGAIN
    if is_newer(version):
        advice = f"durian-jax {shown(version, 20)} has written it, this is {__version__}; update durian-jax"
    try:
        check_names(about, ("format", "kind", *(field.name for field in fields(Origin))))
        check_present(about, ("format", "kind"))
        if type(about["format"]) is not int or about["format"] != _FORMAT:
            raise FieldError("format", f"expected {_FORMAT}, found {shown(about['format'])}")
        check_value(Annotated[str, OneOf(ATTRIBUTE_KINDS)], about["kind"], "kind")
        return about["kind"], read_fields(Origin, {name: value for name, value in about.items()
                                                   if name not in ("format", "kind")})
    except FieldError as error:
        raise InputError(f"{path}: {error}; {advice}") from error
