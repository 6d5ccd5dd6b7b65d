"""The outline of one clip: areas of its attributes, head poses and a few small masks. Training selects samples by it.

T frames; kinds are `topology.ATTRIBUTE_KINDS`.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from durian_jax.data.clip_record import QUALITIES, EncodedClip
from durian_jax.faces.clip import Clip
from durian_jax.faces.pose import head_pose, spread_poses
from durian_jax.faces.topology import ATTRIBUTE_KINDS

# The index keeps the masks of DONORS frames per clip, resized to DONOR_SIZE, for expanding other clips' regions.
DONORS, DONOR_SIZE = 4, 64


@dataclass(frozen=True)
class Donors:
    """Frames of a clip with head poses as different as possible, for expanding the regions of other people.

    Attributes:
        frames: (DONORS,) frame indices. A clip with fewer frames repeats the last index.
        masks: (DONORS, DONOR_SIZE, DONOR_SIZE) uint8 bit fields of the stored pictures, margin included.
        keypoints: (DONORS, K, 3) float32.
    """

    frames: np.ndarray
    masks: np.ndarray
    keypoints: np.ndarray


@dataclass(frozen=True)
class Outline:
    """Summary of a clip, available without opening its record.

    Attributes:
        areas: (T, kinds) float32, share of the view that each attribute kind covers, 0..1.
        poses: (T, 3) float32, yaw, pitch and roll in degrees (`faces.pose`).
        identity: name of the person.
        name: name of the clip, unique in its dataset.
        quality: (qualities,) float32, in the order of `QUALITIES`; NaN where not measured.
        donors: set only for writing the index. Otherwise None; sources load single donors with `donor`.
    """

    areas: np.ndarray
    poses: np.ndarray
    identity: str
    name: str = ""
    quality: np.ndarray = field(default_factory=lambda: np.full(len(QUALITIES), np.nan, np.float32))
    donors: Donors | None = None

    def __len__(self) -> int:
        return len(self.areas)


def outline(clip: Clip) -> Outline:
    """Return the outline of a decoded clip."""
    areas = np.stack([_areas(mask, clip.margin) for mask in clip.masks])
    return Outline(areas, head_pose(clip.keypoints), clip.identity, clip.identity)


def encoded_outline(clip: EncodedClip) -> Outline:
    """Return the outline of a record, with its donors. Only masks are decoded."""
    areas = np.stack([_areas(clip.mask(i), clip.margin) for i in range(len(clip))])
    provenance = clip.provenance
    quality = np.array([provenance.quality[key] for key in QUALITIES], np.float32)
    return Outline(areas, clip.pose, clip.identity, provenance.name, quality, donors(clip))


def donors(clip: EncodedClip) -> Donors:
    """Return the donors of a record: farthest-point sampling of its head poses, starting at the most frontal one."""
    poses = clip.pose[:, :2]
    chosen = spread_poses(poses, DONORS, first=int((poses ** 2).sum(-1).argmin()))
    chosen += chosen[-1:] * (DONORS - len(chosen))
    masks = np.stack([cv2.resize(clip.mask(i), (DONOR_SIZE, DONOR_SIZE), interpolation=cv2.INTER_NEAREST_EXACT)
                      for i in chosen])
    return Donors(np.array(chosen, np.int32), masks, clip.keypoints[chosen])


def _areas(mask: np.ndarray, margin: int) -> np.ndarray:
    """Return (kinds,) float32: the share of the view that each kind covers in an (H, W) bit field."""
    view = mask[margin:mask.shape[0] - margin, margin:mask.shape[1] - margin]
    counts = np.bincount(view.reshape(-1), minlength=256)
    bits = np.arange(256)[:, None] >> np.arange(len(ATTRIBUTE_KINDS)) & 1
    return (counts @ bits / view.size).astype(np.float32)
