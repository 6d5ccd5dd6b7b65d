"""Generated regions from a checkpoint of this project that transfers attributes."""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.data.clip_record import DecodeError
from durian_jax.data.recorded_clips import RecordedClips
from durian_jax.diffusion import Sampling
from durian_jax.expansion.request import Wanted
from durian_jax.faces.clip import Clip
from durian_jax.faces.pose import head_pose
from durian_jax.faces.topology import ATTRIBUTE_KINDS, SHOWN_AREA
from durian_jax.families import get_family
from durian_jax.inference.family import check_transfers, motion_batch
from durian_jax.inference.generate import generate

# Number of donors whose head poses are compared. With more, the pose is closer, and fewer people serve as donors.
_CANDIDATES = 16
# Share of a pixel from which the attribute covers it. Below half: a region that is a little too large does no harm; one
# that is too small reveals the attribute's outline.
_COVERED = 0.4
# Fill holes of these kinds: lenses and bands have other colours. A face inside hair is no part of it.
_SOLID = ("glasses", "hat")


class TransferGenerator:
    """Regions from a model that transfers attributes: the photo gets another person's attribute, at its own keypoints.

    Args:
        clips: dataset with the donors.
        checkpoint: the model; photos of other sizes are resampled.
        sampling: how to sample its pictures; None: the checkpoint's defaults.
        batch: number of transfers at once.

    Raises:
        InputError: the model transfers no attributes.
    """

    def __init__(self, clips: RecordedClips, checkpoint: Checkpoint, sampling: Sampling | None = None,
                 batch: int = 8):
        check_transfers(checkpoint.config, "generator own")
        self._clips, self._checkpoint, self._sampling, self._batch = clips, checkpoint, sampling, batch
        outlines = [clips.outline(index) for index in range(len(clips))]
        self._identities = np.array([outline.identity for outline in outlines])
        self._wearers = {kind: np.flatnonzero([_whole(outline.areas, kind).any() for outline in outlines])
                         for kind in ATTRIBUTE_KINDS}

    def __call__(self, wanted: Sequence[Wanted]) -> list[np.ndarray | None]:
        """See `request.Generator`."""
        size = self._checkpoint.config.image_size
        donors = [self.donor(each) for each in wanted]
        cases = [(resized(each.photo, size), each.kind, donor)
                 for each, donor in zip(wanted, donors, strict=True) if donor is not None]
        regions = iter(transfer_regions(self._checkpoint, cases, self._sampling, self._batch))
        return [None if donor is None else next(regions) for donor in donors]

    def donor(self, wanted: Wanted) -> Clip | None:
        """Choose a donor: the frame of another person who shows the kind, nearest in yaw and pitch among some people.

        At the checkpoint's size; None: nobody else in the dataset shows the kind.
        """
        others = self._wearers[wanted.kind]
        others = others[self._identities[others] != wanted.photo.identity]
        pose, nearest = head_pose(wanted.photo.keypoints[0]), []
        for index in wanted.rng.choice(others, min(_CANDIDATES, len(others)), replace=False):
            outline = self._clips.outline(int(index))
            frames = np.flatnonzero(_whole(outline.areas, wanted.kind))
            # Ignore roll: the model turns attributes in the picture's plane by itself.
            away = np.linalg.norm(outline.poses[frames, :2] - pose[:2], axis=-1)
            nearest.append((float(away.min()), int(index), int(frames[away.argmin()])))
        for _, index, frame in sorted(nearest):
            try:
                donor = resized(self._clips.read(index, [frame]).view(), self._checkpoint.config.image_size)
            except DecodeError:
                continue
            if donor.mask(wanted.kind).any():
                return donor
        return None


def _whole(areas: np.ndarray, kind: str) -> np.ndarray:
    """(T,) bool: frames with (T, kinds) areas that show an attribute; hair only without a hat on it."""
    shown = areas[:, ATTRIBUTE_KINDS.index(kind)] >= SHOWN_AREA
    return shown & (areas[:, ATTRIBUTE_KINDS.index("hat")] == 0) if kind == "hair" else shown


def resized(photo: Clip, size: int) -> Clip:
    """Return a photo without margin at the model's size; it has no driver then."""
    height, width = photo.frames.shape[1:3]
    if (height, width) == (size, size):
        return photo
    how = cv2.INTER_AREA if height > size else cv2.INTER_LINEAR
    frame = cv2.resize(photo.frames[0], (size, size), interpolation=how)
    # Bits cannot be averaged: nearest neighbour.
    masks = cv2.resize(photo.masks[0], (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
    return replace(photo, frames=frame[None], masks=masks[None], driver=None)


def transfer_regions(checkpoint: Checkpoint, cases: Sequence[tuple[Clip, str, Clip]], sampling: Sampling | None = None,
                     batch: int = 8) -> list[np.ndarray]:
    """Find where the attribute lies after the model has put it on the portrait. No segmenter is needed.

    Every transfer is generated twice, from the lightened and from the darkened attribute. The two references differ by
    the same known amount everywhere, so the share of this difference in a pixel is the share of the pixel that the
    attribute covers. (Triangulation matting, Smith and Blinn 1996, with two objects before one backdrop instead of one
    object before two.) Colours alone are not enough: other things may have the attribute's colour, and a generated
    picture has the reference's colours only roughly.

    Args:
        checkpoint: the model.
        cases: portrait, kind and donor: photos without margin at the checkpoint's size; the donor shows the kind.
        sampling: how to sample the pictures; None: the checkpoint's defaults.
        batch: number of transfers at once; each call of the model is filled up to it, so that one compiled function
            serves all.

    Returns:
        (H, W) bool of each case.
    """
    family = get_family(checkpoint.config.family).load("inference")
    regions = []
    for start in range(0, len(cases), batch):
        some = list(cases[start:start + batch])
        full = some + some[:1] * (batch - len(some))
        references = family.transfer_batch(checkpoint, [(portrait, [(kind, donor)]) for portrait, kind, donor in full])
        references |= motion_batch(checkpoint.config, references, [
            (portrait, [(kind, donor)], portrait, portrait.keypoints) for portrait, kind, donor in full])
        light, dark = (
            generate(checkpoint, {**references, "attributes": (0.5 * references["attributes"] + shift)
                                  * references["attribute_masks"]}, sampling)[:, 0].astype(np.float32)
            for shift in (0.5, -0.5))
        # The two references differ by half of the range, from -0.5 to 0.5.
        matte = (light - dark).mean(-1) / 127.5
        # Pixels that were not masked, such as a hat that stays on the hair, are not the attribute.
        blanked = references["portrait_mask"][..., 0] > 0
        regions += [region & (_filled(matte & region) if kind in _SOLID else matte)
                    for (_, kind, _), matte, region in zip(some, matte > _COVERED, blanked, strict=False)]
    return regions


def _filled(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool without holes."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros(mask.shape, np.uint8), outlines, -1, 1, cv2.FILLED) > 0
