"""A folder of encoded samples: `durian encode` writes it, training reads it instead of clips.

    samples-00000-of-00040.array_record ...   one sample per record: its fields as safetensors
    plan.json           settings of the samples; written first
    probe.safetensors   outputs of the encoders for a known picture, to detect other weights
    dataset.json        written last: a folder that has it is complete
"""

import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from safetensors import SafetensorError
from safetensors.numpy import load, load_file, save

from durian_jax.data.clip_record import DecodeError
from durian_jax.data.shards import open_shard, read_row, shard_writer
from durian_jax.errors import InputError, cut, listed, shown
from durian_jax.fields import Count, check_fields, in_file, read_fields
from durian_jax.files import read_json

FORMAT = "encoded_samples-1"


def shard_name(number: int, count: int) -> str:
    """File name of one of `count` shards."""
    return f"samples-{number:05d}-of-{count:05d}.array_record"


def write_samples(path: Path, samples: Iterable[Mapping[str, np.ndarray]]) -> None:
    """Write one shard atomically.

    Args:
        samples: the fields of each sample: the model's `batch_spec(encoded=True)` without B.
    """
    with shard_writer(path) as write:
        for sample in samples:
            write(save({name: np.ascontiguousarray(x) for name, x in sample.items()}))


def find_samples(directory: str | os.PathLike) -> Path:
    """Return the path of dataset.json of encoded samples.

    Raises:
        InputError: the folder holds no encoded samples, or an unfinished set.
    """
    path = Path(directory) / "dataset.json"
    if not os.path.isfile(path):
        unfinished = os.path.isfile(path.parent / "plan.json")
        raise InputError(f"{cut(str(directory))}: expected encoded samples (dataset.json), found "
                         + ("an unfinished set; repeat `durian encode` with the same arguments" if unfinished
                            else "none; write them with `durian encode`"))
    return path


@dataclass(frozen=True)
class _Plan:
    """The fields of plan.json and dataset.json."""

    format: str
    samples: Count
    samples_per_shard: Count
    seed: int
    source: Mapping
    data: Mapping
    model: Mapping

    def __post_init__(self):
        check_fields(self)


def read_plan(path: Path, advice: str) -> dict[str, Any]:
    """Return the fields of plan.json or dataset.json.

    Args:
        path: of the file.
        advice: what to do with a damaged file, for the error.

    Raises:
        InputError: a damaged file or another format; names the field.
    """
    values = read_json(path, advice)
    if values.get("format") != FORMAT:
        raise InputError(f"{path}: expected samples of the format {FORMAT}, found {shown(values.get('format'))}; "
                         f"{advice}")
    with in_file(path, advice):
        read_fields(_Plan, values)
    return values


class EncodedSamples:
    """Random access to a folder of encoded samples (a Grain data source).

    Attributes:
        about: content of dataset.json.
        probe: name -> output of each encoder for the known picture.

    Raises:
        InputError: the folder holds no encoded samples, or some are missing.
    """

    def __init__(self, directory: str | os.PathLike):
        path = find_samples(directory)
        self.directory = path.parent
        self.about = read_plan(path, "write it again with `durian encode`")
        try:
            self.probe = load_file(self.directory / "probe.safetensors")
        except (OSError, SafetensorError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{directory}/probe.safetensors is damaged: {cut(str(error))}; write the samples again "
                             "with `durian encode`") from error
        self._length, self._per_shard = self.about["samples"], self.about["samples_per_shard"]
        count = -(-self._length // self._per_shard)
        present = {path.name for path in self.directory.iterdir()}
        expected = (shard_name(i, count) for i in range(count))
        missing = list(islice((name for name in expected if name not in present), 6))
        if missing:
            raise InputError(f"{directory}: {count} shards expected, missing {listed(missing)}; repeat `durian encode` "
                             "with the same arguments")
        self._paths = [self.directory / shard_name(i, count) for i in range(count)]
        self._readers: dict[int, ArrayRecordReader] = {}
        self._lock = threading.Lock()

    def __reduce__(self):  # every worker process opens the files itself
        return EncodedSamples, (self.directory,)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """One sample, see `write_samples`.

        Raises:
            DecodeError: a damaged record.
        """
        shard, row = divmod(int(index), self._per_shard)
        path = self._paths[shard]
        with self._lock:
            if shard not in self._readers:
                self._readers[shard] = open_shard(path)
            data = read_row(self._readers[shard], path, row)
        try:
            return load(data)
        except (SafetensorError, TypeError, ValueError, AttributeError) as error:
            raise DecodeError(f"{path}, record {row}: {error}") from error
