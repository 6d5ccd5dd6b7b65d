"""Heuristic masks of hair, glasses, beard and hat in a clip, and the evidence that each is present.

The heuristics use geometry (`faces.regions`), the person's outline and the colours of the whole clip. They are good
enough to train a small model and to transfer attributes with it. A face-parsing network (`maskers`) is better but
heavier. Masks of glasses and beard are face regions and include some skin. Masks of hair and hat follow the picture.

T frames, H x W pixels. u and v are face coordinates (`faces.regions.FaceFrame`).
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.regions import (
    FaceFrame,
    beard_region,
    brow_height,
    face_frame,
    fill_polygon,
    glasses_region,
    lips,
    moustache_region,
    neck,
    oval,
)
from durian_jax.faces.topology import ATTRIBUTE_KINDS, GROUPS, POSITION
from durian_jax.faces.warp import similarity, warp_image

# Bins per Lab channel in the colour histograms.
_BINS = 24


@dataclass(frozen=True)
class Evidence:
    """Evidence of each kind in a clip, in units of the threshold: a kind counts as present from 1 upwards."""

    hair: float
    glasses: float
    beard: float
    hat: float

    def present(self) -> tuple[str, ...]:
        """Return the kinds that are judged present."""
        return tuple(kind for kind in ATTRIBUTE_KINDS if getattr(self, kind) >= 1)

    def least_certain(self, given: Collection[str] = ()) -> tuple[str, float]:
        """Return the kind that is closest to its threshold, and its certainty.

        The certainty is 0 at the threshold, and 1 from 2/3 of it downwards or from 3/2 of it upwards. If all kinds are
        in `given`, they are certain: ("", 1).
        """
        away = {kind: min(1.0, abs(math.log(max(getattr(self, kind), 0.01), 1.5))) for kind in ATTRIBUTE_KINDS
                if kind not in given}
        return min(((kind, round(value, 2)) for kind, value in away.items()), key=lambda pair: pair[1],
                   default=("", 1.0))


NO_EVIDENCE = Evidence(hair=0.0, glasses=0.0, beard=0.0, hat=0.0)


def attribute_masks(frames: np.ndarray, keypoints: np.ndarray, person: np.ndarray,
                    known: tuple[str, ...] | None = None) -> tuple[np.ndarray, Evidence]:
    """Return the attribute masks and the evidence of a clip of one person.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        keypoints: (T, K, 3) normalised.
        person: (T, H, W) uint8, confidence that a pixel shows a person (0..255).
        known: kinds that are certainly present. If given, a hat that it does not list is certainly absent, because
            evidence of hats is weak (a pink wig looks like a hat). The other kinds are judged as without `known`.

    Returns:
        masks (T, H, W) uint8 as in `Clip.masks`, and the evidence.
    """
    faces = [face_frame(points, *frames.shape[1:3]) for points in keypoints]
    lab = smooth_lab(frames)
    covered, covering = head_covering(lab, faces, person)
    beards, dark = beard_masks(lab, faces)
    evidence = Evidence(hair=covered / _COVERED, glasses=glasses_evidence(frames, faces),
                        beard=dark, hat=hat_evidence(lab, faces, covering))
    present = set(evidence.present())
    if known is not None:
        present = (present - {"hat"}) | set(known)
    found = {"hair": covering, "glasses": np.stack([glasses_region(face) for face in faces]),
             "beard": beards}
    if "hat" in present:
        # A hat covers the head from the brows up. Hair may hang out below it.
        found["hat"] = covering & np.stack([face.v > brow_height(face) - 0.06 for face in faces])
        covered, found["hair"] = head_covering(lab, faces, person, found["hat"])
        evidence = replace(evidence, hair=covered / _COVERED)
        if evidence.hair < 1 and "hair" not in (known or ()):
            present.discard("hair")
    if "glasses" in present:
        # Glasses are worn in front of hair.
        found["hair"] = found["hair"] & ~found["glasses"]
    masks = np.zeros(frames.shape[:3], np.uint8)
    for kind in present:
        masks[found[kind]] |= attribute_bit(kind)
    return masks, evidence


def smooth_lab(frames: np.ndarray) -> np.ndarray:
    """Return OpenCV's Lab colours of slightly blurred frames: (T, H, W, 3) uint8 RGB -> uint8."""
    return np.stack([cv2.cvtColor(cv2.GaussianBlur(frame, (0, 0), 0.006 * frame.shape[1]), cv2.COLOR_RGB2LAB)
                     for frame in frames])


