"""Export and import of a clip's masks as picture files: `durian masks export` and `durian masks replace`."""

import difflib
import os
from pathlib import Path

import cv2
import numpy as np

from durian_jax.data.clip_record import DecodeError, EncodedClip, rewrite_record
from durian_jax.data.corrections import keep_correction
from durian_jax.data.dataset_writer import replace_records
from durian_jax.data.recorded_clips import RecordedClips
from durian_jax.errors import InputError, cut, listed, shown
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.files import staged
from durian_jax.video import read_image, write_image

FRAMES = "frames"  # folder of the exported frames; never imported
_COMPARED = 200  # characters of a name that are compared with others


def export_masks(directory: str | os.PathLike, clip_name: str, folder: str | os.PathLike) -> int:
    """Write a clip's masks as FOLDER/<kind>/<frame>.png and its frames as FOLDER/frames/<frame>.png.

    Every attribute kind gets a folder. Its masks are black if the person does not wear this kind. Pictures have
    the stored size, margin included. White marks the attribute.

    Args:
        directory: folder of a complete dataset.
        clip_name: name of the clip, as shown by `durian sheet`.
        folder: output folder, created if missing.

    Returns:
        Number of frames.

    Raises:
        InputError: unknown dataset or clip, a damaged record, existing masks in `folder`, or a folder that cannot
            be written.
    """
    clips = RecordedClips(directory)
    clip = _open(clips, find_clip(clips, clip_name))
    folder = Path(folder)
    for name in (FRAMES, *ATTRIBUTE_KINDS):
        if os.path.isdir(folder / name) and any((folder / name).iterdir()):
            raise InputError(f"{folder / name}: expected a new or empty folder, found files that may be edited masks; "
                             f"name another folder or delete this one")
    try:
        decoded = clip.clip()
    except DecodeError as error:
        raise _damaged(error) from error
    with staged(folder) as made:
        for index, frame in enumerate(decoded.frames):
            write_image(made / FRAMES / _file_name(index), frame)
            for kind in ATTRIBUTE_KINDS:
                visible = (decoded.masks[index] & attribute_bit(kind)) > 0
                write_image(made / kind / _file_name(index), visible.astype(np.uint8) * 255)
    return len(clip)


def replace_masks(directory: str | os.PathLike, clip_name: str, folder: str | os.PathLike) -> dict:
    """Replace the masks of each attribute kind that has a folder FOLDER/<kind>.

    Other kinds, clips and frames keep their bytes. Only the clip's shard, the index, dataset.json and the stored
    correction (`corrections`) are written.
    A pixel is set if it is more than half white and more than half opaque. Kinds may overlap: a kind worn on top
    (`faces.fill_region.LAYERS`) does not clear the kinds below it. If new glasses hide hair, erase this hair from
    the hair's masks too.

    Args:
        directory: folder of a complete dataset.
        clip_name: name of the clip, as shown by `durian sheet`.
        folder: folders and files as written by `export_masks`. Delete the folders of kinds that must not change.
            Each kind needs one picture per frame, in the stored size. The folder `frames` is ignored.

    Returns:
        The new content of dataset.json, and `replaced`: the replaced kinds.

    Raises:
        InputError: unknown dataset or clip, a damaged record in the clip's shard, folders of unknown kinds or no
            folders, missing or surplus frames, damaged pictures, or pictures of another size. The dataset is then
            unchanged.
    """
    clips = RecordedClips(directory)
    index = find_clip(clips, clip_name)
    clip, kinds = _open(clips, index), _kinds(Path(folder))
    try:
        masks = np.stack([clip.mask(i) for i in range(len(clip))])
        for kind in kinds:
            drawn = _read_masks(Path(folder) / kind, masks.shape)
            masks = np.where(drawn, masks | np.uint8(attribute_bit(kind)), masks & np.uint8(255 - attribute_bit(kind)))
        about = replace_records(directory, {index: rewrite_record(clip, masks=masks)})
    except DecodeError as error:
        raise _damaged(error) from error
    if clip.provenance.video:  # else there is no video to prepare again
        keep_correction(directory, clip, masks, kinds)
    return {**about, "replaced": kinds}


def find_clip(clips: RecordedClips, name: str) -> int:
    """Return the index of the clip with this name.

    Raises:
        InputError: no clip or several clips have this name.
    """
    names = [clips.outline(index).name for index in range(len(clips))]
    if names.count(name) == 1:
        return names.index(name)
    if name in names:
        raise InputError(f"{clips.directory}: expected one clip with the name {name!r}, found {names.count(name)}; "
                         "write the dataset again with unique names")
    near = difflib.get_close_matches(name[:_COMPARED], names, 3, 0.4)
    hint = f"did you mean {' or '.join(map(shown, near))}?" if near else "`durian sheet` lists the names"
    raise InputError(f"{clips.directory}: no clip has the name {shown(name)}; {hint}")


def _open(clips: RecordedClips, index: int) -> EncodedClip:
    try:
        return clips.open(index)
    except DecodeError as error:
        raise _damaged(error) from error


def _damaged(error: DecodeError) -> InputError:
    return InputError(f"{error}; the record is damaged, write the dataset again")


def _kinds(folder: Path) -> list[str]:
    """Return the attribute kinds that have a folder in `folder`."""
    if not os.path.isdir(folder):
        kind = "a file" if os.path.exists(folder) else "nothing"
        raise InputError(f"{cut(str(folder))}: expected a folder with masks, found {kind}; write one "
                         "with `durian masks export`")
    found = sorted(path.name for path in folder.iterdir()
                   if path.is_dir() and not path.name.startswith(".") and path.name != FRAMES)
    unknown = [name for name in found if name not in ATTRIBUTE_KINDS]
    if unknown or not found:
        raise InputError(f"{folder}: expected folders named {', '.join(ATTRIBUTE_KINDS)}, found "
                         f"{listed(unknown) or 'none'}; name each folder after its kind and move other folders away")
    return [kind for kind in ATTRIBUTE_KINDS if kind in found]


def _read_masks(folder: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the masks of one kind: (T, H, W) bool."""
    expected = [_file_name(index) for index in range(shape[0])]
    found = {path.name for path in folder.iterdir() if path.suffix.lower() == ".png"}
    missing = [name for name in expected if name not in found]
    surplus = sorted(found.difference(expected))
    if missing:
        raise InputError(f"{folder}: expected a mask for each of the clip's {shape[0]} frames, found none for "
                         f"{listed(missing)}; add them, or delete the folder to keep the old masks of this kind")
    if surplus:
        raise InputError(f"{folder}: expected only {expected[0]} to {expected[-1]}, found also {listed(surplus)}; "
                         "remove these files, or check whether the masks belong to another clip")
    return np.stack([_read_mask(folder / name, shape[1:]) for name in expected])


def _read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W) bool: true where the picture is more white than black and more opaque than transparent."""
    mask = read_image(path).mean(-1) > 127.5
    if mask.shape == size and read_image(path).max() == 1:
        raise InputError(f"{path}: expected white (255) for the attribute, found the values 0 and 1; multiply the "
                         "mask by 255")
    if mask.shape != size:
        raise InputError(f"{path}: expected {size[1]} x {size[0]} px, the size of the stored frames (margin included), "
                         f"found {mask.shape[1]} x {mask.shape[0]}; export the clip again for pictures of this size")
    # `read_image` blends transparent pixels with white, but here they must stay unset.
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw.ndim == 3 and raw.shape[2] == 4:
        mask &= raw[..., 3] > np.iinfo(raw.dtype).max / 2
    return mask


def _file_name(frame: int) -> str:
    return f"{frame:05d}.png"
