"""A shelf of attributes: cut an attribute out of a photo once, show it, and list a folder of attribute files."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from durian_jax.annotator import Annotator
from durian_jax.errors import InputError, cut
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.draw import keypoint_image
from durian_jax.faces.fill_region import dilate
from durian_jax.files import reason_of, writable_file
from durian_jax.prepare.annotate import annotate_photo
from durian_jax.prepare.attribute_file import (
    SIZES,
    SUFFIX,
    Attribute,
    Origin,
    is_attribute_file,
    kept,
    read_attribute,
    write_attribute,
)
from durian_jax.prepare.maskers import make_masker
from durian_jax.prepare.stretches import Crop
from durian_jax.prepare.track import check_choice
from durian_jax.versions import __version__
from durian_jax.video.given import existing_file

# The checkerboard: side of its squares in pixels, and their greys. The outline of the mask: width in pixels, and RGB.
_SQUARE, _GREYS = 16, (105, 150)
_LINE, _COLOUR = 2, (255, 0, 200)


def save_attribute(photo: str | Path, kind: str, out: str | Path, *, masker: str = "default", face: str = "largest",
                   annotator: Annotator | None = None) -> Attribute:
    """Cut one attribute out of a photo and write it as an attribute file.

    The file is used like a photo: in `annotate_image(out, known=(kind,))`, as KIND=FILE in `animate_files`, in tables
    of jobs and in `durian check`. Pixels beyond the attribute and a margin around it are blank.

    Args:
        photo: a picture.
        kind: hair, glasses, beard or hat.
        out: the .attr to write.
        masker: name of the masker, see `maskers.make_masker`.
        face: of several faces "largest", "left", "right", or its number, counted from the left from 1.
        annotator: a loaded annotator; None: load one for this call.

    Returns:
        The content of the file.

    Raises:
        InputError: see `annotate_image` and `make_masker`; the photo is an attribute file already, or `out` cannot be
            written.
    """
    attribute_bit(kind)
    out = writable_file(out, (SUFFIX,))
    check_choice(face)
    if is_attribute_file(photo):
        raise InputError(f"{photo}: expected a photo, found an attribute file; it can be used as it is")
    photo = existing_file(photo, "a picture")
    find = make_masker(masker)
    seen = annotate_photo(photo, [Crop(size, masker=find, known=(kind,)) for size in SIZES], annotator, face)
    with photo.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    box = seen.clips[0].box
    assert box is not None  # a crop of a photo has one
    origin = Origin(photo.name, digest, seen.width, seen.height, round(seen.face_height, 1), round(float(box[0, 2]), 1),
                    face, _without_folder(masker), round(float(getattr(seen.evidence, kind)), 3), __version__,
                    datetime.now(UTC).isoformat(timespec="seconds"))
    attribute = Attribute.of(kind, dict(zip(SIZES, seen.clips, strict=True)), origin)
    write_attribute(out, attribute)
    return attribute


def draw_attribute(attribute: Attribute) -> np.ndarray:
    """Draw an attribute: on the left what the file holds, on the right also keypoints and the mask's outline.

    Returns:
        (512, 1024, 3) uint8; a checkerboard where the picture is blank.
    """
    size = SIZES[-1]
    picture, mask = attribute.pictures[size], attribute.masks[size]
    squares = np.add.outer(np.arange(size) // _SQUARE, np.arange(size) // _SQUARE) % 2
    board = np.array(_GREYS, np.uint8)[squares][..., None]
    plain = np.where(kept(mask)[..., None], picture, board)
    lines = keypoint_image(attribute.keypoints, size, size)
    marked = plain * (1 - lines.max(-1, keepdims=True)) + 255 * lines
    marked[mask & ~dilate(mask, -_LINE)] = _COLOUR
    return np.concatenate([plain, np.rint(np.clip(marked, 0, 255)).astype(np.uint8)], axis=1)


def describe_attribute(path: str | Path, attribute: Attribute) -> str:
    """Return what an attribute file holds and where it comes from, as lines of text."""
    origin, share = attribute.origin, attribute.masks[SIZES[-1]].mean()
    return "\n".join([
        f"{path}: {attribute.kind}, {share:.1%} of the crop",
        f"  photo     {cut(origin.photo)}, {origin.width} x {origin.height} px",
        f"  face      {cut(origin.face)}, {origin.face_height:.0f} px high, in a crop of {origin.crop:.0f} px",
        f"  SHA-256   {origin.sha256}",
        f"  masker    {cut(origin.masker)}",
        f"  evidence  {origin.evidence:.2f} ({'sure' if origin.evidence >= 1 else 'unsure'}; the threshold is 1)",
        f"  saved     {cut(origin.created)} by durian-jax {cut(origin.version)}",
    ])


def summarize_attribute(path: str | Path, attribute: Attribute) -> str:
    """Return what an attribute file holds and where it comes from, as one line."""
    origin = attribute.origin
    return (f"{path}: {attribute.kind} of {cut(origin.photo)} ({origin.width} x {origin.height}), crop "
            f"{origin.crop:.0f} px, evidence {origin.evidence:.2f}, {cut(origin.created[:10])}")


def list_attributes(folder: str | Path) -> Iterator[tuple[Path, Attribute | InputError]]:
    """Read the attribute files of a folder, in the order of their names.

    Yields:
        The path of each file, and its content, or the error of a file that cannot be read.

    Raises:
        InputError: the folder cannot be read or holds no attribute files.
    """
    try:
        found = sorted(path for path in Path(folder).iterdir()
                       if is_attribute_file(path) and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{cut(str(folder))}: cannot be read ({reason_of(error)}); expected a folder with attribute "
                         f"files ({SUFFIX})") from error
    if not found:
        raise InputError(f"{folder}: expected attribute files ({SUFFIX}), found none; durian attribute save makes them")
    for path in found:
        try:
            yield path, read_attribute(path)
        except InputError as error:
            yield path, error


def _without_folder(masker: str) -> str:
    """The name of a masker without the folder of this machine that its network lies in."""
    method, sign, source = masker.partition(":")
    return f"{method}:{Path(source).name}" if sign and Path(source).exists() else masker
