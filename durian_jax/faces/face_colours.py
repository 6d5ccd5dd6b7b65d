"""Colours of a face, and how a face gets the colours of another person. Teeth and the whites of eyes keep theirs.

H x W pixels, K keypoints. A box is left, top, width and height in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from durian_jax.faces.topology import GROUPS

Box = tuple[int, int, int, int]
_PLAIN = 60  # pixels that differ more from the median skin, in levels of 0..255, are shadows, highlights or hair
_CONTRAST = (0.75, 1.35)  # least and largest change of the skin's contrast
_SHADED = 0.35  # share of the skin's change of brightness that whites of eyes and teeth follow
_DARKEST = 0.6  # largest share of its brightness that an iris loses: its measured colour may contain some white
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class FaceColours:
    """Colours of a face, each (3,) float32 RGB, 0..255.

    Attributes:
        skin, spread: mean and standard deviation of the skin.
        lips, brows, irises: medians.
    """

    skin: np.ndarray
    spread: np.ndarray
    lips: np.ndarray
    brows: np.ndarray
    irises: np.ndarray

    def towards(self, other: "FaceColours", strength: float) -> "FaceColours":
        """Return the colours between these (strength 0) and another person's (strength 1)."""
        return FaceColours(*((1 - strength) * getattr(self, name) + strength * getattr(other, name)
                             for name in self.__dataclass_fields__))


def face_colours(frame: np.ndarray, keypoints: np.ndarray, attributes: np.ndarray) -> FaceColours:
    """Measure the colours of a face.

    Args:
        frame: (H, W, 3) uint8.
        keypoints: (K, 3) of the face, in units of the frame.
        attributes: (H, W) bool, pixels of hair and other attributes.
    """
    height, width = frame.shape[:2]
    points, box = keypoints[:, :2] * np.array([width, height], np.float32), (0, 0, width, height)
    parts = face_parts(points, box)
    face = _polygons([points[GROUPS["contour"]]], box) > 0.5
    features = sum(parts.values()) > 0.05
    skin = _pixels(frame, face & ~features & ~attributes, face & ~features, face)
    plain = np.abs(skin - np.median(skin, 0)).max(-1) < _PLAIN
    skin = skin[plain] if plain.any() else skin
    return FaceColours(skin.mean(0), skin.std(0), *(
        np.median(_pixels(frame, (part > 0.7) & ~attributes, part > 0.7, part >= max(0.05, part.max()), face), 0)
        for part in (parts["lips"], parts["brows"], parts["irises"])))


def _pixels(frame: np.ndarray, *masks: np.ndarray) -> np.ndarray:
    """(N, 3) float32: the frame's pixels in the first mask that is not empty, or all."""
    chosen = next((mask for mask in masks if mask.any()), np.ones(frame.shape[:2], bool))
    return frame[chosen].astype(np.float32)


def recoloured(picture: np.ndarray, points: np.ndarray, box: Box, own: FaceColours, wanted: FaceColours
               ) -> np.ndarray:
    """Change a face's colours.

    Skin gets the wanted mean and spread. Lips, brows and irises are mixtures of their own colour and the skin's or the
    pupil's: the change of their own colour is added in the share that a pixel has of it.

    Args:
        picture: (h, w, 3) uint8, what a box of the frame shows.
        points: (K, 2) keypoints in pixels of the frame.
        box: of the picture in the frame.
        own: colours of the face.
        wanted: the colours to give it.

    Returns:
        (h, w, 3) uint8.
    """
    parts = face_parts(points, box)
    pixels = picture.astype(np.float32)
    contrast = np.clip(wanted.spread / np.maximum(own.spread, 1), *_CONTRAST)
    painted = (pixels - own.skin) * contrast + wanted.skin
    for name in ("lips", "brows"):
        mine, theirs = getattr(own, name), getattr(wanted, name)
        before = (mine - own.skin) * contrast + wanted.skin
        away = mine - own.skin
        share = np.clip((pixels - own.skin) @ (away / max(float(away @ away), 1.0)), 0, 1) * parts[name]
        painted += share[..., None] * (theirs - before)
    # Whites of eyes and teeth: a part of the change of brightness.
    light = 1 + _SHADED * (float(wanted.skin @ _LUMA) / max(float(own.skin @ _LUMA), 1.0) - 1)
    unchanged = np.maximum(parts["eyes"], parts["mouth"])[..., None]
    painted += unchanged * (pixels * light - painted)
    dark = np.clip((pixels @ _LUMA) / max(float(own.irises @ _LUMA), 1.0), 0, 1) * parts["irises"]
    painted += dark[..., None] * np.clip(wanted.irises - own.irises, -_DARKEST * own.irises, None)
    return np.clip(np.rint(painted), 0, 255).astype(np.uint8)


def face_parts(points: np.ndarray, box: Box) -> dict[str, np.ndarray]:
    """Return soft masks (h, w) float32, 0..1, of lips, open mouth, eyes, brows and irises in a box.

    Args:
        points: (K, 2) keypoints in pixels.
        box: what the masks show.
    """
    sides = ("right", "left")
    mouth = _polygons([points[GROUPS["inner_lips"]]], box)
    eyes = _polygons([points[GROUPS[f"{side}_eye"]] for side in sides], box)
    discs = _polygons([_disc(points[GROUPS[f"{side}_iris"]]) for side in sides], box)
    brows = _polygons([_ribbon(points[GROUPS[f"{side}_brow"]]) for side in sides], box)
    lips = np.maximum(_polygons([points[GROUPS["outer_lips"]]], box) - mouth, 0)
    return {"lips": lips, "mouth": mouth, "eyes": eyes, "brows": brows, "irises": np.minimum(discs, eyes)}


def _disc(iris: np.ndarray) -> np.ndarray:
    """(16, 2) outline of an iris with (5, 2) points: its centre and four points on the rim."""
    radius = np.linalg.norm(iris[1:] - iris[:1], axis=-1).mean()
    angles = np.arange(16) * (np.pi / 8)
    return iris[:1] + radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def _ribbon(brow: np.ndarray) -> np.ndarray:
    """(2N, 2) outline of a brow with (N, 2) points along its upper edge."""
    along = np.gradient(brow, axis=0)
    down = np.stack([-along[:, 1], along[:, 0]], 1) / np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-6)
    if down[:, 1].sum() < 0:  # the left brow's points go to the right
        down = -down
    thick = np.linalg.norm(brow[-1] - brow[0])
    return np.concatenate([brow - 0.08 * thick * down, (brow + 0.2 * thick * down)[::-1]])


def _polygons(outlines: Sequence[np.ndarray], box: Box) -> np.ndarray:
    """(h, w) float32, 0..1: the share of every pixel that polygons of (N, 2) points cover, slightly blurred."""
    left, top, width, height = box
    mask = np.zeros((height, width), np.uint8)
    for outline in outlines:
        # Fractional bits and antialiasing: masks move smoothly from frame to frame.
        corners = np.rint((outline - (left + 0.5, top + 0.5)) * 16).astype(np.int32)
        cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(mask, (3, 3), 0).astype(np.float32) / 255
