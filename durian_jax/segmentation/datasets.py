"""Training examples from datasets with corrected masks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from durian_jax.data.clip_record import DecodeError
from durian_jax.data.recorded_clips import RecordedClips
from durian_jax.errors import InputError
from durian_jax.progress import SHORT, progress_bar, say
from durian_jax.segmentation.examples import Example, example_of
from durian_jax.segmentation.eye_examples import EyeExample, eye_example, glasses_worn

_FRAMES = 4  # of a clip, far apart
_MOST = 4000  # examples, of 0.2 MB each
_DAMAGED = 0.1  # largest share of clips that cannot be read


def examples_of_datasets(datasets: Sequence[str | Path], seed: int = 0
                         ) -> tuple[list[Example], list[list[EyeExample]]]:
    """Read training examples: up to 4 frames of each clip, and at most 4,000 in all, chosen at random.

    Clips that cannot be read are left out and counted, and so are clips without the person's outline.

    Args:
        datasets: folders of records with pictures.
        seed: of the random choice.

    Returns:
        The heads, and the eyes of each person.

    Raises:
        InputError: no dataset is given, a folder is not a dataset, over a tenth of the clips are unreadable, or none
            has the person's outline.
    """
    if not datasets:
        raise InputError("expected at least one dataset, got none; `durian prepare` makes one from videos")
    places = [(source, index) for source in map(RecordedClips, datasets) for index in range(len(source))]
    order = np.random.default_rng(seed).permutation(len(places))[:max(1, _MOST // _FRAMES)]
    examples, eyes, damaged, bare = [], {}, 0, 0
    for source, index in progress_bar([places[number] for number in order], desc="reading clips", unit="clip",
                                      leave=False, delay=SHORT):
        try:
            clip = source.read(index).view()
        except DecodeError as error:
            damaged += 1
            if damaged > _DAMAGED * len(order):
                raise InputError(f"{source.directory}: more than a tenth of the clips cannot be read; the last reason: "
                                 f"{error}") from error
            continue
        if not clip.mask("person").any():  # procedural people have none
            bare += 1
            continue
        chosen = np.unique(np.linspace(0, len(clip) - 1, _FRAMES).round().astype(int))
        examples += [example_of(clip, int(number)) for number in chosen]
        for number in chosen:
            frame, points = clip.frames[number], clip.keypoints[number]
            eyes.setdefault((source.directory, clip.identity), []).append(
                eye_example(frame, points, glasses_worn(clip.mask("glasses")[number], points)))
    if not examples:
        raise InputError(f"expected clips with the person's outline, found none among {len(order)}; `durian prepare` "
                         "makes them from videos")
    for count, why in ((damaged, "cannot be read"), (bare, "have no outline of the person")):
        if count:
            say(f"durian: {count} of {len(order)} clips {why} and are left out")
    return examples, list(eyes.values())
