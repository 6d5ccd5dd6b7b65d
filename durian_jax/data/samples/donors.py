"""Donors of regions: where another person's attribute lies on a face (mask expansion, arXiv 2509.04434).

H x W pixels, K keypoints.
"""

from typing import Protocol

import cv2
import numpy as np

from durian_jax.data.sources import ClipSource, OpenClip
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.fill_region import move_mask
from durian_jax.faces.pose import head_pose
from durian_jax.faces.topology import ATTRIBUTE_KINDS


class DonorConfig(Protocol):
    """The settings of a sample that choose donors."""

    image_size: int  # H = W of the region
    minimum_area: float  # share of the picture from which an attribute counts as visible
    generated_probability: float  # of taking a generated region of the clip, if it has any
    donor_tries: int  # number of clips to look at
    donor_candidates: int  # number of donors among which the most similar pose is sought
    closest_probability: float  # of taking the most similar pose, not any


def expansion(source: ClipSource, index: int, clip: OpenClip, kind: str, keypoints: np.ndarray,
               rng: np.random.Generator, config: DonorConfig) -> np.ndarray | None:
    """(size, size) bool: where an attribute of another shape lies on the face with these keypoints (M_gen)."""
    if len(clip.generated_frames) and rng.random() < config.generated_probability:
        number = int(rng.integers(len(clip.generated_frames)))
        mask = clip.generated_mask(number)
        if (mask & attribute_bit(kind)).any():
            return _moved(mask, clip.keypoints[clip.generated_frames[number]], kind, keypoints, config)
    donor = _donor(source, index, kind, head_pose(keypoints), rng, config)
    return None if donor is None else _moved(*source.donor(*donor), kind, keypoints, config)


def _moved(masks: np.ndarray, from_keypoints: np.ndarray, kind: str, keypoints: np.ndarray, config: DonorConfig
           ) -> np.ndarray:
    """(size, size) bool: the masks' bits of one kind, moved from one face's keypoints to another's."""
    size = config.image_size
    # A small mask has no detail of single pixels: warp it at a quarter of the size, in a quarter of the time.
    rough = size // 4 if 2 * masks.shape[0] <= size else size
    moved = move_mask((masks & attribute_bit(kind)) > 0, from_keypoints, keypoints, (rough, rough))
    if rough == size:
        return moved
    return cv2.resize(moved.view(np.uint8) * np.uint8(255), (size, size), interpolation=cv2.INTER_LINEAR) > 127


def _donor(source: ClipSource, index: int, kind: str, pose: np.ndarray, rng: np.random.Generator,
           config: DonorConfig) -> tuple[int, int] | None:
    """Choose a donor: another person's clip, and the number of one of its donor frames.

    The frame is the one with the head pose nearest to `pose` (3,), or any: photos at inference have any pose.
    """
    identity, column = source.outline(index).identity, ATTRIBUTE_KINDS.index(kind)
    candidates = []
    for other in rng.integers(0, len(source), config.donor_tries):
        outline, frames = source.outline(int(other)), source.donor_frames(int(other))
        shown = np.flatnonzero(outline.areas[frames, column] >= config.minimum_area)
        if len(shown) and outline.identity != identity:
            # Roll does not count: masks are moved by a similarity.
            away = ((outline.poses[frames[shown], :2] - pose[:2]) ** 2).sum(-1)
            candidates.append((float(away.min()), int(other), int(shown[away.argmin()]), shown))
        if len(candidates) == config.donor_candidates:
            break
    if not candidates:
        return None
    if rng.random() < config.closest_probability:
        return min(candidates, key=lambda candidate: candidate[0])[1:3]
    return candidates[0][1], int(rng.choice(candidates[0][3]))
