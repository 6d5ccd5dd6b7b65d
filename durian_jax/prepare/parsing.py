"""Masks from networks that sort every pixel into classes, one of which is hair.

T frames, N frames at once, C classes, H x W pixels; masks are bit fields as in `faces.clip.Clip.masks`.
"""

import re
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

from durian_jax.errors import InputError, listed
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.regions import face_frame
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.prepare.attributes import Evidence, attribute_masks, joined

# Class names of published face-parsing models, letters only.
_LABELS = {"hair": {"hair"},
           "glasses": {"eyeg", "eyeglass", "eyeglasses", "glass", "glasses", "sunglasses", "spectacles"},
           "beard": {"beard", "mustache", "moustache", "facialhair"},
           "hat": {"hat", "headwear", "headgear", "cap"}}

# A class counts as present if its pixels have this mean probability ...
_CONFIDENT = 0.6
# ... and this area in squared face heights: a crew cut, thin rims, a moustache, a headband.
_LEAST_AREA = {"hair": 0.06, "glasses": 0.03, "beard": 0.02, "hat": 0.1}


class ParsingMasker(ABC):
    """A `maskers.Masker` from a network that sorts pixels into classes.

    A kind without a class in the model (usually beard) keeps the mask and the evidence of
    `attributes.attribute_masks`. For the other kinds, the score of a frame is

        mean probability of the class in its pixels / 0.6 * min(1, its area / least area of the kind)

    The evidence is the median over time. It is at least 1 if most frames show a large enough area with enough
    confidence. The score of glasses is multiplied by 0.75 + 0.25 * min(b, 2), where b is
    `attributes.glasses_evidence`. A clear line across the nose bridge (b = 2) raises the score of uncertain pixels.
    No line (b = 0) lowers the score. The thresholds are set by hand.

    A known kind keeps all pixels of its class. If hats are ruled out, the next most likely class takes their pixels.

    Args:
        batch: number of frames per forward pass.

    Attributes:
        classes: indices of the classes of each kind; a subclass fills them in.

    Raises:
        InputError: the batch is below 1.
    """

    def __init__(self, batch: int):
        if batch < 1:
            raise InputError(f"frames per batch: expected at least 1, got {batch}")
        self.classes: dict[str, list[int]] = {}
        self._batch = batch

    @abstractmethod
    def _parse(self, frames: np.ndarray, ruled_out: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return (N, H, W) most likely classes and (N, C, H, W) probabilities of (N, H, W, 3) uint8 frames.

        The classes in `ruled_out` get probability 0.
        """

    def __call__(self, frames: np.ndarray, keypoints: np.ndarray, person: np.ndarray,
                 known: tuple[str, ...] | None = None) -> tuple[np.ndarray, Evidence]:
        """See `Masker`."""
        heuristic, evidence = attribute_masks(frames, keypoints, person, known)
        found = {kind: (heuristic & attribute_bit(kind)) > 0 for kind in ATTRIBUTE_KINDS}
        found |= {kind: np.zeros(frames.shape[:3], bool) for kind in self.classes}
        sureness = {kind: np.zeros(len(frames)) for kind in self.classes}
        ruled_out = self.classes.get("hat", []) if known is not None and "hat" not in known else []
        for first in range(0, len(frames), self._batch):
            part = slice(first, first + self._batch)
            winner, probability = self._parse(frames[part], ruled_out)
            for kind, indices in self.classes.items():
                here = np.isin(winner, indices)
                found[kind][part] = here
                total = (probability[:, indices].sum(axis=1) * here).sum(axis=(1, 2))
                sureness[kind][part] = total / np.maximum(here.sum(axis=(1, 2)), 1)
        face_area = np.array([face_frame(points, *frames.shape[1:3]).unit for points in keypoints]) ** 2
        values = vars(evidence).copy()
        for kind in self.classes:
            area = found[kind].sum(axis=(1, 2)) / face_area
            scores = sureness[kind] / _CONFIDENT * np.minimum(area / _LEAST_AREA[kind], 1)
            # For glasses, `values` still holds the heuristic's evidence: the strength of the bridge.
            support = 0.75 + 0.25 * min(values["glasses"], 2) if kind == "glasses" else 1
            values[kind] = float(np.median(scores)) * support
        evidence = Evidence(**values)
        return joined(found, evidence, known), evidence


def kinds_of_classes(labels: dict[int, str], origin: str | Path) -> dict[str, list[int]]:
    """Map each attribute kind to the indices of its classes; omit kinds without classes."""
    plain = {index: re.sub("[^a-z]", "", label.lower().removesuffix(".png")) for index, label in labels.items()}
    classes = {kind: [index for index, label in plain.items() if label in names] for kind, names in _LABELS.items()}
    if not classes["hair"]:
        raise InputError(f"{origin}: expected a face-parsing model with a class for hair, found the classes "
                         f"{listed(list(labels.values()), 20)}; name another model")
    return {kind: indices for kind, indices in classes.items() if indices}
