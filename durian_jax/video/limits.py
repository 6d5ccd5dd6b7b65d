"""Limits that are checked before a picture or a video is decoded, so that no file takes all memory or time.

The limits are above what cameras save: photos of 64 megapixels, 8K video, four hours. W x H pixels.
"""

import io
import struct
import warnings
from pathlib import Path

from PIL import Image

from durian_jax.errors import InputError, cut

MOST_PHOTO_PIXELS, MOST_FRAME_PIXELS = 65_000_000, 36_000_000
MOST_PHOTO_BYTES = 256 << 20
LONGEST_VIDEO, MOST_FRAMES, HIGHEST_RATE = 4 * 3600.0, 1_000_000, 1000.0

# Markers of a JPEG that begin a frame, with the picture's size (ISO 10918-1, table B.1).
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def picture_size(data: bytes) -> tuple[int, int] | None:
    """(W, H) of a PNG, JPEG, WebP or BMP as its header says, before orientation; None: no picture of these kinds.

    Args:
        data: the file, or its beginning.
    """
    try:
        if data.startswith(b"\x89PNG"):
            return struct.unpack_from(">II", data, 16)
        if data.startswith(b"\xff\xd8"):
            return _jpeg_size(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp_size(data)
        if data.startswith(b"BM"):
            width, height = struct.unpack_from("<ii", data, 18)
            return abs(width), abs(height)
    except struct.error:  # cut off within the header
        pass
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    place = 2
    while (place := data.find(b"\xff", place)) >= 0:
        kind, length = struct.unpack_from(">BH", data, place + 1)
        if kind in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        place += 1 if kind in (0x00, 0xFF) else 2 + length  # any number of 0xFF may precede a marker
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[place:place + 3], "little") + 1 for place in (24, 27))
        return width, height
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def other_picture_size(data: bytes) -> tuple[int, int] | None:
    """(W, H) of a picture of any kind that Pillow knows; None: not a picture. Not for several threads at once."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                return image.size
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return MOST_PHOTO_PIXELS, MOST_PHOTO_PIXELS  # Pillow's limit is above ours, and it does not tell the size
    except Exception:  # Pillow's readers of damaged files raise many kinds
        return None


def check_photo_size(path: Path, size: tuple[int, int]) -> None:
    """Refuse a photo with too many pixels.

    Args:
        path: for the error.
        size: (W, H).

    Raises:
        InputError: says how many pixels it may have.
    """
    _check_pixels(path, "picture", *size, MOST_PHOTO_PIXELS)


def check_frame_size(path: Path, width: int, height: int) -> None:
    """Refuse a video with too large frames.

    Raises:
        InputError: says how many pixels they may have.
    """
    _check_pixels(path, "video", width, height, MOST_FRAME_PIXELS)


def _check_pixels(path: Path, what: str, width: int, height: int, most: int) -> None:
    if width * height > most:
        raise InputError(f"{cut(str(path))}: expected a {what} of at most {most // 10**6} megapixels, found {width} x "
                         f"{height} pixels; make it smaller first")


def check_photo_bytes(path: Path) -> None:
    """Refuse a picture file that is too large to be read.

    Raises:
        InputError: says how large it may be.
    """
    size = path.stat().st_size
    if size > MOST_PHOTO_BYTES:
        raise InputError(f"{cut(str(path))}: expected a picture of at most {MOST_PHOTO_BYTES >> 20} MB, found "
                         f"{size >> 20} MB; save it as PNG or JPEG first")


def check_length(path: str | Path, fps: float, frames: int, limit: int | None = None) -> None:
    """Refuse a video that is too long to be read at once.

    Args:
        path: for the error.
        fps: frames per second.
        frames: declared number of frames from the first one to read; 0: unknown.
        limit: number of frames to read; None: all.

    Raises:
        InputError: says how long it may be.
    """
    if fps > HIGHEST_RATE:
        raise InputError(f"{cut(str(path))}: expected at most {HIGHEST_RATE:g} frames per second, found {fps:g}; "
                         "export the video again")
    count = frames if limit is None else min(frames, limit)
    if count > MOST_FRAMES or count / fps > LONGEST_VIDEO:
        raise InputError(f"{cut(str(path))}: expected a video of at most {LONGEST_VIDEO / 3600:g} hours and "
                         f"{MOST_FRAMES} frames, found {count / fps / 3600:.1f} hours and {count} frames; cut it into "
                         "parts, or read only a part (--frames, or start and end in a manifest)")
