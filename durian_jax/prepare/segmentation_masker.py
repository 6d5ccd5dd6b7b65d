"""Masks from the project's segmentation networks.

T frames, H x W pixels; masks are bit fields as in `faces.clip.Clip.masks`.
"""

from pathlib import Path

import cv2
import numpy as np

from durian_jax.errors import InputError
from durian_jax.faces.fill_region import dilate
from durian_jax.faces.regions import FaceFrame, brow_height, face_frame, glasses_region, oval
from durian_jax.faces.topology import ATTRIBUTE_KINDS, POSITION
from durian_jax.faces.warp import transform_keypoints, warp_image
from durian_jax.prepare.attributes import Evidence, beard_masks, glasses_evidence, joined, smooth_lab
from durian_jax.segmentation.features import eye_features, head_features, mirrored
from durian_jax.segmentation.network import Network
from durian_jax.segmentation.refine import follow_outlines, with_clip_colours

_BATCH = 8  # frames
# A kind counts as present if its pixels have this mean probability and this area in squared face heights.
_CONFIDENT = 0.6
_LEAST_AREA = {"hair": 0.02, "hat": 0.1}
# Weight of the line across the nose bridge, its largest value, and the threshold of both signals of glasses.
_LINE, _LARGEST_LINE, _THRESHOLD = 3.0, 1.25, 1.5
# A kind whose logits stay below this value everywhere is absent.
_UNLIKELY = -1.0
_ABSENT = np.float32(-20)
# The lower edge of a hat lies this far below the brows, in face heights.
_BRIM = 0.06
# Hair and hats come within the first distance of the face, in face heights, above this v. Islands whose middle lies on
# the forehead, or within the second distance of it, are not hair.
_AROUND, _EARS, _HIGHLIGHT = 0.2, -0.2, 0.08
# Heads that are tilted by more degrees are shown upright to the network.
_TILT = 8.0
# Parts of a mask that are smaller than this share of its largest part are specks.
_SPECK = 0.02


