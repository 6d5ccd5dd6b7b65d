"""Procedural clips written to records, because decoding is faster than rendering during training."""

import multiprocessing
import os
from pathlib import Path

from durian_jax.data.clip_outline import Outline
from durian_jax.data.clip_record import Provenance, write_record
from durian_jax.data.dataset_writer import finish_dataset, part_name, prepare_directory, write_shard
from durian_jax.data.sources import SyntheticClips
from durian_jax.errors import InputError
from durian_jax.files import created_folder
from durian_jax.interruption import ignore_interrupts
from durian_jax.progress import progress_bar


def synthesize(directory: str | os.PathLike, split: str, clips: int, frames: int, size: int, *,
               first: int = 0, fps: float = 25.0, workers: int = 2, shard_size: int = 128,
               encoding: str = "png", drivers: bool = False) -> dict:
    """Render clips `first` .. `first + clips - 1` of a split to a folder of records.

    The bytes do not depend on the number of workers.

    Args:
        directory: output folder. An earlier dataset in it is replaced when the new one is complete.
        split: "train", "validation" or "benchmark".
        clips: number of clips, one person each.
        frames: T of each clip.
        size: H = W in pixels.
        first: index of the first person in the split.
        fps: frames per second of the motion.
        workers: number of worker processes. 0 renders in this process.
        shard_size: clips per shard. A worker renders one shard at a time.
        encoding: key of `clip_record.ENCODINGS`.
        drivers: also draw another person who makes the same motion, for models driven by pixels.

    Returns:
        The content of dataset.json.

    Raises:
        InputError: no such frame rate, or a folder that cannot be written.
        DiskFull: the disk is full.
    """
    if not 0 < fps <= 1000:
        raise InputError(f"fps: expected frames per second, above 0 and at most 1000, found {fps:g}")
    with created_folder(Path(directory)):
        directory = prepare_directory(directory)
        try:
            return _draw(directory, split, clips, frames, size, first, fps, workers, shard_size, encoding, drivers)
        except BaseException:
            prepare_directory(directory)
            raise


def _draw(directory: Path, split: str, clips: int, frames: int, size: int, first: int, fps: float, workers: int,
          shard_size: int, encoding: str, drivers: bool) -> dict:
    jobs = [(str(directory / part_name(number)), split, first + start, min(shard_size, clips - start),
             frames, size, fps, encoding, drivers)
            for number, start in enumerate(range(0, clips, shard_size))]
    shards: list[list[Outline]] = []
    with progress_bar(total=clips, unit="clip", desc=f"drawing {split}") as bar:
        def collect(results):
            for outlines in results:  # in the order of the jobs
                shards.append(outlines)
                bar.update(len(outlines))

        if workers:
            # Spawn, not fork: this process may already run JAX threads.
            with multiprocessing.get_context("spawn").Pool(min(workers, len(jobs)), ignore_interrupts) as pool:
                collect(pool.imap(_draw_shard, jobs))
        else:
            collect(map(_draw_shard, jobs))
    return finish_dataset(directory, shards, (size, size), 0, {
        "encoding": encoding, "split": split, "first": first, "frames_per_clip": frames, "fps": fps,
        "drivers": drivers})


def _draw_shard(job: tuple) -> list[Outline]:
    import cv2

    cv2.setNumThreads(1)  # the workers already use all cores
    path, split, first, count, frames, size, fps, encoding, drivers = job
    source = SyntheticClips(split, count, frames, size, offset=first, fps=fps, keep=1, drivers=drivers)
    return write_shard(Path(path), (
        write_record(source[i], encoding, Provenance(name=f"{split}-{first + i}")) for i in range(count)))
