"""Self-attribute transfer on recorded clips (arXiv 2509.04434, table 1).

The first frame of a clip is the portrait and the last frame shows the attribute. The model reconstructs
the frames between them from their keypoints. Recorded clips of real people have no other exact answer.
The attribute is the portrait's own, so the scores say little about transfer between people
(arXiv 2509.04434, ablations).
"""

from functools import partial
from pathlib import Path

import numpy as np

from durian_jax.data.clip_record import DecodeError
from durian_jax.data.recorded_clips import RecordedClips
from durian_jax.errors import InputError
from durian_jax.evaluation.transfer import CaseMaker, TransferCase
from durian_jax.faces.topology import ATTRIBUTE_KINDS, SHOWN_AREA


def reconstruction_cases(folder: str | Path, count: int, frames: int, size: int) -> dict[str, list[CaseMaker]]:
    """Select, for each kind, one clip of each of the first `count` people who show it in all frames.

    Each person has one case per kind, so the cases of a kind are independent. Cases of different kinds are
    not, because a person may show several kinds.

    Args:
        folder: records of people who are not in the training data.
        count: maximum number of people per kind.
        frames: number of frames to reconstruct per clip, evenly spaced.
        size: H = W of the model's output in pixels.

    Returns:
        Kind -> functions that make its cases. Kinds without a clip are missing.

    Raises:
        InputError: the folder has no records, the records have another size, or no clip is long enough and
            shows an attribute. A damaged record raises when its case is made.
    """
    clips = RecordedClips(folder)
    height, width = (clips.about[side] - 2 * clips.about["margin"] for side in ("height", "width"))
    if (height, width) != (size, size):
        raise InputError(f"{folder}: expected pictures of {size} x {size} px, the checkpoint's size, found "
                         f"{width} x {height}; prepare the clips with --size {size}")
    cases = {}
    for column, kind in enumerate(ATTRIBUTE_KINDS):
        first = {}  # identity -> its first clip that shows the kind
        for index in range(len(clips)):
            outline = clips.outline(index)
            if len(outline) >= frames + 2 and outline.areas[:, column].min() >= SHOWN_AREA:
                first.setdefault(outline.identity, index)
        if first:
            cases[kind] = [partial(reconstruction_case, clips, index, kind, frames)
                           for index in list(first.values())[:count]]
    if not cases:
        raise InputError(f"{folder}: expected clips of at least {frames + 2} frames that show an attribute in all "
                         f"frames, found none in {len(clips)} clips; use fewer --frames or prepare other clips")
    return cases


def reconstruction_case(clips: RecordedClips, index: int, kind: str, frames: int) -> TransferCase:
    """Make the case of one clip: reconstruct `frames` frames strictly between its first and last frame."""
    try:
        clip = clips[index].view()
    except DecodeError as error:
        raise InputError(f"damaged record {error}; prepare the clips again") from error
    between = np.linspace(0, len(clip) - 1, frames + 2).round().astype(int)[1:-1]
    truth = clip[between]
    return TransferCase(portrait=clip[:1], attributes=((kind, clip[-1:]),), driving=truth, truth=truth)
