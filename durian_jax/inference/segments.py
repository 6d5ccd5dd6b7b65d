"""Long videos in segments that follow each other: each one continues the last frames of the segment before."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np


def segment_length(frames: int, longest: int, history: int) -> int:
    """F of all segments of a video.

    Args:
        frames: T of the video.
        longest: largest F.
        history: number of frames that a segment continues, at most (longest + 1) / 2. A video that is longer than a
            segment by less is halved, or the second segment, moved back, would begin before it has history.
    """
    return -(-frames // 2) if longest < frames < longest + history else min(longest, frames)


def segment_starts(frames: int, length: int) -> list[int]:
    """First frame of every segment. The last one is moved back, to end with the video.

    Args:
        frames: T of the video.
        length: F of a segment; a shorter video is one shorter segment.
    """
    if frames <= length:
        return [0]
    return [*range(0, frames - length, length), frames - length]


def history_before(number: int, starts: Sequence[int], previous: Sequence[np.ndarray], count: int) -> np.ndarray | None:
    """Latents (T, h, w, c) of the `count` frames before segment `number`; None for the first one.

    Args:
        starts: first frame of every segment.
        previous: latents (F, h, w, c) of the last one or two segments before.
        count: T.
    """
    if number == 0:
        return None
    made = dict(zip(range(number - len(previous), number), previous, strict=True))
    frames = []
    for frame in range(starts[number] - count, starts[number]):
        # The newest segment that has the frame; the last but one starts early if the last one was moved back.
        owner = max(i for i in made if starts[i] <= frame)
        frames.append(made[owner][frame - starts[owner]])
    return np.stack(frames)


def joined(segments: Iterable[np.ndarray], starts: Sequence[int]) -> Iterator[np.ndarray]:
    """Join segments (F, H, W, 3) to the video; where the last one overlaps the one before, the earlier frames stay.

    Yields:
        The frames (n, H, W, 3) that each segment adds.
    """
    end = 0
    for start, segment in zip(starts, segments, strict=True):
        yield segment[end - start:]
        end = start + len(segment)
