"""Training examples: heads with true masks, changed at random so that the network relies on no colour and no place.

Hair, hat, clothes and skin get other colours, the background is replaced, glasses are drawn, and light, noise, size and
position change. R = `READ` pixels, S = `features.SIDE` pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from durian_jax.faces.clip import Clip
from durian_jax.faces.drawn_glasses import DrawnGlasses
from durian_jax.faces.fill_region import dilate
from durian_jax.faces.regions import brow_height, face_frame, oval
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.segmentation.features import SIDE, head_features, mirrored
from durian_jax.synthetic import Person, render, sample_motion, sample_person

READ = 128
_HAIR, _GLASSES, _BEARD, _HAT = range(len(ATTRIBUTE_KINDS))
_SHOULDERS = -0.85  # v below which most pixels of a person are clothes
_TILT = 45  # largest tilt of a head in degrees


@dataclass(frozen=True)
class Example:
    """One picture of a head with true masks.

    Attributes:
        frame: (R, R, 3) uint8 RGB.
        keypoints: (K, 3) normalised.
        person: (R, R) uint8, confidence that a pixel shows a person.
        masks: (R, R, 4) bool in the order of `ATTRIBUTE_KINDS`.
        known: (R, R, 4) bool, False where the true mask is unknown.
        real: whether it is a photo; its colours are changed more often.
    """

    frame: np.ndarray
    keypoints: np.ndarray
    person: np.ndarray
    masks: np.ndarray
    known: np.ndarray
    real: bool = True


def example_of(clip: Clip, number: int) -> Example:
    """Return an example of one frame of a clip whose masks are right."""
    def fit(mask: np.ndarray) -> np.ndarray:
        return cv2.resize(mask.astype(np.uint8) * 255, (READ, READ), interpolation=cv2.INTER_AREA)
    masks = np.stack([fit(clip.mask(kind)[number]) > 127 for kind in ATTRIBUTE_KINDS], axis=-1)
    return Example(cv2.resize(clip.frames[number], (READ, READ), interpolation=cv2.INTER_AREA), clip.keypoints[number],
                   fit(clip.mask("person")[number]), masks, np.ones_like(masks))


def procedural_example(number: int) -> Example:
    """Return the example of a procedural person in a random pose on a black background."""
    person, motion = sample_person("train", number), sample_motion("train", number, 1)
    black, white = (render(_before(person, tone), motion, READ) for tone in (0, 255))
    share = white.frames[0].astype(np.int16).mean(axis=-1) - black.frames[0].mean(axis=-1)
    return replace(example_of(black, 0), person=_bytes(255 - share), real=False)


def _before(person: Person, tone: int) -> Person:
    """Put the person in front of a wall of one grey level."""
    wall = (float(tone),) * 3
    return replace(person, identity=replace(person.identity, background=wall, background_low=wall, backdrop=""))


def changed(example: Example, backgrounds: Sequence[np.ndarray], rng: np.random.Generator
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Change an example at random.

    Args:
        example: stays as it is.
        backgrounds: (R, R, 3) uint8 pictures whose parts serve as background.
        rng: source of randomness.

    Returns:
        (S, S, CHANNELS) float32 features, (S, S, 4) float32 true masks, and (S, S, 4) float32 weights (0 or 1).
    """
    frame, masks = example.frame.astype(np.float32), example.masks
    covered = masks[..., _HAIR] | masks[..., _HAT]
    body = np.maximum(example.person, covered * np.uint8(255))
    if example.real or rng.random() < 0.3:
        frame = _recoloured(frame, masks, body, example.keypoints, rng)
    if example.real and not masks[..., _GLASSES].any() and rng.random() < 0.3:
        frame, masks = _with_glasses(frame, masks, example.keypoints, rng)
    if example.real and not masks[..., _HAT].any() and rng.random() < 0.15:
        frame, masks = _with_hat(frame, masks, example.keypoints, backgrounds, rng)
        body = np.maximum(body, masks[..., _HAT] * np.uint8(255))
    if not example.real or rng.random() < 0.5:
        opacity = cv2.GaussianBlur(body, (0, 0), 0.7)[..., None] / np.float32(255)
        frame = frame * opacity + _background(backgrounds, rng) * (1 - opacity)
    frame = relit(frame, rng)
    person, points = _disturbed(example.person, rng), example.keypoints
    if rng.random() < 0.5:
        points = points + rng.normal(size=points.shape).astype(np.float32) * np.array([0.004, 0.004, 0], np.float32)
    layers = [head_features(frame, points, person, READ), masks.astype(np.float32), example.known.astype(np.float32)]
    if rng.random() < 0.5:
        layers = [mirrored(layers[0]), *(layer[:, ::-1] for layer in layers[1:])]
    scale = np.exp(rng.normal() * 0.12) * SIDE / READ
    angle = rng.uniform(-_TILT, _TILT) if rng.random() < 0.25 else rng.normal() * 10
    matrix = cv2.getRotationMatrix2D((READ / 2, READ / 2), angle, scale)
    matrix[:, 2] += (SIDE - READ) / 2 + rng.normal(size=2) * 5 * SIDE / READ
    features, masks, known = (_moved(layer, matrix) for layer in layers)
    return features, (masks > 0.5).astype(np.float32), (known > 0.9).astype(np.float32)


