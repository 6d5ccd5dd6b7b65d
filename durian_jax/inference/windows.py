"""Long videos in overlapping windows of the length that the temporal layers take.

T frames of the video, F frames of a window, H x W pixels.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

# Share of a window that overlaps the next window and is cross-faded.
_OVERLAP = 0.25


def window_starts(frames: int, window: int) -> list[int]:
    """First frames of equally long windows that cover a video and overlap by at least a quarter.

    The last window ends with the video. So all windows have the same length, and one compiled function serves all.
    """
    stride = max(1, window - round(window * _OVERLAP))
    return [*range(0, max(frames - window, 0), stride), max(frames - window, 0)]


def cross_fade(clips: Iterable[np.ndarray], starts: Sequence[int]) -> Iterator[np.ndarray]:
    """Join overlapping windows: in an overlap each window's weight rises and falls linearly.

    Args:
        clips: (F, H, W, 3) uint8 each; they may be made one after the other.
        starts: number of the video's frame with which each begins.

    Yields:
        The video's frames (n, H, W, 3) uint8 that no later window changes.
    """
    if len(starts) == 1:
        yield from clips
        return
    total = weights = np.zeros(0, np.float32)
    for clip, start, following in zip(clips, starts, [*starts[1:], None], strict=True):
        window = len(clip)
        ramp = np.minimum(np.arange(1, window + 1), np.arange(window, 0, -1)).astype(np.float32)
        weight = np.minimum(ramp, round(window * _OVERLAP) + 1)[:, None, None, None]
        new = window - len(total)
        total = np.concatenate([total.reshape(-1, *clip.shape[1:]), np.zeros((new, *clip.shape[1:]), np.float32)])
        weights = np.concatenate([weights.reshape(-1, 1, 1, 1), np.zeros((new, 1, 1, 1), np.float32)])
        total += weight * clip
        weights += weight
        done = window if following is None else following - start
        yield np.rint(total[:done] / weights[:done]).astype(np.uint8)
        total, weights = total[done:], weights[done:]
