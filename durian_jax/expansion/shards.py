"""Work on a dataset shard by shard; dataset.json says how far it has come, so that a killed call continues."""

import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from durian_jax.data.about import ABOUT_FILE
from durian_jax.data.clip_record import DecodeError
from durian_jax.data.dataset_writer import replace_records
from durian_jax.data.recorded_clips import RecordedClips
from durian_jax.errors import InputError, shown
from durian_jax.progress import progress_bar

# Makes the new records of a shard, row -> record, and their counts; it updates the bar for each clip.
ShardWork = Callable[[range, tqdm], tuple[Mapping[int, bytes], Counter]]


def progress_of(clips: RecordedClips, entry: str, settings: dict[str, Any], counts: dict[str, Any], overwrite: bool
                ) -> dict:
    """The entry of dataset.json to continue from.

    Args:
        clips: the dataset.
        entry: name of the entry.
        settings: of this call.
        counts: numbers to count, at zero: `clips`, and groups of further numbers.
        overwrite: begin again.

    Raises:
        InputError: the dataset was worked on with other settings, or its entry is damaged.
    """
    found = clips.about.get(entry)
    if found is None or overwrite:
        return {**settings, "overwrite": overwrite, "shards": 0, **counts}
    if not _fits({"overwrite": False, "shards": 0, **counts}, found) or found["shards"] > len(clips.shards()):
        raise InputError(f"{clips.directory / ABOUT_FILE}: {entry}: expected the progress of an earlier call, found "
                         f"{shown(found)}; begin again with --overwrite")
    other = [f"{key} {found.get(key)}, not {value}" for key, value in settings.items() if found.get(key) != value]
    if other:
        raise InputError(f"{clips.directory} was {entry} with other settings ({'; '.join(other)}); repeat the first "
                         "settings to continue, or replace the results with --overwrite")
    return found


def _fits(counts: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether an object has these numbers, switches and groups of numbers."""
    return all(isinstance(found.get(name), dict) and _fits(value, found[name]) if isinstance(value, dict)
               else type(found.get(name)) is type(value) and found[name] >= 0 for name, value in counts.items())


def work_through(clips: RecordedClips, entry: str, progress: dict, work: ShardWork, label: str) -> dict:
    """Replace the records of the shards that are left, each shard atomically.

    Args:
        clips: the dataset.
        entry: name of the entry of dataset.json.
        progress: the entry so far.
        work: makes the records of a shard.
        label: of the progress bar.

    Returns:
        The entry after the last shard.
    """
    shards = list(enumerate(clips.shards()))[progress["shards"]:]
    with progress_bar(desc=label, unit="clip", total=sum(len(rows) for _, rows in shards)) as bar:
        for number, rows in shards:
            records, counts = work(rows, bar)
            done = _after(progress, counts)
            try:
                replace_records(clips.directory, records, {entry: done})
            except DecodeError as error:
                # A skipped clip is damaged so badly that its neighbours cannot be copied either.
                warnings.warn(f"{error}; shard {number} stays as it is", stacklevel=2)
                done = _after(progress, Counter(damaged=len(rows)))
                replace_records(clips.directory, {}, {entry: done})
            progress = done
    return progress


def _after(progress: dict, counts: Counter) -> dict:
    """The entry after one more shard."""
    groups = {name: {key: number + counts[key] for key, number in group.items()}
              for name, group in progress.items() if isinstance(group, dict)}
    return {**progress, **groups, "shards": progress["shards"] + 1, "clips": progress["clips"] + counts["clips"]}


def clip_rng(seed: int, *words: str) -> np.random.Generator:
    """Random numbers that depend on a seed and on names only."""
    return np.random.default_rng([seed, *(zlib.crc32(word.encode()) for word in words)])
