"""A folder of clips: the TFDS dataset `portrait_clips`, one ArrayRecord example per clip (see `clip_record`).

    portrait_clips-train.array_record-00000-of-00003 ...   the shards
    dataset_info.json, features.json   metadata for tfds.builder_from_directory(folder).as_data_source()
    index.safetensors   per frame: share of each attribute kind and head pose; per clip: name, person, quality and
                        small masks of a few frames. Training chooses frames and expands other people's regions
                        with the index alone
    dataset.json        counts and statistics. It is written last, so a folder with this file is complete

`dataset_writer` writes it.
"""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from safetensors import SafetensorError

from durian_jax.data.about import ABOUT_FILE, read_about
from durian_jax.data.clip_outline import Outline
from durian_jax.data.clip_record import DecodeError, EncodedClip, load_parser, read_record
from durian_jax.data.outlines import Outlines
from durian_jax.data.shards import open_shard, read_row
from durian_jax.errors import InputError, cut
from durian_jax.faces.clip import Clip

INDEX_FILE = "index.safetensors"


def shard_name(number: int, count: int) -> str:
    """Return the file name of one of `count` shards."""
    return f"portrait_clips-train.array_record-{number:05d}-of-{count:05d}"


def read_shard(path: Path, row: int) -> bytes:
    """Read one record of a shard.

    Raises:
        DecodeError: a damaged shard or record.
    """
    return read_row(open_shard(path), path, row)


def find_dataset(directory: str | os.PathLike) -> Path:
    """Return the folder of a dataset.

    Raises:
        InputError: there is none.
    """
    folder = Path(directory)
    if not os.path.isfile(folder / ABOUT_FILE):
        found = f"a folder without {ABOUT_FILE}" if os.path.isdir(folder) else "no such folder"
        raise InputError(f"{cut(str(directory))}: expected a dataset, found {found}; `durian prepare` makes one from "
                         "videos, `durian synthesize` from procedural people")
    return folder


class RecordedClips:
    """Random access to a folder of records (a Grain data source).

    It pickles to its path only, so worker processes open their own files.
    """

    def __init__(self, directory: str | os.PathLike):
        """Open a dataset.

        Raises:
            InputError: the folder is not a complete dataset.
        """
        self.directory = find_dataset(directory)
        self.about = read_about(self.directory)
        try:
            self.outlines = Outlines(self.directory / INDEX_FILE)
            if len(self.outlines) != self.about["clips"]:
                raise ValueError(f"{len(self.outlines)} clips, {ABOUT_FILE} has {self.about['clips']}")
        except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
            raise InputError(f"{directory}: expected a folder of clip records with {ABOUT_FILE} and "
                             f"{INDEX_FILE}, found {cut(str(error))}; write it with `durian prepare` or "
                             "`durian synthesize`") from error
        self._shard_ends = self.outlines.shard_ends
        self._readers: dict[int, ArrayRecordReader] = {}
        for number in range(len(self._shard_ends)):
            if not os.path.isfile(self._shard(number)):
                raise InputError(f"{self._shard(number)}: expected {len(self._shard_ends)} shards, this one is "
                                 "missing; copy the dataset again")
        load_parser()

    def __reduce__(self):
        return RecordedClips, (str(self.directory),)

    def __repr__(self) -> str:
        return f"RecordedClips({str(self.directory)!r}, {len(self)} clips)"

    def __len__(self) -> int:
        return len(self.outlines)

    def shards(self) -> list[range]:
        """Return the range of clip indices of each shard."""
        return [range(int(a), int(b)) for a, b in zip([0, *self._shard_ends[:-1]], self._shard_ends, strict=True)]

    def outline(self, index: int) -> Outline:
        """Return a clip's outline from memory."""
        return self.outlines[index]

    def donor_frames(self, index: int) -> np.ndarray:
        """Return the (DONORS,) indices of a clip's donor frames, whose masks the index keeps."""
        return self.outlines.donor_frames[range(len(self))[index]]

    def donor(self, index: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Load a clip's `number`-th donor: (DONOR_SIZE, DONOR_SIZE) uint8 bit field and (K, 3) keypoints."""
        return self.outlines.donor(range(len(self))[index], number)

    @cached_property
    def fps(self) -> float:
        """Frames per second of the first readable clip.

        Raises:
            InputError: no clip is readable.
        """
        for index in range(len(self)):
            try:
                return self.open(index).fps
            except DecodeError:
                continue
        raise InputError(f"{self.directory}: expected readable records, found none; write the dataset again")

    def record(self, index: int) -> bytes:
        """Read the bytes of a clip.

        Raises:
            DecodeError: a damaged shard.
        """
        shard, row = self._find(index)
        if shard not in self._readers:
            self._readers[shard] = open_shard(self._shard(shard))
        return read_row(self._readers[shard], self._shard(shard), row)

    def open(self, index: int) -> EncodedClip:
        """Open a clip; its pictures are decoded on access.

        Raises:
            DecodeError: a damaged record.
        """
        shard, row = self._find(index)
        return read_record(self.record(index), f"{self._shard(shard)}, record {row}")

    def read(self, index: int, frames: Sequence[int] | None = None) -> Clip:
        """Decode a clip, or only some of its frames.

        Raises:
            DecodeError: a damaged record.
        """
        return self.open(index).clip(frames)

    def __getitem__(self, index: int) -> Clip:
        return self.read(index)

    def _shard(self, number: int) -> Path:
        return self.directory / shard_name(number, len(self._shard_ends))

    def _find(self, index: int) -> tuple[int, int]:
        """Return the shard and the row of a clip."""
        index = range(len(self))[index]
        shard = int(np.searchsorted(self._shard_ends, index, side="right"))
        return shard, index - (int(self._shard_ends[shard - 1]) if shard else 0)
