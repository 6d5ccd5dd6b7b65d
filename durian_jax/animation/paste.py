"""Paste-back: the animated crop inside of the whole photo that it was cut from.

H x W pixels of the photo, n x n pixels of the crop.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from durian_jax.annotator import Annotator
from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip, layer_bit
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.images import turned
from durian_jax.video import read_image

# H.264 level 5.2: the largest pictures that the decoders of phones and browsers take.
_LONGEST_SIDE, _PIXELS = 4096, 36864 * 256

_WORK = 256  # side in pixels at which masks and colours are computed; the person detector works at this size
# Shares of the crop's side: growth of the person's mask, blur of its edge, and reach of the colour match.
_GROWTH, _FEATHER, _REACH = 0.035, 0.015, 0.15
# Width of the transition at the crop's edges. At the bottom it crosses the trunk, which stands still. Elsewhere it is
# narrow, because a wide one would show hair of the photo beside hair that has moved.
_EDGE, _BOTTOM_EDGE = 0.03, 0.12
_RELEASE = 0.8  # what a frame adds to the person's mask fades by this factor per frame, so that edges do not flicker
_SAME_PLACE = 24.0  # grey levels; a pixel that differs by more shows something else, and tells nothing about colours
_LARGEST_SHIFT = 48.0  # grey levels
_OTHER_PHOTO = 20.0  # mean difference in grey levels of a portrait and another photo


def paste_back(photo: np.ndarray | str | Path, portrait: Clip, frames: Iterable[np.ndarray],
               annotator: Annotator | None = None) -> Iterator[np.ndarray]:
    """Put animated crops back into the photo.

    A frame replaces the photo where the photo or the frame shows the person, with a soft edge. Its colours are shifted
    smoothly so that its background has the photo's. Everything else stays as it is in the photo, at the photo's
    resolution. A photo that is not upright is turned, as `annotate_image` does. A photo of more than 4096 pixels on a
    side, or 9.4 million in all, is made smaller: H.264 decoders of phones and browsers take no larger video.

    Args:
        photo: the picture that `portrait` was cut from, (H, W, 3) uint8 RGB, or its file.
        portrait: from `annotate_image`.
        frames: (n, n, 3) uint8 each, the animated portrait, for example of `Animator.stream`, joined.
        annotator: a loaded annotator; None: load one for this call.

    Yields:
        (H, W, 3) uint8, one for each frame.

    Raises:
        InputError: the portrait has no `box`, or was cut from another photo.
    """
    annotator = annotator or Annotator()
    picture = read_image(photo) if isinstance(photo, str | Path) else photo
    place = Place(turned(picture, annotator.turn(picture)), portrait)
    for frame in frames:
        yield place.paste(frame, annotator)


def pasted_size(height: int, width: int) -> tuple[int, int]:
    """Return height and width of the frames that `paste_back` makes of a photo."""
    scale = min(1.0, _LONGEST_SIDE / max(height, width), (_PIXELS / (height * width)) ** 0.5)
    return (height, width) if scale == 1 else (int(height * scale / 2) * 2, int(width * scale / 2) * 2)


class Place:
    """The place of a portrait in its photo; see `paste_back`.

    Args:
        photo: (H, W, 3) uint8 RGB.
        portrait: from `annotate_image`.

    Raises:
        InputError: the portrait has no `box`, or was cut from another photo.
    """

    def __init__(self, photo: np.ndarray, portrait: Clip):
        portrait = portrait.view()
        if portrait.box is None:
            raise InputError("portrait: expected one that annotate_image has cut from a photo, found one without the "
                             "place of the crop; annotate the photo again")
        height, width = pasted_size(*photo.shape[:2])
        x, y, side = portrait.box[0] * (width / photo.shape[1])
        self._photo = photo if photo.shape[:2] == (height, width) else cv2.resize(photo, (width, height),
                                                                                  interpolation=cv2.INTER_AREA)
        self._side, left, top = round(side), round(x - side / 2), round(y - side / 2)
        beyond = left, top, width - left - self._side, height - top - self._side  # negative: the crop ends outside
        self._at = np.s_[max(top, 0):max(top + self._side, 0), max(left, 0):max(left + self._side, 0)]
        self._inside = np.s_[max(-top, 0):self._side + min(beyond[3], 0), max(-left, 0):self._side + min(beyond[2], 0)]
        self._under = np.ascontiguousarray(self._photo[self._at])
        self._shown = _resize(portrait.frames[0], _WORK)
        if not self._fits():
            raise InputError("photo: expected the picture that the portrait was cut from, found another one; annotate "
                             "this photo")
        self._edge = _edge(beyond)
        worn = sum(layer_bit(layer) for layer in ("person", *ATTRIBUTE_KINDS))
        self._person = _resize(((portrait.masks[0] & worn) > 0).astype(np.float32), _WORK)
        self._added = np.zeros_like(self._person)

    def paste(self, frame: np.ndarray, annotator: Annotator) -> np.ndarray:
        """Return the photo with a frame; call it with one frame after the other."""
        small = _resize(frame, _WORK)
        person = annotator.person(small).astype(np.float32) / 255
        self._added = np.maximum(person, self._added * _RELEASE)
        share = _soft(np.maximum(self._person, self._added)) * self._edge
        matched = _clip(frame + _resize(self._colour_shift(small, share), len(frame)))
        share = self._enlarged(share)
        result = self._photo.copy()
        result[self._at] = cv2.blendLinear(self._enlarged(matched), self._under, share, 1 - share)
        return result

    def _colour_shift(self, small: np.ndarray, share: np.ndarray) -> np.ndarray:
        """What a frame's colours lack beside the photo's, around the pasted part and smoothly continued into it."""
        lacking = self._shown.astype(np.float32) - small
        weight = (1 - share) * np.exp(-(np.abs(lacking).mean(-1) / _SAME_PLACE) ** 2) + 1e-6
        shift = _blur(lacking * weight[..., None], _REACH) / _blur(weight, _REACH)[..., None]
        return np.clip(shift, -_LARGEST_SHIFT, _LARGEST_SHIFT)

    def _enlarged(self, picture: np.ndarray) -> np.ndarray:
        """A picture of the crop, in pixels of the photo, without what lies outside of the photo."""
        return np.ascontiguousarray(_resize(picture, self._side)[self._inside])

    def _fits(self) -> bool:
        """Whether the photo shows the portrait there."""
        there = np.zeros((self._side, self._side, 3), np.uint8)
        known = np.zeros((self._side, self._side), np.float32)
        if self._under.shape != there[self._inside].shape or not self._under.size:
            return False
        there[self._inside], known[self._inside] = self._under, 1
        whole = _resize(known, _WORK) > 0.999
        difference = np.abs(_resize(there, _WORK).astype(np.float32) - self._shown)[whole]
        return bool(difference.mean() < _OTHER_PHOTO)


def _edge(beyond: tuple[int, int, int, int]) -> np.ndarray:
    """(_WORK, _WORK) shares 0..1 that fall to 0 at the edges of the crop, except where the photo ends there too.

    Args:
        beyond: pixels of the photo left of the crop, above, right of and below it.
    """
    position = (np.arange(_WORK, dtype=np.float32) + 0.5) / _WORK
    left, top, right, bottom = (_rise(distance / width) if room > 0 else np.ones_like(position)
                                for distance, width, room in zip((position, position, 1 - position, 1 - position),
                                                                 (_EDGE, _EDGE, _EDGE, _BOTTOM_EDGE), beyond,
                                                                 strict=True))
    return (left * right)[None] * (top * bottom)[:, None]


def _rise(x: np.ndarray) -> np.ndarray:
    """A smooth step from 0 at 0 to 1 at 1."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _soft(mask: np.ndarray) -> np.ndarray:
    """Grow a mask (_WORK, _WORK) of shares and blur its edge."""
    reach = 2 * round(_GROWTH * _WORK) + 1
    return _blur(cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))), _FEATHER)


def _blur(image: np.ndarray, share: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), share * _WORK, borderType=cv2.BORDER_REPLICATE)


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    if len(image) == size:
        return image
    larger = cv2.INTER_CUBIC if image.dtype == np.uint8 else cv2.INTER_LINEAR  # cubic shares would leave 0..1
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if size < len(image) else larger)


def _clip(image: np.ndarray) -> np.ndarray:
    return (np.clip(image, 0, 255) + 0.5).astype(np.uint8)
