"""Single transfers under hard conditions: other extents, poses, light, and wrong masks.

T frames, H x W pixels.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import cv2
import numpy as np

from durian_jax.evaluation import metrics
from durian_jax.evaluation.suites.question import PEOPLE, Question, Suite, first_person, kind_of, one_transfer
from durian_jax.evaluation.transfer import TransferCase, render_case
from durian_jax.faces.clip import Clip, attribute_bit
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.inference.references import with_photos
from durian_jax.synthetic import Motion, Person, render, sample_motion, sample_person, still

# --- extent -------------------------------------------------------------------------------------------------------

_CANDIDATES = 16  # people among whom the smallest and the largest attribute are chosen
_MEASURED = 64  # pixels per side of the pictures in which attributes are measured
_DIRECTIONS = ("larger", "smaller")


def extent(kind: str, direction: str, index: int, frames: int, size: int, split: str) -> Question:
    """Replace the smallest of 16 attributes by the largest ("larger"), or the other way round ("smaller")."""
    row = ATTRIBUTE_KINDS.index(kind) * len(_DIRECTIONS) + _DIRECTIONS.index(direction)
    first = first_person("extent", index, row)
    person = sample_person(split, first)
    if kind == "hair":
        person = person.without("hat")  # it would cover the hair
    others = [sample_person(split, first + number, require=(kind,)) for number in range(2, 2 + _CANDIDATES)]
    sizes = [_box(person.wear(**{kind: other}), kind) for other in others]
    own, new = int(np.argmin(sizes)), int(np.argmax(sizes))
    if direction == "smaller":
        own, new = new, own
    case = one_transfer(person.wear(**{kind: others[own]}), kind, others[new], first, split, frames, size)
    ratio = sizes[new] / max(sizes[own], 1)
    return Question(case, measure=lambda result, alone: {"extent": ratio})


def _box(person: Person, kind: str) -> int:
    """Area of the box around an attribute of a person who looks into the camera, in pixels at 64 px."""
    _, _, width, height = cv2.boundingRect(render(person, still(), _MEASURED).mask(kind)[0].astype(np.uint8))
    return width * height


def _extent_rows(count: int, frames: int, size: int, split: str):
    return {f"{kind} {direction}": [partial(extent, kind, direction, index, frames, size, split)
                                    for index in range(count)]
            for kind in ATTRIBUTE_KINDS for direction in _DIRECTIONS}


# --- pose ---------------------------------------------------------------------------------------------------------

# Bins of the pose difference in degrees. Motions of the procedural world reach about 70.
POSE_BINS = ((0, 15), (15, 30), (30, 45), (45, 70))


def pose(bin_number: int, index: int, frames: int, size: int, split: str) -> Question:
    """Choose the poses of portrait and attribute photo so that the pose difference lies in a bin.

    The difference is the largest Euclidean distance of (yaw, pitch, roll) between portrait, attribute photo and the
    mean pose of the driver.
    """
    kind, first = kind_of(index), first_person("pose", index, bin_number)
    person = sample_person(split, first)
    if kind in ("hair", "hat"):
        person = person.without("hat")  # as in the benchmark
    motion = sample_motion(split, first + 1, frames)
    photos = [sample_motion(split, first + number, 1) for number in range(2, PEOPLE)]
    angles = np.stack([_angles(photo) for photo in photos])
    to_driver = np.linalg.norm(angles - _angles(motion), axis=-1)
    apart = np.linalg.norm(angles[:, None] - angles, axis=-1)
    difference = np.maximum(apart, np.maximum(to_driver[:, None], to_driver))
    low, high = POSE_BINS[bin_number]
    # Beyond the bin if no pair of photos is in it, which only extreme drivers cause.
    away = np.maximum(np.maximum(low - difference, difference - high), 0) + 1e3 * np.eye(len(photos))
    portrait, donor = np.unravel_index(away.argmin(), away.shape)
    case = render_case(person, [(kind, sample_person(split, first + 2, require=(kind,)))],
                       sample_person(split, first + 1), photo=photos[portrait], donor_photos=[photos[donor]],
                       motion=motion, size=size)
    found = float(difference[portrait, donor])
    return Question(case, measure=lambda result, alone: {"pose": found})


def _angles(motion: Motion) -> np.ndarray:
    """(3,) mean yaw, pitch and roll in degrees."""
    return np.array([motion.yaw.mean(), motion.pitch.mean(), motion.roll.mean()])


def _pose_rows(count: int, frames: int, size: int, split: str):
    return {f"{low} to {high}°": [partial(pose, number, index, frames, size, split) for index in range(count)]
            for number, (low, high) in enumerate(POSE_BINS)}


# --- light --------------------------------------------------------------------------------------------------------

def _gained(*gains: float) -> Callable[[np.ndarray], np.ndarray]:
    """Multiply red, green and blue."""
    return lambda frames: _clipped(frames * np.array(gains))


def _contrasted(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    """Scale the distance from middle grey."""
    return lambda frames: _clipped(127.5 + factor * (frames - 127.5))


def _clipped(frames: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(frames, 0, 255)).astype(np.uint8)


AS_IT_IS = "as it is"
# Row -> frames (..., 3) uint8 in other light.
LIGHTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    AS_IT_IS: lambda frames: frames,
    "darker": _gained(0.65, 0.65, 0.65), "brighter": _gained(1.35, 1.35, 1.35),
    "low contrast": _contrasted(0.6), "high contrast": _contrasted(1.4),
    "warm": _gained(1.2, 1.0, 0.75), "cool": _gained(0.8, 1.0, 1.25)}


def light(row: str, index: int, frames: int, size: int, split: str) -> Question:
    """Change the light of the attribute photo; every row shows the same people."""
    case, change = _plain_case("light", index, frames, size, split), LIGHTS[row]
    ((kind, photo),) = with_photos(case.attributes)
    region = case.attribute_region()
    lit = np.where(region[..., None], change(case.truth.frames), case.truth.frames)
    return Question(replace(case, attributes=((kind, replace(photo, frames=change(photo.frames))),)),
                    measure=lambda result, alone: {"psnr_region_lit": metrics.psnr(result, lit, region)})


def _plain_case(suite: str, index: int, frames: int, size: int, split: str) -> TransferCase:
    """A transfer to a person who wears an attribute of this kind."""
    kind, first = kind_of(index), first_person(suite, index)
    person = sample_person(split, first, require=(kind,))
    if kind == "hair":
        person = person.without("hat")  # it would cover the hair
    return one_transfer(person, kind, sample_person(split, first + 2, require=(kind,)), first, split, frames, size)


def _light_rows(count: int, frames: int, size: int, split: str):
    return {row: [partial(light, row, index, frames, size, split) for index in range(count)] for row in LIGHTS}


# --- masks --------------------------------------------------------------------------------------------------------

EXACT = "exact"
_SHARE = 0.15
# Row -> whose mask is changed, and the change of its area.
MASKS = {EXACT: ("", 0.0), "attribute eroded": ("attribute", -_SHARE), "attribute dilated": ("attribute", _SHARE),
         "portrait eroded": ("portrait", -_SHARE), "portrait dilated": ("portrait", _SHARE)}


def masks(row: str, index: int, frames: int, size: int, split: str) -> Question:
    """Change the mask of the attribute, or of the portrait's own attribute; every row shows the same people."""
    case, (whose, share) = _plain_case("masks", index, frames, size, split), MASKS[row]
    ((kind, photo),) = with_photos(case.attributes)
    if whose == "attribute":
        case = replace(case, attributes=((kind, with_other_mask(photo, kind, share)),))
    elif whose == "portrait":
        case = replace(case, portrait=with_other_mask(case.portrait, kind, share))
    return Question(case)


