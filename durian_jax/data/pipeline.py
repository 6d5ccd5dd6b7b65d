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
from durian_jax.data.encoded_samples import EncodedSamples
from durian_jax.data.samples.config import SampleConfig
from durian_jax.data.sources import ClipSource
from durian_jax.errors import InputError


def tune_process() -> None:
    """Tune this process for making batches: one thread per operation, and freed memory stays in the process.

    Pictures are small, so work is parallel over samples and not inside one warp. glibc would return the memory of
    every picture to the system and request it again: half of a sample's time would be page faults.
    """
    cv2.setNumThreads(1)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 512 << 20)


# Option numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


class DamagedRecord(UserWarning):
    """A damaged record was replaced by another one."""


class SkippingSampler:
    """Make a sample from an index and random numbers; replace and count undecodable records.

    A replacement is drawn from the sample's own random numbers, so batches keep their size and all hosts agree on
    them, whatever is damaged.

    Args:
        make: index and random numbers -> a sample; may raise DecodeError.
        count: number of records.
        max_failures: number of undecodable records after which the run ends with an InputError; it also ends when
            no record can be decoded.
    """

    def __init__(self, make: Callable[[int, np.random.Generator], dict], count: int, max_failures: int):
        tune_process()  # here, because worker processes construct samplers too
        self._make, self._count, self._max_failures = make, count, max_failures
        self._damaged: set[int] = set()  # damaged records that this process has read
        self._lock = threading.Lock()

    def __reduce__(self):  # every worker process has its own lock and count
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
                    warnings.warn(f"damaged record {len(self._damaged)} is skipped: {error}",
                                  DamagedRecord, stacklevel=2)
                if len(self._damaged) > min(self._max_failures, self._count - 1):
                    raise InputError(f"{len(self._damaged)} of {self._count} records cannot be decoded, the last: "
                                     f"{error}; write the dataset again or raise max_failures "
                                     f"({self._max_failures})") from error
                index = int(rng.integers(self._count))


def make_loader(source: ClipSource, config: SampleConfig, *, seed: int, batch_size: int,
                num_epochs: int | None = None, shard_index: int | Sequence[int] = 0, shard_count: int = 1,
                worker_count: int = 0, threads: int = 2, prefetch: int = 4) -> grain.IterDataset:
    """Return the batches of a run; `iter()` of them has `get_state` and `set_state` for exact resume.

    One seed gives the same stream of samples for any number of hosts, threads and processes: host h of H loads the
    h-th part of every batch.

    Args:
        source: where clips come from.
        config: how samples are made.
        seed: of the order and of all random choices.
        batch_size: of this host.
        num_epochs: number of passes over the source, each shuffled and sampled differently; None: endless.
        shard_index: the part of every batch that this host loads; several parts if its devices are not neighbours in
            the mesh (`training.sharding.Layout.host_parts`).
        shard_count: number of parts of a batch.
        worker_count: number of processes that make batches; 0: threads of this process make them.
        threads: number of threads that make batches, per process.
        prefetch: number of batches made ahead, per process.

    Returns:
        An IterDataset of dicts of numpy arrays: the fields of `config.sample` with a leading B.

    Raises:
        InputError: numbers that contradict each other; while iterating, too many undecodable records.
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
    if num_epochs is not None:  # all hosts need the same number of batches, or some would wait forever
        samples = samples[:len(samples) // whole * whole]
    return batch_samples(samples, batch_size, shard_index, shard_count, worker_count, threads, prefetch)


def make_samples(source: ClipSource, config: SampleConfig, seed: int, num_epochs: int | None = None
                 ) -> grain.MapDataset:
    """Return the samples of a run by number: shuffled clips, each with its own random numbers."""
    return (grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat(num_epochs)
            .random_map(SkippingSampler(partial(config.sample, source), len(source),
                                        config.max_failures)))


def _parts(shard_index: int | Sequence[int]) -> tuple[int, ...]:
    return (shard_index,) if isinstance(shard_index, int) else tuple(shard_index)


class _HostBatches:
    """A host's parts of every batch, concatenated (a Grain data source)."""

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
    """Return one host's batches of samples; arguments as in `make_loader`."""
    parts = _parts(shard_index)
    # Samples keep their global numbers, so their random numbers do not depend on the host.
    batches = samples.batch(batch_size // len(parts), drop_remainder=True)
    if len(parts) == 1:
        batches = batches[parts[0]::shard_count]
    elif len(parts) < shard_count or parts != tuple(range(shard_count)):
        batches = grain.MapDataset.source(_HostBatches(batches, parts, shard_count))
    else:
        batches = samples.batch(batch_size, drop_remainder=True)
    loader = batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch))
    if worker_count:
        if not flags.FLAGS.is_parsed():  # Grain reads absl flags, which a program without absl never parses
            flags.FLAGS.mark_as_parsed()
        loader = loader.mp_prefetch(grain.MultiprocessingOptions(num_workers=worker_count))
    return loader


def _stored(source: EncodedSamples, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return source[index]


def make_encoded_loader(source: EncodedSamples, *, seed: int, batch_size: int, max_failures: int = 100,
                        shard_index: int | Sequence[int] = 0, shard_count: int = 1, worker_count: int = 0
                        ) -> grain.IterDataset:
    """Return endless batches of encoded samples, with the guarantees of `make_loader`.

    Raises:
        InputError: while iterating, too many undecodable records.
    """
    reader = SkippingSampler(partial(_stored, source), len(source), max_failures)
    samples = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat().random_map(reader)
    return batch_samples(samples, batch_size, shard_index, shard_count, worker_count)
