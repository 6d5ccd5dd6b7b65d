"""Reference pictures at inference: the portrait with its region to fill, and attributes from other photos.

A attributes, H x W pixels, K keypoints. A photo is a clip of one frame.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip, attribute_bit
from durian_jax.faces.fill_region import LAYERS, dilate, margin_at, portrait_region
from durian_jax.faces.moved_references import Reference
from durian_jax.faces.topology import POSITION
from durian_jax.faces.warp import align
from durian_jax.images import to_float

# Margin of M_port per kind, in pixels at 128 px. In training the region always held the attribute's true extent. Here
# the donor's mask tells the extent, moved onto a head of another shape and thus a few pixels off. docs/masks.md shows
# how the numbers were chosen.
MARGINS = {"hair": 4, "glasses": 4, "beard": 6, "hat": 2}
# The region covers at most this edge of a kind that stays on top, in pixels at 128 px.
_EDGE = 2


# Kind of each attribute and a photo of a person who wears it; None takes the portrait's own away.
Attributes = Sequence[tuple[str, Clip | None]]
Interpolation = float | Sequence[float | None] | np.ndarray


def with_photos(attributes: Attributes) -> list[tuple[str, Clip]]:
    """The attributes that come from photos."""
    return [(kind, photo) for kind, photo in attributes if photo is not None]


def blend_weights(interpolate: Interpolation | None, attributes: Attributes, frames: int) -> np.ndarray | None:
    """(T, A) weights of the attributes with photos in every frame, or None to compose all of them.

    Weights of at least 0 sum to 1, belong to one kind and blend it; -1 composes an attribute with the others.

    Args:
        interpolate: alpha in [0, 1] from the first to the second of two attributes; or a weight for each attribute with
            a photo, None (or NaN) for those to compose; or a row of weights for each frame. None: compose all.
        attributes: see `make_references`.
        frames: T.

    Raises:
        InputError: weights that do not fit the attributes or the frames.
    """
    if interpolate is None:
        return None
    kinds = [kind for kind, _ in with_photos(attributes)]
    given = np.asarray(interpolate, np.float32)
    if not given.ndim:
        given = np.stack([1 - given, given])
    composed = np.isnan(np.atleast_2d(given))
    weights = np.where(composed, 0, given)
    if given.ndim > 2 or weights.shape[1] != len(kinds) or (composed != composed[0]).any() or composed.all() \
            or not (weights >= 0).all() or not (abs(weights.sum(1) - 1) <= 1e-4).all():
        raise InputError("interpolate: expected alpha in [0, 1] with two attributes, or one weight >= 0 per attribute "
                         f"that sum to 1; found {_shown_weights(interpolate)} with {len(kinds)} attributes")
    if len(weights) not in (1, frames):
        raise InputError(f"interpolate: expected weights for {frames} frames, found {len(weights)}")
    mixed = {kind for kind, alone in zip(kinds, composed[0], strict=True) if not alone}
    if len(mixed) > 1:
        raise InputError(f"interpolate: expected attributes of one kind to blend, found {' and '.join(sorted(mixed))}; "
                         "compose them, or blend one after the other")
    return np.repeat(np.where(composed, np.float32(-1), weights), frames // len(weights), 0)


def _shown_weights(interpolate: Interpolation) -> str:
    shape = np.asarray(interpolate, np.float32).shape
    return f"weights of the shape {shape}" if len(shape) > 1 else str(interpolate)


def blended_selections(valid: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(B, M, A) bool: the attributes of the M = A selections that are blended, see `blend_weights`.

    Args:
        valid: (B, A) bool.
        weights: (B, F, A).
    """
    return (np.eye(valid.shape[1], dtype=bool) | (weights[:, :1] < 0)) & valid[:, None]


def make_references(portrait: Clip, attributes: Attributes, slots: int | None = None, align_attributes: bool = False,
                    masked: bool = True, layers: Sequence[str] = LAYERS) -> dict[str, np.ndarray]:
    """Return the reference fields of one clip, without a batch axis.

    M_port is the union of the portrait's own attributes of the given kinds and of every attribute's mask, moved onto
    the portrait by keypoints and grown by a margin (`region_to_fill`): the paper's Face Aligner without an external
    model.

    Args:
        portrait: photo of the identity.
        attributes: kind and photo of each; a kind given twice is meant for interpolation. A kind without a photo (None)
            is taken away: its region is filled, as where training showed that a person does not wear it.
        slots: A of the result; unused slots are invalid. None: the number of attributes with photos, at least 1.
        align_attributes: also warp the attribute's picture to the portrait's pose. Not needed: the model was trained on
            references in any pose.
        masked: the model's `masked_references`; False leaves pictures whole.
        layers: attribute kinds from the skin outwards.

    Returns:
        portrait (H, W, 3), 0 in the region; portrait_mask (H, W, 1); attributes (A, H, W, 3), 0 outside the
        attribute; attribute_masks (A, H, W, 1); attribute_valid (A,). float32, pictures in [-1, 1].

    Raises:
        InputError: pictures of different sizes, an unknown kind, a photo that does not show its attribute, or more
            attributes than slots.
    """
    given = with_photos(attributes)
    slots = slots if slots is not None else max(1, len(given))
    if len(given) > slots:
        raise InputError(f"{len(given)} attributes given, expected at most {slots}")
    shape = portrait.frames.shape[1:3]
    for kind, photo in given:
        if photo.frames.shape[1:3] != shape:
            raise InputError(f"{kind} photo: expected {shape[1]} x {shape[0]} pixels as the portrait has, "
                             f"found {photo.frames.shape[2]} x {photo.frames.shape[1]}; resize one of them")
        if not photo.mask(kind)[0].any():
            raise InputError(f"{kind} photo{f' ({photo.identity})' if photo.identity else ''}: "
                             f"expected a person with {kind}, found none; choose another photo")

    region = region_to_fill(portrait, attributes, layers)
    out = {
        "portrait": to_float(portrait.frames[0]) * (~region[..., None] if masked else 1),
        "portrait_mask": region[..., None].astype(np.float32),
        "attributes": np.zeros((slots, *shape, 3), np.float32),
        "attribute_masks": np.zeros((slots, *shape, 1), np.float32),
        "attribute_valid": np.zeros(slots, np.float32),
    }
    masks = visible_masks(given, layers)
    for slot, ((_, photo), mask) in enumerate(zip(given, masks, strict=True)):
        image = photo.frames[0]
        if align_attributes:
            image, mask = align(image, mask, photo.keypoints[0], portrait.keypoints[0])
        out["attributes"][slot] = to_float(image) * (mask[..., None] if masked else 1)
        out["attribute_masks"][slot] = mask[..., None]
        # Outer attributes may hide it completely: then nothing is attended to, as in training.
        out["attribute_valid"][slot] = float(mask.any())
    return out