def joined(found: Mapping[str, np.ndarray], evidence: Evidence, known: tuple[str, ...] | None) -> np.ndarray:
    """Return the masks (T, H, W) uint8, as in `Clip.masks`, of the kinds that are present.

    Args:
        found: (T, H, W) bool per kind. Glasses and hats are in front of hair.
        evidence: decides which kinds are present.
        known: see `attribute_masks`.
    """
    present = set(evidence.present())
    if known is not None:
        present = (present - {"hat"}) | set(known)
    masks = np.zeros(found["hair"].shape, np.uint8)
    for kind in present:
        front = [found[other] for other in present & {"glasses", "hat"}] if kind == "hair" else []
        masks[found[kind] & ~np.any(front, axis=0)] |= attribute_bit(kind)
    return masks


# --- hair and other head coverings --------------------------------------------------------------------

# Hair is present if at least this share of the band above the face does not look like skin.
_COVERED = 0.3


def head_covering(lab: np.ndarray, faces: list[FaceFrame], person: np.ndarray,
                  hat: np.ndarray | None = None) -> tuple[float, np.ndarray]:
    """Segment hair and hat together: parts of the person on and beside the head that are not skin.

    A colour model of the clip and a position prior decide together. Seeds in the band directly above the face
    contour give the colours of hair. Skin, clothes and background give the other colours.

    Args:
        lab: (T, H, W, 3) uint8, OpenCV's Lab.
        faces: T face frames.
        person: (T, H, W) uint8, confidence that a pixel shows a person (0..255).
        hat: (T, H, W) bool, a hat found before. If given, segment hair only, with seeds beside the face.

    Returns:
        The share of the seed band that is not skin (0..1), and (T, H, W) bool masks.
    """
    inside = np.stack([oval(face) for face in faces])
    brow = np.array([brow_height(face) for face in faces])[:, None, None]
    u, v = np.stack([face.u for face in faces]), np.stack([face.v for face in faces])
    outside = np.stack([cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3) / face.unit
                        for mask, face in zip(inside, faces, strict=True)])
    features = np.stack([glasses_region(face) | lips(face) for face in faces])
    body = person > 128
    skin_sample = inside & (v < brow) & ~features
    seeds = (person > 200) & ~inside & (outside > 0.03) & (outside < 0.2)
    seeds &= v > 0.12 if hat is None else (v > -0.5) & (v < brow) & ~hat
    skin_like = _distance_to(lab, lab[skin_sample]) < _SKIN_DISTANCE
    covered = float((seeds & ~skin_like).sum() / max(seeds.sum(), 1))
    if covered < 0.5 * _COVERED:
        return covered, np.zeros(lab.shape[:3], bool)

    bins = _bin_index(lab)
    clothes_sample = body & (v < -1.0) & (np.abs(u) < 0.7)
    prior = _hair_prior(inside, outside, u, v, brow, np.stack([neck(face) for face in faces]))
    if hat is not None:
        prior = np.where(hat, -50, prior)
    certainty = np.clip(person.astype(np.float32), 5, 250) / 255
    # The outline may lower the odds of hair but not raise them, because skin belongs to the person too.
    prior = prior + np.minimum(np.log(certainty / (1 - certainty)), 0)
    foreground, hair = seeds & ~skin_like, None
    skin_light = np.median(lab[skin_sample][:, 0])
    if np.median(lab[foreground][:, 0]) < skin_light - 15:
        # With dark hair, bright pixels on the forehead are skin, even if no skin sample is as bright.
        prior = np.where(inside & (lab[..., 0] > skin_light - 8), -5, prior)
    for _ in range(2):
        negatives = (0.5 * _histogram(bins[skin_sample]) + 0.25 * _histogram(bins[clothes_sample])
                     + 0.25 * _histogram(bins[person < 40]))
        if hat is not None:
            negatives = 0.5 * negatives + 0.5 * _histogram(bins[hat])
        ratio = np.log((_histogram(bins[foreground]) + 1e-5) / (negatives + 1e-5))
        hair = np.stack([cv2.GaussianBlur(layer, (0, 0), 0.006 * lab.shape[2])
                         for layer in np.clip(ratio, -4, 4)[bins] + prior]) > 0
        foreground = hair & (outside < 0.35) & (v > -0.6)
    if hat is not None:
        hair &= ~hat
    return covered, np.stack([_connected(mask, seed) for mask, seed in zip(hair, seeds, strict=True)])


