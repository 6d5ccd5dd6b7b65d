"""Self-attribute transfer on recorded clips: the papers' own measure, and all that real people allow.

A clip's first frame is the portrait and its last frame wears the attribute; the frames between are to be
found again from their keypoints (Durian, table 1). The truth is known, but the attribute is the
portrait's own, so that the figures say little about transfer (Durian, ablations).
"""

from functools import partial
from pathlib import Path

import numpy as np

from durian_jax.data import DataConfig, RecordedClips
from durian_jax.data.clip_record import DecodeError
from durian_jax.errors import InputError
from durian_jax.evaluation.transfer import CaseMaker, TransferCase
from durian_jax.faces.topology import ATTRIBUTE_KINDS

# Share of the picture from which an attribute counts as worn, as in training.
_WORN = DataConfig().minimum_area


def reconstruction_cases(folder: str | Path, count: int, frames: int, size: int) -> dict[str, list[CaseMaker]]:
    """Kind -> a clip of each of the first `count` people who show it throughout.

    One clip a person, so that the cases of a kind are independent. The kinds are not: they share people.

    Args:
        folder: records of people whom the model has not been trained on.
        count: people of each kind, at most.
        frames: frames of each clip to find again, evenly spaced.
        size: H = W in pixels that the model makes.

    Raises:
        InputError: no records, records of another size, or none that is long enough and shows an attribute. When
            a case is made: a damaged record.
    """
    clips = RecordedClips(folder)
    height, width = (clips.about[side] - 2 * clips.about["margin"] for side in ("height", "width"))
    if (height, width) != (size, size):
        raise InputError(f"{folder}: expected pictures of {size} x {size} px as the checkpoint makes, found "
                         f"{width} x {height}; prepare the clips with --size {size}")
    cases = {}
    for column, kind in enumerate(ATTRIBUTE_KINDS):
        first = {}  # identity -> its first clip that shows the kind
        for index in range(len(clips)):
            outline = clips.outline(index)
            if len(outline) >= frames + 2 and outline.areas[:, column].min() >= _WORN:
                first.setdefault(outline.identity, index)
        if first:
            cases[kind] = [partial(reconstruction_case, clips, index, kind, frames)
                           for index in list(first.values())[:count]]
    if not cases:
        raise InputError(f"{folder}: expected clips of at least {frames + 2} frames that show an attribute throughout, "
                         f"found none among {len(clips)}; ask for fewer --frames or prepare other clips")
    return cases


def reconstruction_case(clips: RecordedClips, index: int, kind: str, frames: int) -> TransferCase:
    """The question that one clip answers; `frames` frames strictly between its first and its last."""
    try:
        clip = clips[index].view()
    except DecodeError as error:
        raise InputError(f"damaged record {error}; prepare the clips again") from error
    between = np.linspace(0, len(clip) - 1, frames + 2).round().astype(int)[1:-1]
    truth = clip[between]
    return TransferCase(portrait=clip[:1], attributes=((kind, clip[-1:]),), driving=truth, truth=truth)
