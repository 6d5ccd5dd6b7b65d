"""Masks from the project's segmentation network.

T frames, H x W pixels; masks are bit fields as in `faces.clip.Clip.masks`.
"""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from durian_jax.errors import InputError
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.regions import FaceFrame, face_frame
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.prepare.attributes import Evidence, attribute_masks, joined
from durian_jax.segmentation.features import head_features, mirrored
from durian_jax.segmentation.network import Network
from durian_jax.segmentation.refine import follow_outlines, with_clip_colours

_BATCH = 8  # frames
# A kind counts as present if its pixels have this mean probability and this area in squared face heights.
_CONFIDENT = 0.6
_LEAST_AREA = {"hair": 0.02, "hat": 0.1}
# A kind whose logits stay below this value everywhere is absent.
_UNLIKELY = -1.0
# Parts of a mask that are smaller than this share of its largest part are specks.
_SPECK = 0.02


class SegmentationMasker:
    """A `maskers.Masker` that runs `segmentation.Network` on every frame for hair and hats.

    Their evidence is the median over the frames of

        mean probability of its pixels / 0.6 * min(1, its area / the least area of the kind)

    Glasses and beards keep the masks and the evidence of `attributes.attribute_masks`.

    Args:
        folder: holds the weights.

    Raises:
        InputError: see `Network`.
    """

    def __init__(self, folder: str | Path):
        self._folder, self._network = folder, Network(folder)

    def __call__(self, frames: np.ndarray, keypoints: np.ndarray, person: np.ndarray,
                 known: tuple[str, ...] | None = None) -> tuple[np.ndarray, Evidence]:
        """See `maskers.Masker`."""
        faces = [face_frame(points, *frames.shape[1:3]) for points in keypoints]
        logits = self.logits(frames, keypoints, person)
        if known is not None and "hat" not in known:  # hats are ruled out: count them as hair
            logits["hair"], logits["hat"] = np.maximum(logits["hair"], logits["hat"]), np.full_like(logits["hat"], -20)
        heuristic, evidence = attribute_masks(frames, keypoints, person, known)
        found = {kind: (heuristic & attribute_bit(kind)) > 0 for kind in ATTRIBUTE_KINDS}
        for kind in _LEAST_AREA:
            opacity = np.zeros(frames.shape[:3], np.float32)
            if logits[kind].max() > _UNLIKELY:
                opacity = follow_outlines(with_clip_colours(logits[kind], frames), frames)
            found[kind] = np.stack([_without_specks(layer > 0.5) for layer in opacity])
            evidence = replace(evidence, **{kind: _evidence(kind, opacity, found[kind], faces)})
        return joined(found, evidence, known), evidence

    def logits(self, frames: np.ndarray, keypoints: np.ndarray, person: np.ndarray) -> dict[str, np.ndarray]:
        """Return (T, H, W) float32 per kind: the mean of the answers to the frames and to their mirror images."""
        size, layers = frames.shape[2:0:-1], []
        seen = np.stack([head_features(*one) for one in zip(frames, keypoints, person, strict=True)])
        for first in range(0, len(seen), _BATCH):
            part = seen[first:first + _BATCH]
            answer = (self._network(part) + self._network(mirrored(part))[:, :, ::-1]) / 2
            if not np.isfinite(answer).all():
                raise InputError(f"{self._folder}: the network's answer is not finite, so its weights may be damaged; "
                                 "train it again")
            layers += [cv2.resize(one, size, interpolation=cv2.INTER_CUBIC) for one in answer]
        return {kind: np.stack([layer[..., index] for layer in layers]) for index, kind in enumerate(ATTRIBUTE_KINDS)}


def _evidence(kind: str, opacity: np.ndarray, mask: np.ndarray, faces: list[FaceFrame]) -> float:
    area = mask.sum(axis=(1, 2))
    sureness = (opacity * mask).sum(axis=(1, 2)) / np.maximum(area, 1)
    share = area / np.array([face.unit for face in faces]) ** 2 / _LEAST_AREA[kind]
    return float(np.median(sureness / _CONFIDENT * np.minimum(share, 1)))


def _without_specks(mask: np.ndarray) -> np.ndarray:
    """Drop small parts of a mask and close small holes."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(closed)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    return (areas >= max(_SPECK * areas.max(), 1))[labels]
