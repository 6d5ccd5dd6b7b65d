"""Quality measures of face pictures: sharpness, exposure, occlusion, open or closed eyes and mouth.

The functions only measure; their callers set the limits.

T frames of H x W pixels, K keypoints (`faces.topology`), normalised as in `faces.clip.Clip`.
"""

import cv2
import numpy as np

from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.regions import FaceFrame, face_frame, fill_polygon, lips, oval
from durian_jax.faces.topology import ATTRIBUTE_KINDS, GROUPS, POSITION
from durian_jax.faces.warp import warp_image

# Faces are resampled to upright square patches: pixels per face height, and pixels per side.
_UNIT, _SIDE = 96, 120

# Three (upper, lower) point pairs of each eye's lids.
_LIDS = (((159, 145), (158, 153), (160, 144)), ((386, 374), (385, 380), (387, 373)))
_CORNERS = ((33, 133), (263, 362))
# Inner lips from the right corner to the left, upper and lower.
_UPPER = [POSITION[i] for i in (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)]
_LOWER = [POSITION[i] for i in (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)]


# --- keypoints alone ----------------------------------------------------------------------------------

def eye_openness(keypoints: np.ndarray) -> np.ndarray:
    """Return lid distance / eye width: about 0.3 if the eye is open, below 0.15 if it is closed.

    Args:
        keypoints: (T, K, 3) in square pictures.

    Returns:
        (T, 2) float32: the subject's right and left eye.
    """
    eyes = [np.mean([_distance(keypoints, *pair) for pair in lids], axis=0)
            / np.maximum(_distance(keypoints, *corners), 1e-9)
            for lids, corners in zip(_LIDS, _CORNERS, strict=True)]
    return np.stack(eyes, -1).astype(np.float32)


def mouth_openness(keypoints: np.ndarray) -> np.ndarray:
    """Return (T,) float32, lip gap / mouth width: 0 closed, about 0.2 in speech, 0.8 wide open.

    Args:
        keypoints: (T, K, 3) in square pictures.
    """
    gaps = np.mean([_distance(keypoints, *pair) for pair in ((13, 14), (82, 87), (312, 317))], axis=0)
    return (gaps / np.maximum(_distance(keypoints, 78, 308), 1e-9)).astype(np.float32)


def _distance(keypoints: np.ndarray, a: int, b: int) -> np.ndarray:
    return np.linalg.norm(keypoints[..., POSITION[a], :] - keypoints[..., POSITION[b], :], axis=-1)


# --- pixels -------------------------------------------------------------------------------------------

def sharpness(frames: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """Return the face's fine detail: contrast of details of 1/100 of the face height over those of 1/40.

    Faces are resampled to one size, and their overall contrast is divided out. The result is independent of
    the light, and of resolution beyond that size. Sharp photos have 0.45 to 0.9 (0.4 if the face is 60 px high).
    Gaussian blur of 1 % of the face height leaves 0.42, of 2 % 0.26. Noise counts as detail.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        keypoints: (T, K, 3).

    Returns:
        (T,) float32.
    """
    values = []
    for patch, face in _patches(frames, keypoints):
        grey = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY).astype(np.float32)
        inside = _inner(face)
        fine = (grey - cv2.GaussianBlur(grey, (0, 0), 1.0))[inside]
        coarse = (cv2.GaussianBlur(grey, (0, 0), 1.5) - cv2.GaussianBlur(grey, (0, 0), 3.0))[inside]
        # The added terms keep compression noise from dominating on a face without structure.
        values.append(fine.std() / (coarse.std() + 0.02 * grey[inside].std() + 0.1))
    return np.array(values, np.float32)