# A colour counts as skin below this distance from the skin's median, in standard deviations.
_SKIN_DISTANCE = 3.0


def _hair_prior(inside, outside, u, v, brow, below_chin) -> np.ndarray:
    """Return (T, H, W) log-odds of hair from the position alone; distances are in face heights."""
    prior = np.where(outside < 0.3, 1.2, 1.2 - 6 * (outside - 0.3))
    # Long hair falls beside the neck. Further down, clothing becomes more likely.
    prior = prior - 2.2 * np.clip(-0.25 - v, 0, None) - 4.0 * np.clip(-1.1 - v, 0, None)
    prior = np.where(below_chin, -4.0, prior)
    # A fringe may cover the forehead, so the colour decides there. The rest of the face is never hair.
    prior = np.where(inside, np.where(v > brow + 0.03, -0.5, -np.inf), prior)
    return np.maximum(prior, -50).astype(np.float32)


def _distance_to(lab: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Return the (T, H, W) Mahalanobis distance of each pixel's colour to a sample of (N, 3) colours."""
    sample = sample.astype(np.float32)
    centre = np.median(sample, axis=0)
    # Exclude the dark and bright tails, which are shadows, highlights and beards.
    near = sample[np.abs(sample[:, 0] - centre[0]) < 40]
    covariance = np.cov((near if len(near) > 50 else sample).T) + np.diag([40.0, 6.0, 6.0])
    away = lab.astype(np.float32) - centre
    return np.sqrt(np.einsum("thwi,ij,thwj->thw", away, np.linalg.inv(covariance).astype(np.float32), away))


def _bin_index(lab: np.ndarray) -> np.ndarray:
    level = lab.astype(np.int32) * _BINS // 256
    return (level[..., 0] * _BINS + level[..., 1]) * _BINS + level[..., 2]


def _histogram(bins: np.ndarray) -> np.ndarray:
    """Return the (_BINS ** 3,) smoothed share of each colour; flat for fewer than 20 pixels."""
    count = np.bincount(bins, minlength=_BINS ** 3).astype(np.float32).reshape((_BINS,) * 3)
    if count.sum() < 20:
        return np.full(_BINS ** 3, _BINS ** -3.0, np.float32)
    for axis in range(3):
        before, after = np.roll(count, 1, axis), np.roll(count, -1, axis)
        count = 0.25 * before + 0.5 * count + 0.25 * after
    return (count / count.sum()).reshape(-1)


def _connected(mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Keep the parts of a mask that touch the seeds and are not specks; close small holes."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel, iterations=2)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    keep = np.unique(labels[seeds & (mask > 0)])
    keep = keep[(keep > 0) & (stats[keep, cv2.CC_STAT_AREA] > 0.002 * mask.size)]
    return np.isin(labels, keep)


# --- evidence of the other kinds ----------------------------------------------------------------------

# Thresholds set by hand on about 40 clips and photos. Thick and thin rims are found. Rimless glasses in motion are
# missed. Frowns do not count as glasses, and stubble does not count as a beard.
_BRIDGE_LINE, _DARK_MOUSTACHE, _DARK_CHIN = 4.4, 0.45, 0.5
# Below this evidence of the chin, a moustache is worn without a beard.
_BARE_CHIN = 0.7

# Patch that is searched for a glasses bridge: distance of the eyes' centres, and (height, width), in pixels.
_EYE_DISTANCE = 80
_PATCH = (128, 192)


def glasses_evidence(frames: np.ndarray, faces: list[FaceFrame]) -> float:
    """Return how clearly a bar crosses the nose between the eyes, where a bare face is smooth."""
    lines = [_bridge_line(frame, face) for frame, face in zip(frames, faces, strict=True)]
    # A frown is short and glasses stay, so most frames must show the bar.
    return float(np.percentile(lines, 35)) / _BRIDGE_LINE


def _bridge_line(frame: np.ndarray, face: FaceFrame) -> float:
    """Return the strength of the clearest line across the nose bridge, relative to the cheeks' texture."""
    eyes = np.stack([face.points[GROUPS[name]].mean(axis=0) for name in ("right_eye", "left_eye")])
    row, column = _PATCH[0] * 0.44, _PATCH[1] / 2
    target = np.array([[column - _EYE_DISTANCE / 2, row], [column + _EYE_DISTANCE / 2, row]])
    matrix = similarity(eyes, target)
    grey = warp_image(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), matrix, "replicate", _PATCH).astype(np.float32)
    grey = cv2.GaussianBlur(grey, (0, 0), 0.8)
    grey /= np.median(grey[30:110, 30:160]) / 100 + 0.2
    # A vertical second difference responds to a dark or bright horizontal bar, but not to a slope.
    bar = np.zeros_like(grey)
    bar[4:-4] = grey[4:-4] - 0.5 * (grey[:-8] + grey[8:])
    nose = matrix[:, :2] @ face.points[POSITION[168]] + matrix[:, 2]
    centre, half = int(np.clip(round(float(nose[0])), 70, 122)), 8
    window, strongest = bar[40:80, centre - half:centre + half + 1], 0.0
    for tilt in np.linspace(-0.25, 0.25, 7):
        shear = np.array([[1, 0, 0], [tilt, 1, -tilt * half]], np.float32)
        rows = cv2.warpAffine(window, shear, window.shape[::-1], borderMode=cv2.BORDER_REPLICATE)[5:-5]
        strongest = max(strongest, float(np.abs(np.median(rows, axis=1)).max()))
    texture = np.median(np.abs(np.concatenate([bar[90:110, 40:70], bar[90:110, 122:152]])))
    return strongest / (float(texture) + 0.5)


def beard_masks(lab: np.ndarray, faces: list[FaceFrame]) -> tuple[np.ndarray, float]:
    """Return the region of a beard, or of a moustache alone, as (T, H, W) bool, and the evidence of either.

    The evidence is how much darker the upper lip or the chin is than the cheeks. Light beards are missed.
    """
    moustache, chin = _darkness(lab, faces)
    region = moustache_region if moustache >= 1 and chin < _BARE_CHIN else beard_region
    return np.stack([region(face) for face in faces]), max(moustache, chin, 0.0)


def _darkness(lab: np.ndarray, faces: list[FaceFrame]) -> tuple[float, float]:
    """Return how much darker the upper lip and the chin are than the cheeks, in units of the thresholds."""
    shares = []
    for lightness, face in zip(lab[..., 0], faces, strict=True):
        def at(*indices, points=face.points):
            return points[[POSITION[index] for index in indices]]
        shape = lightness.shape
        # The cheek lies between eye, nose wing and ear lobe.
        spots = [(at(*corner) * [[0.35], [0.35], [0.3]]).sum(axis=0)
                 for corner in ((145, 129, 132), (374, 358, 361))]
        cheeks = np.zeros(shape, np.uint8)
        for x, y in spots:
            cv2.circle(cheeks, (int(x), int(y)), max(1, round(0.06 * face.unit)), 1, -1)
        moustache = fill_polygon(at(98, 2, 327, 270, 0, 40), *shape)
        chin = fill_polygon(at(91, 17, 321, 378, 152, 149), *shape)
        samples = [lightness[mask > 0] for mask in (cheeks, moustache, chin)]
        if all(len(sample) for sample in samples):
            cheek, *rest = (float(np.median(sample)) for sample in samples)
            shares.append([1 - part / max(cheek, 1) for part in rest])
    if not shares:
        return 0.0, 0.0
    moustache, chin = np.median(shares, axis=0)
    return float(moustache / _DARK_MOUSTACHE), float(chin / _DARK_CHIN)


def hat_evidence(lab: np.ndarray, faces: list[FaceFrame], covering: np.ndarray) -> float:
    """Return how far the colour on top of the head is from natural hair colours: blue, green or deep red.

    Black, grey, white and brown hats count as hair. Pass `known=("hat", ...)` to mark a hat.
    """
    above = np.stack([face.v > brow_height(face) for face in faces]) & covering
    if not above.any():
        return 0.0
    lightness, red, yellow = np.median(lab[above], axis=0)
    if lightness < 70:  # the hue of dark hair is noise
        return 0.0
    return float(max((128 - yellow) / 12, (128 - red) / 10, (red - 128) / 40, 0))