def with_other_mask(photo: Clip, kind: str, share: float) -> Clip:
    """Return a photo in which the mask of a kind has lost or gained the pixels nearest to its edge.

    Args:
        photo: one frame.
        kind: of the attribute.
        share: change of the mask's area; negative: it loses pixels.
    """
    mask = photo.mask(kind)[0]
    count = round(abs(share) * mask.sum())
    if not count:
        return photo
    side = mask if share < 0 else ~mask  # the pixels that change
    distance = np.where(side, cv2.distanceTransform(side.astype(np.uint8), cv2.DIST_L2, 5), np.inf)
    changed = np.argsort(distance, axis=None, kind="stable")[:min(count, int(side.sum()))]
    mask = mask.copy()
    mask.flat[changed] = share > 0
    bit = attribute_bit(kind)
    return replace(photo, masks=((photo.masks & ~np.uint8(bit)) | (mask[None] * np.uint8(bit))).astype(np.uint8))


def _mask_rows(count: int, frames: int, size: int, split: str):
    return {row: [partial(masks, row, index, frames, size, split) for index in range(count)] for row in MASKS}


CONDITIONS = {"extent": Suite(_extent_rows), "pose": Suite(_pose_rows), "light": Suite(_light_rows, AS_IT_IS),
              "masks": Suite(_mask_rows, EXACT)}