def stacked_references(cases: Sequence[tuple[Clip, Attributes]], slots: int | None, least: int, **options: Any
                       ) -> dict[str, np.ndarray]:
    """`make_references` of several clips, with a batch axis.

    Args:
        cases: portrait and attributes of each clip.
        slots: A; None: the most attributes that a case has, or `least` if that is more.
        least: fewest slots that the model takes.
        options: of `make_references`.
    """
    if slots is None:
        slots = max(least, *(len(with_photos(attributes)) for _, attributes in cases))
    samples = [make_references(portrait, attributes, slots, **options) for portrait, attributes in cases]
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


def region_to_fill(portrait: Clip, attributes: Attributes, layers: Sequence[str] = LAYERS) -> np.ndarray:
    """Return M_port at inference, (H, W) bool: the pixels that the transfer may change.

    The region is grown by `MARGINS`, but not over kinds that the portrait keeps on top.

    Args:
        portrait, attributes, layers: see `make_references`.
    """
    if not attributes:
        return np.zeros(portrait.frames.shape[1:3], bool)
    moved = [(kind, moved_mask(kind, photo, portrait)) for kind, photo in with_photos(attributes)]
    size, worn = portrait.frames.shape[1], portrait.masks[0]
    kinds = {kind for kind, _ in attributes}
    margin = {kind: margin_at(size, MARGINS[kind]) for kind in kinds}
    region = portrait_region(worn, kinds, moved, margin=margin, layers=layers)
    for kind, mask in moved:
        if kind == "hat":
            region |= dilate(_hair_under_hat(portrait, mask), margin[kind])
    for kind in set(layers[min(map(layers.index, kinds)):]) - kinds:
        region &= ~dilate((worn & attribute_bit(kind)) > 0, -margin_at(size, _EDGE))
    return region


def _hair_under_hat(portrait: Clip, hat: np.ndarray) -> np.ndarray:
    """(H, W) bool: the portrait's hair above the hat's lower edge, along the head's vertical: a hat presses it down."""
    height, width = hat.shape
    top, chin = portrait.keypoints[0, [POSITION[10], POSITION[152]], :2] * (width, height)
    up = (top - chin) / max(np.linalg.norm(top - chin), 1e-6)
    y, x = np.mgrid[:height, :width]
    along, across = x * up[0] + y * up[1], np.rint(x * up[1] - y * up[0]).astype(int)
    columns = across[hat] - across.min()
    lowest = np.full(np.ptp(across) + 1, np.inf)
    np.minimum.at(lowest, columns, along[hat])
    edge = lowest[np.isfinite(lowest)]
    return portrait.mask("hair")[0] & (along > np.median(edge)) if len(edge) else np.zeros_like(hat)


def moved_mask(kind: str, photo: Clip, face: Clip) -> np.ndarray:
    """(H, W) bool: where an attribute of a photo lies on another photo's face, turned as this face is turned.

    The head is a body in space (`faces.moved_references`): another pose shows other parts of the hair than a similarity
    of keypoints in the picture finds.
    """
    worn = Reference(photo.frames[0], photo.mask(kind)[0], photo.keypoints[0], kind)
    return worn.on(face.keypoints[:1])[1][0]


def visible_masks(attributes: Sequence[tuple[str, Clip]], layers: Sequence[str] = LAYERS) -> list[np.ndarray]:
    """(H, W) bool mask of each attribute in its own photo, without the pixels that outer attributes will hide.

    The outer attribute's mask is moved from its photo to the inner one's (`moved_mask`). Attributes of equal kind do
    not hide each other.
    """
    masks = []
    for kind, photo in attributes:
        mask = photo.mask(kind)[0]
        for other_kind, other in attributes:
            if layers.index(other_kind) > layers.index(kind):
                mask = mask & ~moved_mask(other_kind, other, photo)
        masks.append(mask)
    return masks
