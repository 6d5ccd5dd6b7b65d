"""A folder of clips: ArrayRecord shards, one record a clip (see `record`).

    clips-00000.array_record ...   the shards
    index.safetensors              per frame and attribute kind the visible share of the picture, and
                                   who is who: enough to choose frames without opening a record
    dataset.json                   counts for people and for checks; written last: a folder that has
                                   it is complete
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from durian_jax.data.record import DecodeError, EncodedClip, Outline, outline, read_record, write_record
from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.files import atomic_file, write_json

FORMAT = "durian-clips-1"


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"clips-{number:05d}.array_record"


def write_shard(path: Path, clips: Iterable[Clip], encoding: str = "png") -> list[Outline]:
    """Writes one shard atomically; returns its clips' outlines in order, for `write_index`."""
    outlines = []
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # Pictures are compressed already. A group of one makes every record readable by itself.
    writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
    try:
        for clip in clips:
            writer.write(write_record(clip, encoding))
            outlines.append(outline(clip))
        writer.close()
        os.replace(temporary, path)
    except BaseException:
        if writer.is_open():
            writer.close()
        temporary.unlink(missing_ok=True)
        raise
    return outlines


def write_index(directory: Path, shards: Sequence[Sequence[Outline]], size: tuple[int, int],
                about: dict | None = None) -> dict:
    """Writes the index and dataset.json for shards 0.. already in place; returns dataset.json's content.

    dataset.json comes last: a folder that has it is complete.
    """
    outlines = [entry for shard in shards for entry in shard]
    if not outlines:
        raise InputError(f"{directory}: no clip to write; a dataset needs at least one")
    names, identities = np.unique([entry.identity for entry in outlines], return_inverse=True)
    index = {
        "ends": np.cumsum([len(entry) for entry in outlines]),
        "areas": np.concatenate([entry.areas for entry in outlines]).astype(np.float32),
        "identities": identities.astype(np.int32),
        "names": np.frombuffer("\n".join(names).encode(), np.uint8),
        "shard_sizes": np.array([len(shard) for shard in shards]),
    }
    with atomic_file(directory / "index.safetensors") as temporary:
        save_file(index, temporary)
    present = np.array([(entry.areas > 0).any(0) for entry in outlines])
    content = {
        "format": FORMAT, "clips": len(outlines), "frames": int(index["ends"][-1]),
        "height": int(size[0]), "width": int(size[1]), "people": len(names), "shards": len(shards),
        "clips_with": {kind: int(n) for kind, n in zip(ATTRIBUTE_KINDS, present.sum(0), strict=True)},
        **(about or {}),
    }
    write_json(directory / "dataset.json", content)
    return content


def write_clips(directory: str | os.PathLike, clips: Iterable[Clip], *, encoding: str = "png",
                shard_size: int = 256, about: dict | None = None) -> dict:
    """Writes clips into a new or replaced folder of records.

    Args:
        directory: made if missing; an earlier dataset in it is replaced.
        clips: any iterable, consumed once, all of one picture size.
        encoding: key of `ENCODINGS`: lossless for drawn frames, "jpeg" or "webp" for real ones.
        shard_size: clips a shard.
        about: further fields of dataset.json (JSON values).

    Returns:
        The content of dataset.json.

    Raises:
        InputError: no clip at all, clips of different sizes, or a folder that cannot be written.
    """
    directory = prepare_directory(directory)
    size = None

    def checked():
        nonlocal size
        for clip in clips:
            size = size or clip.frames.shape[1:3]
            if clip.frames.shape[1:3] != size:
                raise InputError(f"{directory}: expected clips of one size {size}, found "
                                 f"{clip.frames.shape[1:3]} ({clip.identity}); resize them first")
            yield clip

    shards, stream = [], checked()
    while True:
        first = next(stream, None)
        if first is None:
            break
        shards.append(write_shard(directory / shard_name(len(shards)), _take(first, stream, shard_size),
                                  encoding))
    return write_index(directory, shards, size or (0, 0), {"encoding": encoding, **(about or {})})


