"""Write a folder of clips, the format of `recorded_clips`: shards first, then index and metadata, all at once."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from durian_jax.data.about import ABOUT_FILE, FORMAT
from durian_jax.data.clip_outline import Outline, encoded_outline
from durian_jax.data.clip_record import QUALITIES, features, read_record, write_record
from durian_jax.data.outlines import save_outlines
from durian_jax.data.recorded_clips import INDEX_FILE, RecordedClips, shard_name
from durian_jax.data.shards import shard_writer
from durian_jax.errors import InputError, cut
from durian_jax.faces.clip import Clip
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.files import full_disk_explained, hidden_folder, reason_of, remove_hidden_folders, write_json


def part_name(number: int) -> str:
    """Return the file name of a shard before the number of shards is known."""
    return f".part-{number:05d}.tmp"


def write_shard(path: Path, records: Iterable[bytes | tuple[bytes, Outline]]) -> list[Outline]:
    """Write one shard atomically.

    Args:
        path: path of the shard.
        records: records, or pairs of a record and its complete outline. A record without an outline has its
            masks decoded.

    Returns:
        The clips' outlines in order, for `finish_dataset`.

    Raises:
        DecodeError: a damaged record among those without an outline.
    """
    outlines = []
    with shard_writer(path) as write:
        for entry in records:
            record, known = entry if isinstance(entry, tuple) else (entry, None)
            outlines.append(known or encoded_outline(read_record(record, str(path))))
            write(record)
    return outlines


def finish_dataset(directory: Path, shards: Sequence[Sequence[Outline]], size: tuple[int, int], margin: int,
                   about: dict | None = None) -> dict:
    """Make a dataset from the parts in a folder.

    Args:
        directory: folder with a file `part_name(i)` per entry of `shards`.
        shards: outlines of the clips in each part.
        size: (H, W) of the frames.
        margin: margin of the frames in pixels.
        about: further fields of dataset.json (JSON values).

    Returns:
        The content of dataset.json.

    Raises:
        InputError: no clip.
        DiskFull: the disk is full; an earlier dataset in the folder is unchanged.
    """
    if not any(shards):
        raise InputError(f"{directory}: expected at least one clip, found none; check the input")
    parts = {number: directory / part_name(number) for number in range(len(shards))}
    # An earlier, interrupted attempt may have renamed some.
    parts = {number: path for number, path in parts.items() if path.exists()}
    return _put_in_place(directory, shards, {"height": int(size[0]), "width": int(size[1]), "margin": int(margin),
                                             **(about or {})}, parts,
                         (ABOUT_FILE, "report.json", "rejected.jsonl"))  # without the first it is incomplete


def _put_in_place(directory: Path, shards: Sequence[Sequence[Outline]], about: dict, parts: Mapping[int, Path],
                  outdated: Iterable[str] = ()) -> dict:
    """Write the index and the metadata, then replace an earlier dataset by them and by new shards.

    Args:
        directory: folder of the dataset.
        shards: outlines of the clips in each shard.
        about: further fields of dataset.json.
        parts: number of a shard -> file that becomes it; the other shards stay.
        outdated: files of the earlier dataset to delete first.

    Returns:
        The content of dataset.json.
    """
    names = [shard_name(number, len(shards)) for number in range(len(shards))]
    sizes = [parts.get(number, directory / name).stat().st_size for number, name in enumerate(names)]
    with full_disk_explained(directory), hidden_folder(directory) as made:
        content = _write_index(made, shards, about, sizes)
        # Nothing below needs space on the disk.
        for old in [*(directory / name for name in outdated),
                    *(path for path in directory.glob("portrait_clips-*.array_record-*") if path.name not in names)]:
            old.unlink(missing_ok=True)
        for number, part in parts.items():
            os.replace(part, directory / names[number])
        for name in (INDEX_FILE, "dataset_info.json", "features.json", ABOUT_FILE):
            os.replace(made / name, directory / name)
    return content


def _write_index(directory: Path, shards: Sequence[Sequence[Outline]], about: dict, sizes: Sequence[int]) -> dict:
    """Write the index, the TFDS metadata and dataset.json; `sizes` are the bytes of each shard."""
    outlines = [entry for shard in shards for entry in shard]
    save_outlines(directory / INDEX_FILE, shards)
    index = load_file(directory / INDEX_FILE)
    _write_tfds_metadata(directory, [len(shard) for shard in shards], sum(sizes))
    present = np.array([(entry.areas > 0).any(0) for entry in outlines])
    content = {
        "format": FORMAT, "clips": len(outlines), "frames": int(index["ends"][-1]),
        "people": len({entry.identity for entry in outlines}),
        "shards": len(shards),
        "clips_with": {kind: int(n) for kind, n in zip(ATTRIBUTE_KINDS, present.sum(0), strict=True)},
        "statistics": _statistics(index), **about,
    }
    write_json(directory / ABOUT_FILE, content)
    return content


def _write_tfds_metadata(directory: Path, shard_lengths: list[int], num_bytes: int) -> None:
    import tensorflow_datasets as tfds

    for number in range(len(shard_lengths)):  # TFDS looks for the shards, but reads only their names
        (directory / shard_name(number, len(shard_lengths))).touch()
    template = tfds.core.ShardedFileTemplate(data_dir=directory, dataset_name="portrait_clips", split="train",
                                             filetype_suffix="array_record")
    split = tfds.core.SplitInfo(name="train", shard_lengths=shard_lengths, filename_template=template,
                                num_bytes=num_bytes)
    tfds.folder_dataset.write_metadata(
        data_dir=directory, features=features(), split_infos=[split], check_data=False,
        description="Annotated clips of one person each: frames, keypoints, head poses and attribute masks.")


def _statistics(index: Mapping[str, np.ndarray]) -> dict:
    """Return percentiles 5, 50 and 95 of poses and of visible areas (over frames), and of qualities (over clips)."""
    areas = {kind: index["areas"][:, i] for i, kind in enumerate(ATTRIBUTE_KINDS)}
    values = {**{name: index["poses"][:, i] for i, name in enumerate(("yaw", "pitch", "roll"))},
              **{name: index["quality"][:, i] for i, name in enumerate(QUALITIES)},
              **{f"{kind}_area": area[area > 0] for kind, area in areas.items()}}
    known = {name: value[np.isfinite(value)] for name, value in values.items()}
    return {name: {f"p{q}": round(float(np.percentile(value.astype(np.float64), q)), 4) for q in (5, 50, 95)}
            for name, value in known.items() if len(value)}


def write_clips(directory: str | os.PathLike, clips: Iterable[Clip], *, encoding: str = "png",
                shard_size: int = 256, about: dict | None = None) -> dict:
    """Write clips to a new or replaced folder of records.

    Args:
        directory: output folder, created if missing. An earlier dataset in it is replaced.
        clips: any iterable, consumed once. All clips have the same picture size and margin.
        encoding: key of `ENCODINGS`. Use a lossless one for rendered frames, "jpeg" or "webp" for real frames.
        shard_size: clips per shard.
        about: further fields of dataset.json (JSON values).

    Returns:
        The content of dataset.json.

    Raises:
        InputError: no clip at all, clips of different sizes, or a folder that cannot be written.
    """
    directory = prepare_directory(directory)
    shape = None

    def checked():
        nonlocal shape
        for clip in clips:
            found = (*clip.frames.shape[1:3], clip.margin)
            shape = shape or found
            if found != shape:
                raise InputError(f"{directory}: expected clips of one size {shape[:2]} and margin {shape[2]}, found "
                                 f"{found[:2]} and {found[2]} ({clip.identity}); resize them first")
            yield write_record(clip, encoding)

    shards, stream = [], checked()
    try:
        while (first := next(stream, None)) is not None:
            shards.append(write_shard(directory / part_name(len(shards)), _take(first, stream, shard_size)))
    except BaseException:
        prepare_directory(directory)
        raise
    return finish_dataset(directory, shards, (shape or (0, 0))[:2], shape[2] if shape else 0,
                          {"encoding": encoding, **(about or {})})


def replace_records(directory: str | os.PathLike, records: Mapping[int, bytes], about: dict | None = None) -> dict:
    """Replace the records of some clips. Only their shards are written again, and appear together with the index.

    Args:
        directory: folder of a complete dataset.
        records: clip index -> new record, with the same picture size.
        about: further or changed fields of dataset.json.

    Returns:
        The new content of dataset.json.
    """
    clips = RecordedClips(directory)
    shards, parts = [], {}
    try:
        for number, rows in enumerate(clips.shards()):
            if any(row in records for row in rows):
                parts[number] = clips.directory / part_name(number)
                shards.append(write_shard(parts[number], (
                    records.get(row) or (clips.record(row), clips.outlines.complete(row)) for row in rows)))
            else:
                shards.append([clips.outlines.complete(row) for row in rows])
        counted = ("format", "clips", "frames", "people", "shards", "clips_with", "statistics")
        kept = {key: value for key, value in clips.about.items() if key not in counted}
        return _put_in_place(clips.directory, shards, {**kept, **(about or {})}, parts)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def refuse_to_replace(directory: str | os.PathLike) -> None:
    """Refuse a folder that already holds a dataset.

    Raises:
        InputError: the folder holds a dataset.
    """
    if os.path.exists(Path(directory) / ABOUT_FILE):
        raise InputError(f"{directory}: expected a folder without a dataset, found one; name another folder, or "
                         "replace the dataset with --overwrite")


def prepare_directory(directory: str | os.PathLike) -> Path:
    """Create the folder and delete what an interrupted call has left in it.

    A finished dataset in it stays complete until `finish_dataset` replaces it.

    Raises:
        InputError: the folder cannot be written.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for old in [*directory.glob(".part-*.tmp"), *directory.glob(".portrait_clips-*.tmp")]:
            old.unlink(missing_ok=True)
        remove_hidden_folders(directory)
    except (OSError, ValueError) as error:
        raise InputError(f"{cut(str(directory))}: expected a writable folder, found {reason_of(error)}; name another "
                         "folder") from error
    return directory


def _take(first: bytes, rest: Iterator[bytes], count: int) -> Iterator[bytes]:
    yield first
    for _, record in zip(range(count - 1), rest, strict=False):
        yield record