def exposure(frames: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """Return the face's 90th percentile of brightness and its share of white pixels.

    The lightest pixels (whites of the eyes, shine) depend on the light more than on the skin's colour.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        keypoints: (T, K, 3).

    Returns:
        (T, 2) float32, 0..1.
    """
    values = []
    for patch, face in _patches(frames, keypoints):
        pixels = patch[_inner(face)]
        light = np.percentile(pixels @ np.array([0.299, 0.587, 0.114]), 90) / 255
        values.append((light, (pixels.min(axis=-1) >= 248).mean()))
    return np.array(values, np.float32)


def lips_evidence(frames: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """Return how clearly the lips are visible, in units of the threshold: below 1, something hides them.

    The result is the larger of two measures: a dark line or gap between the lips, and their redness against
    the skin around them. A hand, a microphone or a mask shows neither. A beard hides neither. Fingers along
    the mouth look like lips.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        keypoints: (T, K, 3).

    Returns:
        (T,) float32.
    """
    values = []
    for patch, face in _patches(frames, keypoints):
        ring = lips(face) & ~fill_polygon(face.points[GROUPS["inner_lips"]], *face.u.shape)
        around = _inner(face) & _below_nose(face) & ~_grown(lips(face), 2)
        red = _lab(patch)[..., 1]
        redness = np.median(red[ring]) - np.median(red[around]) if ring.any() and around.any() else 0.0
        values.append(max(_lip_line(patch, face) / _LIP_LINE, redness / _LIP_REDNESS, 0))
    return np.array(values, np.float32)


# Thresholds, set by hand on 39 real clips and photos with and without drawn masks, microphones and hands.
_LIP_LINE, _LIP_REDNESS = 0.042, 1.9
# Half length of the brightness profile across the lips, and distances at which its dark part is compared, in pixels.
_REACH, _SHOULDERS = 20, (4, 8)


def _lip_line(patch: np.ndarray, face: FaceFrame) -> float:
    """Return how much darker the line between the lips is than its surroundings, as a share of their brightness."""
    grey = cv2.GaussianBlur(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY), (0, 0), 1.0)
    middle = (face.points[_UPPER] + face.points[_LOWER]) / 2
    along = np.linspace(0.12, 0.88, 41) * (len(middle) - 1)
    x, y = (np.interp(along, np.arange(len(middle)), middle[:, axis]) - 0.5 for axis in (0, 1))
    offsets = np.arange(-_REACH, _REACH + 1)[:, None]
    columns = cv2.remap(grey, np.broadcast_to(x, (len(offsets), 41)).astype(np.float32),
                        (y + offsets).astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    # The median along the mouth keeps only lines that follow the mouth.
    profile = np.median(columns.astype(np.float32), axis=1)
    near = np.arange(_REACH - 5, _REACH + 6)
    valleys = [np.minimum(profile[near - reach], profile[near + reach]) - profile[near] for reach in _SHOULDERS]
    return float(np.max(valleys) / (profile.mean() + 20))


def occlusion(frames: np.ndarray, keypoints: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
    """Return the share of the face below the eyes, without the lips, that does not have the skin's colour.

    The skin's colour is sampled around the eyes and on the forehead, so that an object in front of the mouth
    does not count as skin. Hard shadows count as occlusion; hands count as skin.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        keypoints: (T, K, 3).
        masks: (T, H, W) uint8 as in `Clip.masks`; pixels of any attribute are excluded. If None, beards and
            other attributes count as occlusion.

    Returns:
        (T,) float32, 0..1; 0 if attributes cover the whole region.
    """
    values = []
    patches = _patches(frames, keypoints)
    bits = np.uint8(sum(map(attribute_bit, ATTRIBUTE_KINDS)))
    worn = [None] * len(frames) if masks is None else [
        patch > 0 for patch, _ in _patches((masks & bits > 0).astype(np.uint8) * 255, keypoints)]
    for (patch, face), covered in zip(patches, worn, strict=True):
        lab = _lab(patch)
        free = np.ones(face.u.shape, bool) if covered is None else ~covered
        away = lab - _skin_colour(lab, face, free)
        # Lightness varies along a face, the skin's hue hardly does.
        distance = np.sqrt((away[..., 0] / np.where(away[..., 0] > 0, 12, 16)) ** 2
                           + (away[..., 1] / 8) ** 2 + (away[..., 2] / 8) ** 2)
        eyes = face.points[[POSITION[145], POSITION[374]], 1].mean()
        rows = np.arange(len(lab))[:, None] > eyes + 0.08 * _UNIT
        region = _inner(face) & rows & ~_grown(lips(face), 2) & free
        values.append((distance[region] > 3).mean() if region.any() else 0.0)
    return np.array(values, np.float32)


def _skin_colour(lab: np.ndarray, face: FaceFrame, free: np.ndarray) -> np.ndarray:
    """Return the skin's colour (3,): the median of spots that masks, fringes and glasses rarely hide together."""
    at = lambda index: face.points[POSITION[index]]
    below = np.array([0, 0.05 * _UNIT])
    spots = [at(145) + below, at(374) + below, at(168), at(6), 0.5 * at(168) + 0.5 * at(10)]
    colours = []
    for x, y in spots:
        spot = cv2.circle(np.zeros(free.shape, np.uint8), (int(x), int(y)), 3, 1, -1) > 0
        if (spot & free).any():
            colours.append(np.median(lab[spot & free], axis=0))
    return np.median(colours, axis=0) if colours else np.median(lab[_inner(face)], axis=0)


# --- shared -------------------------------------------------------------------------------------------

def _patches(frames: np.ndarray, keypoints: np.ndarray) -> list[tuple[np.ndarray, FaceFrame]]:
    """Resample faces to upright patches; return each patch and its face coordinates."""
    return [_patch(frame, points) for frame, points in zip(frames, keypoints, strict=True)]


def _patch(frame: np.ndarray, keypoints: np.ndarray) -> tuple[np.ndarray, FaceFrame]:
    height, width = frame.shape[:2]
    points = keypoints[:, :2].astype(np.float64) * (width, height)
    contour = points[GROUPS["contour"]]
    across, up = (points[POSITION[b]] - points[POSITION[a]] for a, b in ((234, 454), (152, 10)))
    # Yaw or pitch shortens one axis of the face; the longer one sets the scale.
    unit = max(np.hypot(*up), 1.05 * np.hypot(*across), 1.0)
    turn = np.arctan2(across[1], across[0])
    # Bilinear sampling skips pixels when it shrinks a picture by more than half. Shrink large faces by area
    # first, sample at twice the resolution, then average.
    scale = 2 * _UNIT / unit
    if scale < 0.5:
        frame = cv2.resize(frame, None, fx=2 * scale, fy=2 * scale, interpolation=cv2.INTER_AREA)
        points = points * (frame.shape[1] / width, frame.shape[0] / height)
        contour, scale = points[GROUPS["contour"]], 0.5
    linear = scale * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    centre = (contour.min(axis=0) + contour.max(axis=0)) / 2
    matrix = np.hstack([linear, (_SIDE - linear @ centre)[:, None]])
    patch = warp_image(frame, matrix, "replicate", (2 * _SIDE, 2 * _SIDE))
    patch = cv2.resize(patch, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    moved = (points @ linear.T + matrix[:, 2]) / (2 * _SIDE)
    return patch, face_frame(moved.astype(np.float32), _SIDE, _SIDE)


def _inner(face: FaceFrame) -> np.ndarray:
    """(H, W) bool: the face oval without its rim, which may show hair, ears or background."""
    return cv2.erode(oval(face).astype(np.uint8), _disc(6), borderValue=0) > 0


def _below_nose(face: FaceFrame) -> np.ndarray:
    """(H, W) bool: rows of the patch below the nose's base."""
    return np.arange(len(face.u))[:, None] > face.points[GROUPS["nose_base"], 1].mean()


def _lab(patch: np.ndarray) -> np.ndarray:
    """Convert a patch to (H, W, 3) float32 CIE Lab: lightness 0..100, red and yellow about -100..100."""
    return cv2.cvtColor(cv2.GaussianBlur(patch, (0, 0), 1.0).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def _grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), _disc(pixels)) > 0


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