def _moved(layer: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Warp (R, R, C) to (S, S, C); OpenCV takes four channels at once."""
    parts = [cv2.warpAffine(np.ascontiguousarray(layer[..., first:first + 4]), matrix, (SIDE, SIDE),
                            borderMode=cv2.BORDER_REPLICATE).reshape(SIDE, SIDE, -1)
             for first in range(0, layer.shape[-1], 4)]
    return np.concatenate(parts, axis=-1)


# --- colours ------------------------------------------------------------------------------------------

def _recoloured(frame: np.ndarray, masks: np.ndarray, body: np.ndarray, keypoints: np.ndarray,
                rng: np.random.Generator) -> np.ndarray:
    """Give hair, hat, beard, clothes and skin other colours."""
    low = face_frame(keypoints, READ, READ).v < _SHOULDERS
    rest = (body > 128) & ~masks[..., _HAIR] & ~masks[..., _HAT]
    for region, share in ((masks[..., _HAIR], 0.55), (masks[..., _HAT], 0.5), (masks[..., _BEARD], 0.3),
                          (rest & low, 0.4)):
        if rng.random() < share and region.sum() >= 20:
            frame = _painted(frame, region, _other_colours(rng))
            strands = region & (_clouds(rng) > 0.3)
            if rng.random() < 0.25 and strands.any():
                frame = _painted(frame, strands, _other_colours(rng))
    if rng.random() < 0.4 and (rest & ~low).any():
        gain = np.array([rng.uniform(0.35, 1.2), *[rng.uniform(0.6, 1.3)] * 2], np.float32)
        frame = _painted(frame, rest & ~low, lambda lab, _: (lab - _GREY) * gain + _GREY)
    return frame


# Lab colours and the median of a region -> other Lab colours
_Change = Callable[[np.ndarray, np.ndarray], np.ndarray]
_GREY = np.array([0, 128, 128], np.float32)  # of 8-bit Lab


def _other_colours(rng: np.random.Generator) -> "_Change":
    """Return a function of the Lab colours and their median that moves them to a colour of hair or cloth."""
    gain = np.array([rng.uniform(0.5, 1.3), rng.uniform(0.5, 1.2), rng.uniform(0.5, 1.2)], np.float32)
    reddish = max(0.0, rng.normal()) * 10 * (rng.random() < 0.4)
    target = np.array([rng.uniform(20, 215), 128 + rng.normal() * 6 + reddish, 134 + rng.normal() * 8], np.float32)
    return lambda lab, middle: (lab - middle) * gain + target


def _painted(frame: np.ndarray, region: np.ndarray, change: "_Change") -> np.ndarray:
    """Change the Lab colours of a region with a soft edge."""
    lab = cv2.cvtColor(_bytes(frame), cv2.COLOR_RGB2LAB).astype(np.float32)
    soft = cv2.GaussianBlur(region.astype(np.float32), (0, 0), 1.0)[..., None]
    mixed = lab * (1 - soft) + change(lab, np.median(lab[region], axis=0)) * soft
    return cv2.cvtColor(_bytes(mixed), cv2.COLOR_LAB2RGB).astype(np.float32)


def _with_glasses(frame: np.ndarray, masks: np.ndarray, keypoints: np.ndarray, rng: np.random.Generator
                  ) -> tuple[np.ndarray, np.ndarray]:
    """Draw glasses, clear or tinted; they hide hair."""
    glasses = DrawnGlasses.sample(rng)
    opacity = glasses.opacity if rng.random() < 0.7 else rng.uniform(0.3, 0.95)
    glasses = replace(glasses, opacity=opacity, rim=glasses.rim * rng.uniform(0.3, 1))
    points, white = keypoints[:, :2] * READ, np.full(3, 255.0)
    solid = replace(glasses, colour=white, tint=white, opacity=1.0).worn(np.zeros((READ, READ, 3), np.uint8), points)
    masks = masks.copy()
    masks[..., _GLASSES] = solid[..., 0] > 100
    masks[..., _HAIR] &= ~masks[..., _GLASSES]
    return glasses.worn(_bytes(frame), points).astype(np.float32), masks


def _with_hat(frame: np.ndarray, masks: np.ndarray, keypoints: np.ndarray, pictures: Sequence[np.ndarray],
              rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a cap of one colour or of a pattern over the upper head; hair hangs out below it."""
    face = face_frame(keypoints, READ, READ)
    head = dilate(oval(face), round(rng.uniform(0.06, 0.3) * face.unit))
    if rng.random() < 0.4:
        head |= masks[..., _HAIR]
    # The lower edge is tilted and bent.
    edge = brow_height(face) + rng.uniform(-0.02, 0.22)
    edge = edge + face.u * rng.normal() * 0.15 - face.u ** 2 * rng.uniform(0, 0.5)
    hat = head & (face.v > edge)
    if rng.random() < 0.3:  # a band
        hat &= face.v < edge + rng.uniform(0.1, 0.25)
    if not hat.any():
        return frame, masks
    colour, cloth = rng.uniform(0, 255, 3).astype(np.float32), _background(pictures, rng)
    cloth = colour + (cloth - cloth.mean(axis=(0, 1))) * rng.uniform(0, 0.6)
    # Light and shade of what is below stay in part.
    light = cv2.GaussianBlur(frame.mean(axis=-1), (0, 0), 3)
    cloth = cloth * (light / max(float(light[hat].mean()), 1))[..., None] ** rng.uniform(0, 0.8)
    soft = cv2.GaussianBlur(hat.astype(np.float32), (0, 0), 0.8)[..., None]
    masks = masks.copy()
    masks[..., _HAT] = hat
    masks[..., _HAIR] &= ~hat
    return np.clip(frame * (1 - soft) + cloth * soft, 0, 255).astype(np.float32), masks


def _background(pictures: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Return (R, R, 3) float32: a part of a picture, one colour, or two colours in clouds, some with noise."""
    kind = rng.random()
    if kind < 0.45:
        picture, side = pictures[rng.integers(len(pictures))], rng.integers(READ // 5, READ)
        top, left = rng.integers(0, READ - side + 1, 2)
        return cv2.resize(picture[top:top + side, left:left + side], (READ, READ)).astype(np.float32)
    colour, other = rng.uniform(0, 255, (2, 3)).astype(np.float32)
    if kind < 0.6:
        return np.broadcast_to(colour, (READ, READ, 3))
    share = np.clip(_clouds(rng) * rng.uniform(0.2, 1) + 0.5, 0, 1)[..., None]
    mixed = colour * (1 - share) + other * share
    return mixed + rng.normal(size=(READ, READ, 1)).astype(np.float32) * (rng.uniform(5, 40) if kind > 0.85 else 0)


def relit(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change light, contrast, colour cast, sharpness and noise of (H, W, 3) float32; return uint8."""
    if rng.random() < 0.3:
        frame = frame * (1 + np.clip(_clouds(rng, frame.shape[:2]), -2, 2)[..., None] * 0.15)
    frame = 255 * np.clip(frame / 255, 0, 1) ** np.exp(rng.normal() * 0.3)
    frame = (frame - 127) * np.exp(rng.normal() * 0.2) + 127 + rng.normal() * 15
    frame = frame * np.exp(rng.normal(size=3) * (0.2 if rng.random() < 0.15 else 0.07))
    if rng.random() < 0.12:
        frame = np.repeat(frame.mean(axis=-1, keepdims=True), 3, axis=-1)
    if rng.random() < 0.3:
        frame = cv2.GaussianBlur(frame, (0, 0), rng.uniform(0.4, 1.6))
    if rng.random() < 0.4:
        frame = frame + rng.normal(size=frame.shape) * rng.uniform(2, 12)
    return _bytes(frame)


def _disturbed(person: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make mistakes in the person's outline."""
    if rng.random() < 0.3:
        kernel = np.ones((rng.integers(2, 6),) * 2, np.uint8)
        person = (cv2.dilate if rng.random() < 0.5 else cv2.erode)(person, kernel)
    if rng.random() < 0.15:
        person = _bytes(person * (1 - np.clip(_clouds(rng) - 0.7, 0, 1)))
    if rng.random() < 0.1:  # other people
        place = rng.uniform(0.05, 0.3) * READ
        beside = np.arange(READ) < place if rng.random() < 0.5 else np.arange(READ) > READ - place
        person = np.maximum(person, beside[None] * np.uint8(255))
    return person


def _clouds(rng: np.random.Generator, size: tuple[int, int] = (READ, READ)) -> np.ndarray:
    """(H, W) float32 smooth noise."""
    coarse = rng.normal(size=(rng.integers(2, 9),) * 2).astype(np.float32)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)
