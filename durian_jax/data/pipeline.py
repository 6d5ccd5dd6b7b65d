"""Clips to batches with Grain: shuffled, repeated, sampled, sharded over hosts, resumable."""

import ctypes
import platform
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import cv2
import grain
import numpy as np
from absl import flags

from durian_jax.data.clip_record import DecodeError
from durian_jax.data.samples.config import DataConfig
from durian_jax.data.samples.durian import sample_pair
from durian_jax.data.sources import ClipSource
from durian_jax.errors import InputError


def tune_process() -> None:
    """Settings of this process for making batches: one thread an operation, and memory that is kept.

    Pictures are small: work is parallel over samples, not inside one warp. And glibc gives the memory of every
    picture back to the system at once, only to ask for it again: half the time of a sample would be page faults.
    """
    cv2.setNumThreads(1)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 512 << 20)


# Numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


class DamagedRecord(UserWarning):
    """A record was skipped, another took its place."""


class SkippingSampler:
    """Index and random numbers to a sample; replaces undecodable records and counts them.

    A replacement is drawn from the sample's own random numbers, so that batches keep their size and
    every host agrees on them, whatever is damaged.

    Args:
        make: index and random numbers to a sample, or DecodeError.
        count: number of records.
        max_failures: more undecodable records than so many, or all there are, end the run with an InputError.
    """

    def __init__(self, make: Callable[[int, np.random.Generator], dict], count: int, max_failures: int):
        tune_process()  # here, because worker processes come by here too
        self._make, self._count, self._max_failures = make, count, max_failures
        self._damaged: set[int] = set()  # records that this process has met
        self._lock = threading.Lock()

    def __reduce__(self):  # worker processes get a lock and a count of their own
        return SkippingSampler, (self._make, self._count, self._max_failures)

    def __call__(self, index: int, rng: np.random.Generator) -> dict:
        index = int(index)
        while True:
            try:
                return self._make(index, rng)
            except DecodeError as error:
                with self._lock:
                    known = index in self._damaged
                    self._damaged.add(index)
                if not known:
                    warnings.warn(f"a damaged record is skipped, the {len(self._damaged)}. one: {error}",
                                  DamagedRecord, stacklevel=2)
                if len(self._damaged) > min(self._max_failures, self._count - 1):
                    raise InputError(f"{len(self._damaged)} of {self._count} records cannot be decoded, the last: "
                                     f"{error}; write the dataset again or raise max_failures "
                                     f"({self._max_failures})") from error
                index = int(rng.integers(self._count))


def make_loader(source: ClipSource, config: DataConfig, *, seed: int, batch_size: int,
                num_epochs: int | None = None, shard_index: int | Sequence[int] = 0, shard_count: int = 1,
                worker_count: int = 0, threads: int = 2, prefetch: int = 4) -> grain.IterDataset:
    """The batches of a run; `iter()` of it has `get_state` / `set_state` to go on bit for bit.

    One seed gives the same stream of samples for any number of hosts, threads and processes: host h of H takes the
    h-th part of every batch, so that all hosts' batch i, one after the other, is the one host's batch i.

    Args:
        source: where clips come from.
        config: how samples are made.
        seed: of order and of all random choices.
        batch_size: of this host.
        num_epochs: passes over the source, differently shuffled and sampled; None = for ever.
        shard_index: which part of every batch this host makes; several where its devices do not lie side by side
            in the mesh (`training.sharding.Layout.host_parts`).
        shard_count: number of parts of a batch.
        worker_count: processes that make batches; 0 makes them in threads of this one.
        threads: threads that make batches (in each process).
        prefetch: batches made ahead (by each process).

    Returns:
        An IterDataset of dicts of numpy arrays, the fields of `sample_pair` with a leading B.

    Raises:
        InputError: numbers that do not fit together; while iterating, too many undecodable records.
    """
    parts = _parts(shard_index)
    if not parts or not all(0 <= part < shard_count for part in parts):
        raise InputError(f"loader: expected 0 <= shard_index < shard_count, found {shard_index} and "
                         f"{shard_count}; pass jax.process_index() and jax.process_count()")
    whole = batch_size // len(parts) * shard_count
    if batch_size < 1 or batch_size % len(parts) or (num_epochs is not None and len(source) * num_epochs < whole):
        raise InputError(f"loader: expected at least one batch, found {batch_size} x {shard_count} "
                         f"hosts for {len(source)} clips and {num_epochs} epochs; lower batch_size")
    samples = make_samples(source, config, seed, num_epochs)
    if num_epochs is not None:  # no host may have a batch more than the others: they would wait for ever
        samples = samples[:len(samples) // whole * whole]
    return batch_samples(samples, batch_size, shard_index, shard_count, worker_count, threads, prefetch)


def make_samples(source: ClipSource, config: DataConfig, seed: int, num_epochs: int | None = None) -> grain.MapDataset:
    """The samples of a run by their number: shuffled clips, each with the random numbers of its place."""
    return (grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat(num_epochs)
            .random_map(SkippingSampler(partial(sample_pair, source, config=config), len(source),
                                        config.max_failures)))


def _parts(shard_index: int | Sequence[int]) -> tuple[int, ...]:
    return (shard_index,) if isinstance(shard_index, int) else tuple(shard_index)


class _HostBatches:
    """A host's parts of every batch, one after the other (a Grain data source)."""

    def __init__(self, batches: grain.MapDataset, parts: tuple[int, ...], count: int):
        self._batches, self._parts, self._count = batches, parts, count

    def __len__(self) -> int:
        return len(self._batches) // self._count

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        made = [self._batches[index * self._count + part] for part in self._parts]
        return {name: np.concatenate([part[name] for part in made]) for name in made[0]}


def batch_samples(samples: grain.MapDataset, batch_size: int, shard_index: int | Sequence[int] = 0,
                  shard_count: int = 1, worker_count: int = 0, threads: int = 2, prefetch: int = 4
                  ) -> grain.IterDataset:
    """One host's batches of samples; arguments as in `make_loader`."""
    parts = _parts(shard_index)
    # Samples keep their global numbers, so that their random numbers do not depend on who makes them.
    batches = samples.batch(batch_size // len(parts), drop_remainder=True)
    if len(parts) == 1:
        batches = batches[parts[0]::shard_count]
    elif len(parts) < shard_count or parts != tuple(range(shard_count)):
        batches = grain.MapDataset.source(_HostBatches(batches, parts, shard_count))
    else:
        batches = samples.batch(batch_size, drop_remainder=True)
    loader = batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch))
    if worker_count:
        if not flags.FLAGS.is_parsed():  # Grain reads flags of its own; a program without absl parses none
            flags.FLAGS.mark_as_parsed()
        loader = loader.mp_prefetch(grain.MultiprocessingOptions(num_workers=worker_count))
    return loader
