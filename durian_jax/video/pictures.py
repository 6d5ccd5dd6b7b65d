"""Read and write pictures as uint8 RGB arrays, by OpenCV; HEIC by pillow-heif, if it is installed."""

import warnings
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image

from durian_jax.errors import InputError, cut
from durian_jax.files import atomic_file
from durian_jax.video.decoders import native_messages
from durian_jax.video.given import existing_file, open_media
from durian_jax.video.limits import check_photo_bytes, check_photo_size, other_picture_size, picture_size

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

# Photos that `read_image` takes, too.
PHOTO_SUFFIXES = (*IMAGE_SUFFIXES, ".heic", ".heif")

# Brands of containers that hold a still picture (ISO 23008-12, AVIF).
_HEIC_BRANDS = ("heic", "heix", "heim", "heis", "mif1", "msf1")
STILL_BRANDS = (*_HEIC_BRANDS, "avif")

_JPEG_END = b"\xff\xd9"
_BAND = 256  # rows

# What decoders say of colour profiles and comments, which the pixels do not depend on.
_HARMLESS = "libpng warning"


class DamagedPicture(UserWarning):
    """Warning: the decoder reports damage of a picture that can be read."""


def read_image(path: str | Path) -> np.ndarray:
    """Read a picture as (H, W, 3) uint8 RGB: upright (EXIF orientation applied), alpha blended over white.

    A warning names a picture that can be read although the decoder reports damage.

    Raises:
        InputError: the file is missing, unreadable, not a picture, too large (`limits`), or cut off.
    """
    with native_messages() as messages:
        image = _read(path)
    damage = [message for message in messages if not message.startswith(_HARMLESS)]
    if damage:
        warnings.warn(f"{path}: the picture may be damaged ({cut(damage[0])}); look at it, or copy the file again from "
                      "its source", DamagedPicture, stacklevel=2)
    return image


def _read(path: str | Path) -> np.ndarray:
    path = existing_file(path, "a picture")
    check_photo_bytes(path)
    data = path.read_bytes()
    if data[4:8] == b"ftyp" and data[8:12].decode("latin-1") in _HEIC_BRANDS:
        return _heic(path, data)
    size = picture_size(data) or other_picture_size(data)
    if size is not None:
        check_photo_size(path, size)
        pixels = np.frombuffer(_whole_picture(path, data), np.uint8)
        image = _decoded(pixels, cv2.IMREAD_UNCHANGED)
    if size is None or image is None:
        raise InputError(f"{path}: expected a picture ({', '.join(s[1:] for s in IMAGE_SUFFIXES)}), "
                         f"found {_describe(path)}; give a PNG or JPEG file")
    if image.ndim == 3 and image.shape[2] == 4:
        image = _over_white(image)
    else:
        del image
        # Decode again, because only this mode applies the orientation and reduces the picture to 8 bits.
        image = _decoded(pixels, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(image[..., ::-1])


def _decoded(pixels: np.ndarray, flags: int) -> np.ndarray | None:
    """The picture of these bytes; None: they are damaged."""
    try:
        return cv2.imdecode(pixels, flags)
    except cv2.error:
        return None


def _over_white(image: np.ndarray) -> np.ndarray:
    """Blend (H, W, 4) of 8 or 16 bits over white: (H, W, 3) uint8. In bands, which take little memory."""
    blended = np.empty((*image.shape[:2], 3), np.uint8)
    depth = 65535.0 if image.dtype == np.uint16 else 255.0
    for first in range(0, len(image), _BAND):
        band = image[first:first + _BAND].astype(np.float32)
        alpha, colour = band[..., 3:] / depth, band[..., :3] * (255.0 / depth)
        blended[first:first + _BAND] = np.rint(colour * alpha + 255.0 * (1.0 - alpha))
    return blended


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write an (H, W, 3) or (H, W) uint8 picture atomically; the file's ending selects the format.

    Raises:
        InputError: the ending is unknown, or the folder cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f"{path}: expected a name that ends in {', '.join(IMAGE_SUFFIXES)}; rename the output")
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix.lower() in (".jpg", ".jpeg") else []
    image = np.ascontiguousarray(image[..., ::-1] if image.ndim == 3 else image)
    with atomic_file(path) as temporary:
        Path(temporary).write_bytes(cv2.imencode(path.suffix, image, options)[1].tobytes())


def _heic(path: Path, data: bytes) -> np.ndarray:
    """Decode a phone's HEIC photo; the library turns it upright."""
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(f"{path}: expected a PNG or JPEG file, found a HEIC photo; convert it to JPEG, or "
                         "pip install pillow-heif") from error
    try:
        photo = pillow_heif.open_heif(data)
        check_photo_size(path, photo.size)
        image = photo.to_pillow().convert("RGBA")
    except InputError:
        raise
    except (ValueError, RuntimeError, SyntaxError, EOFError) as error:
        raise InputError(f"{path}: the HEIC photo is damaged ({error}); copy the file again from its source") from error
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image).convert("RGB"))


def _describe(path: Path) -> str:
    """Describe the content of a file that is not a readable picture."""
    try:
        with open_media(path) as container:
            kinds = {stream.type for stream in container.streams}
            name = container.format.name
    except (av.error.FFmpegError, OSError):
        return "data in an unknown format"
    if name.endswith("_pipe") or name == "image2":
        return "a damaged picture" if cv2.haveImageReader(str(path)) else "data in an unknown format"
    return "a video" if "video" in kinds else "a sound file" if "audio" in kinds else f"a {name} file"


def _whole_picture(path: Path, data: bytes) -> bytes:
    """Return the picture's bytes, with the end marker that some JPEG writers leave out.

    Raises:
        InputError: a PNG or JPEG lost its end. OpenCV would fill the missing part with grey and raise nothing.
    """
    whole = not data.startswith(b"\x89PNG") or b"IEND" in data
    if data.startswith(b"\xff\xd8") and data.find(_JPEG_END, max(data.rfind(b"\xff\xda"), 0)) < 0:
        # A JPEG that lacks blocks decodes them from the filler, so that the two results differ.
        one, other = (_decoded(np.frombuffer(data + filler + _JPEG_END, np.uint8), cv2.IMREAD_COLOR)
                      for filler in (b"\x00" * 64, b"\x55" * 64))
        whole = one is not None and other is not None and np.array_equal(one, other)
        data += _JPEG_END
    if not whole:
        raise InputError(f"{path}: the picture is cut off; copy the file again from its source")
    return data
