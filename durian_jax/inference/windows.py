"""Long videos in overlapping windows of the length that the temporal layers take.

T frames of the video, F frames of a window, H x W pixels.
"""

from collections.abc import Sequence

import numpy as np

# Share of a window that overlaps the next window and is cross-faded.
_OVERLAP = 0.25


def window_starts(frames: int, window: int) -> list[int]:
    """First frames of equally long windows that cover a video and overlap by at least a quarter.

    The last window ends with the video. So all windows have the same length, and one compiled function serves all.
    """
    stride = max(1, window - round(window * _OVERLAP))
    return [*range(0, max(frames - window, 0), stride), max(frames - window, 0)]


def cross_fade(clips: Sequence[np.ndarray], starts: Sequence[int]) -> np.ndarray:
    """Join overlapping windows: in an overlap each window's weight rises and falls linearly.

    Args:
        clips: (F, H, W, 3) uint8 each.
        starts: number of the video's frame with which each begins.

    Returns:
        (T, H, W, 3) uint8.
    """
    if len(clips) == 1:
        return clips[0]
    window = len(clips[0])
    ramp = np.minimum(np.arange(1, window + 1), np.arange(window, 0, -1)).astype(np.float32)
    weight = np.minimum(ramp, round(window * _OVERLAP) + 1)[:, None, None, None]
    frames = starts[-1] + window
    total = np.zeros((frames, *clips[0].shape[1:]), np.float32)
    weights = np.zeros((frames, 1, 1, 1), np.float32)
    for clip, start in zip(clips, starts, strict=True):
        total[start:start + window] += weight * clip
        weights[start:start + window] += weight
    return np.rint(total / weights).astype(np.uint8)