class SegmentationMasker:
    """A `maskers.Masker` that runs `segmentation.Network` on every frame for hair, hats and glasses.

    The evidence of hair and hats is the median over the frames of

        mean probability of its pixels / 0.6 * min(1, its area / the least area of the kind)

    The evidence of glasses is 2 ** (l + 3 * min(b, 1.25) - 1.5). l is the median logit of the network for eyes, and b
    is `attributes.glasses_evidence`, the line across the nose bridge. Their weights are set by hand. The mask of
    glasses is a region of the face. Beards come from the heuristics (`attributes`).

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
        found, values = {"glasses": np.stack([glasses_region(face) for face in faces])}, {}
        values["glasses"] = self._glasses(frames, keypoints, faces)
        found["beard"], values["beard"] = beard_masks(smooth_lab(frames), faces)
        found["hat"], values["hat"] = _found("hat", logits["hat"], frames, faces)
        if known is not None and "hat" not in known:
            values["hat"] = 0.0
        if values["hat"] < 1:
            # What looks a little like a hat is hair, unless the user says that there is a hat: it covers the head from
            # the brows up.
            logits["hair"] = np.maximum(logits["hair"], logits["hat"])
            if known is not None and "hat" in known:
                above = np.stack([face.v > brow_height(face) - _BRIM for face in faces])
                found["hat"], _ = _found("hat", np.where(above, logits["hair"], _ABSENT), frames, faces)
                logits["hair"] = np.where(above, _ABSENT, logits["hair"])
        found["hair"], values["hair"] = _found("hair", logits["hair"], frames, faces)
        evidence = Evidence(**values)
        return joined(found, evidence, known), evidence

    def logits(self, frames: np.ndarray, keypoints: np.ndarray, person: np.ndarray) -> dict[str, np.ndarray]:
        """Return (T, H, W) float32 per kind: the mean of the answers to the frames and to their mirror images."""
        height, width = frames.shape[1:3]
        turns = [_level(points, height, width) for points in keypoints]
        seen = np.stack([head_features(*_turned(*one)) for one in zip(frames, keypoints, person, turns, strict=True)])
        found = np.empty((len(ATTRIBUTE_KINDS), *frames.shape[:3]), np.float32)
        for first in range(0, len(seen), _BATCH):
            part = seen[first:first + _BATCH]
            answer = self._finite((self._network.head(part) + self._network.head(mirrored(part))[:, :, ::-1]) / 2)
            for number, one in enumerate(answer, start=first):
                layer, turn = cv2.resize(one, (width, height), interpolation=cv2.INTER_CUBIC), turns[number]
                if turn is not None:
                    layer = warp_image(layer, cv2.invertAffineTransform(turn), "replicate")
                found[:, number] = layer.transpose(2, 0, 1)
        return dict(zip(ATTRIBUTE_KINDS, found, strict=True))

    def _glasses(self, frames: np.ndarray, keypoints: np.ndarray, faces: list[FaceFrame]) -> float:
        """Return the evidence of glasses."""
        eyes = np.stack([eye_features(*one) for one in zip(frames, keypoints, strict=True)])
        logits = np.concatenate([self._finite(self._network.eyes(eyes[first:first + _BATCH]))
                                 for first in range(0, len(eyes), _BATCH)])
        line = min(glasses_evidence(frames, faces), _LARGEST_LINE)
        return float(np.exp2(np.clip(np.median(logits) + _LINE * line - _THRESHOLD, -10, 10)))

    def _finite(self, answer: np.ndarray) -> np.ndarray:
        if not np.isfinite(answer).all():
            raise InputError(f"{self._folder}: the network's answer is not finite, so its weights may be damaged; "
                             "train it again")
        return answer


def _found(kind: str, logits: np.ndarray, frames: np.ndarray, faces: list[FaceFrame]) -> tuple[np.ndarray, float]:
    """Return the mask of hair or hat, (T, H, W) bool, and its evidence."""
    if logits.max() <= _UNLIKELY:
        return np.zeros(logits.shape, bool), 0.0
    opacity = follow_outlines(with_clip_colours(logits, frames), frames)
    mask = np.stack([_on_the_head(layer > 0.5, face) for layer, face in zip(opacity, faces, strict=True)])
    area = mask.sum(axis=(1, 2))
    sureness = (opacity * mask).sum(axis=(1, 2)) / np.maximum(area, 1)
    share = area / np.array([face.unit for face in faces]) ** 2 / _LEAST_AREA[kind]
    return mask, float(np.median(sureness / _CONFIDENT * np.minimum(share, 1)))


def _on_the_head(mask: np.ndarray, face: FaceFrame) -> np.ndarray:
    """Keep the parts of a mask that lie around the face and are not specks; close small holes."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    _, labels, stats, middles = cv2.connectedComponentsWithStats(closed)
    inside = oval(face)
    around = ~inside & dilate(inside, round(_AROUND * face.unit)) & (face.v > _EARS)
    areas = stats[:, cv2.CC_STAT_AREA] * np.isin(np.arange(len(stats)), labels[around])
    areas[0] = 0
    # A fringe hangs from the rest of the hair. An island on the forehead is a highlight.
    forehead = dilate(inside, round(_HIGHLIGHT * face.unit)) & (face.v > brow_height(face))
    for label in np.flatnonzero((areas > 0) & (areas < areas.max())):
        column, row = np.rint(middles[label]).astype(int)
        areas[label] *= not forehead[row, column]
    return (areas >= max(_SPECK * areas.max(), 1))[labels]


def _level(points: np.ndarray, height: int, width: int) -> np.ndarray | None:
    """Return the (2, 3) rotation around the picture's centre that makes a face upright; None if it nearly is."""
    bridge, chin = points[[POSITION[168], POSITION[152]], :2] * (width, height)
    angle = np.degrees(np.arctan2(bridge[0] - chin[0], chin[1] - bridge[1]))
    return cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1) if abs(angle) > _TILT else None


def _turned(frame: np.ndarray, points: np.ndarray, person: np.ndarray, turn: np.ndarray | None
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn a picture, its keypoints and the person's outline by `_level`."""
    if turn is None:
        return frame, points, person
    return (warp_image(frame, turn, "replicate"), transform_keypoints(points, turn, *frame.shape[:2]),
            warp_image(person, turn, "replicate"))