def refuse_to_replace(directory: str | os.PathLike) -> None:
    """Raises InputError where the folder holds a dataset already."""
    if (Path(directory) / "dataset.json").exists():
        raise InputError(f"{directory} holds records already; name another folder, or replace them with --overwrite")


def prepare_directory(directory: str | os.PathLike) -> Path:
    """Makes the folder and takes an earlier or unfinished dataset out of it, dataset.json first."""
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for old in [*(directory / name for name in ("dataset.json", "index.safetensors", "report.json",
                                                    "rejected.jsonl")),
                    *directory.glob("clips-*.array_record"), *directory.glob(".*.tmp")]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{directory}: expected a folder that can be written, found {error}; "
                         f"choose another") from error
    return directory


class RecordedClips:
    """Random access to a folder of records (a Grain data source over `EncodedClip`s).

    Pickles to its path only, so that it travels to worker processes.
    """

    def __init__(self, directory: str | os.PathLike):
        """Raises InputError when the folder is not a complete dataset."""
        self.directory = Path(directory)
        try:
            self.about = json.loads((self.directory / "dataset.json").read_text())
            index = load_file(self.directory / "index.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"{directory}: expected a folder of clip records with dataset.json and "
                             f"index.safetensors, found {error}; write it with `durian prepare` or "
                             f"`durian synthesize`") from error
        if self.about.get("format") != FORMAT:
            raise InputError(f"{directory}/dataset.json: expected format {FORMAT}, found "
                             f"{self.about.get('format')!r}; write the records again")
        self._ends, self._areas = index["ends"], index["areas"]
        self._names = index["names"].tobytes().decode().split("\n")
        self._identities = index["identities"]
        self._shard_ends = np.cumsum(index["shard_sizes"])
        self._readers = {}
        for number in range(len(self._shard_ends)):
            if not (self.directory / shard_name(number)).is_file():
                raise InputError(f"{self.directory / shard_name(number)}: missing, dataset.json counts "
                                 f"{len(self._shard_ends)} shards; copy it again")

    def __reduce__(self):
        return RecordedClips, (str(self.directory),)

    def __repr__(self) -> str:
        return f"RecordedClips({str(self.directory)!r}, {len(self)} clips)"

    def __len__(self) -> int:
        return len(self._ends)

    def outline(self, index: int) -> Outline:
        """Frame count, attribute areas and identity of a clip, from memory."""
        begin = int(self._ends[index - 1]) if index else 0
        return Outline(self._areas[begin:int(self._ends[index])], self._names[self._identities[index]])

    def open(self, index: int) -> EncodedClip:
        """The clip with its pictures still compressed.

        Raises:
            DecodeError: damaged record.
        """
        index = range(len(self))[index]
        shard = int(np.searchsorted(self._shard_ends, index, side="right"))
        row = index - (int(self._shard_ends[shard - 1]) if shard else 0)
        name = f"{self.directory / shard_name(shard)}, record {row}"
        try:
            if shard not in self._readers:
                self._readers[shard] = ArrayRecordReader(
                    str(self.directory / shard_name(shard)),
                    "readahead_buffer_size:0,max_parallelism:0", file_reader_buffer_size=32768)
            record = self._readers[shard].read([row])[0]
        except (RuntimeError, ValueError, IndexError) as error:
            raise DecodeError(f"{name}: {error}") from error
        return read_record(record, name)

    def read(self, index: int, frames: Sequence[int] | None = None) -> Clip:
        """The decoded clip, or only some of its frames.

        Raises:
            DecodeError: damaged record.
        """
        return self.open(index).clip(frames)

    def __getitem__(self, index: int) -> Clip:
        return self.read(index)


def _take(first: Clip, rest: Iterable[Clip], count: int) -> Iterable[Clip]:
    yield first
    for _, clip in zip(range(count - 1), rest, strict=False):
        yield clip
