"""The region of the portrait that may change (M_port), shared by training and inference.

arXiv 2509.04434 trains with M_port = M_attr UNION M_gen, where M_gen is the attribute's mask in a generated
image of the same pose. At inference, M_port = M_port_init UNION M_attr_aligned. This module uses the same
union for both: here M_gen is the attribute mask of another person (the donor), moved to this face by
keypoints, as at inference.
"""

from collections.abc import Iterable, Mapping, Sequence

import cv2
import numpy as np

from durian_jax.errors import InputError
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.warp import keypoint_similarity, warp_mask

# Attribute kinds from the skin outwards: later kinds cover earlier ones.
LAYERS = ("beard", "hair", "glasses", "hat")


# Up to this radius, a disc is as fast as an octagon.
_LARGEST_DISC = 3


def dilate(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Dilate a (H, W) mask by a disc of radius `pixels` (an octagon if above 3); a negative radius erodes."""
    if pixels == 0:
        return mask
    grow, radius = cv2.dilate if pixels > 0 else cv2.erode, abs(pixels)
    field = mask.view(np.uint8) if mask.dtype == bool else mask.astype(np.uint8)
    if radius <= _LARGEST_DISC:
        return grow(field, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))) > 0
    # A square followed by a diamond is an octagon; its corners reach 1.08 radii.
    diamond = round(0.586 * radius)
    square = 2 * (radius - diamond) + 1
    field = grow(field, cv2.getStructuringElement(cv2.MORPH_RECT, (square, square)))
    return grow(field, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)), iterations=diamond) > 0


def move_mask(mask: np.ndarray, from_keypoints: np.ndarray, to_keypoints: np.ndarray,
              size: tuple[int, int] | None = None) -> np.ndarray:
    """Move a donor's (H, W) mask onto another face by the similarity between their keypoints.

    `size` is the (H, W) of the target's picture; None if both pictures have the same size.
    """
    height, width = mask.shape
    to_height, to_width = size or mask.shape
    scale = np.diag([to_width / width, to_height / height])
    # The similarity is in the donor's pixels; `scale` converts them to the target's.
    matrix = scale @ keypoint_similarity(from_keypoints, to_keypoints, height, width)
    return warp_mask(mask, matrix, size=(to_height, to_width))


def portrait_region(worn: np.ndarray, kinds: Iterable[str],
                    moved_masks: Iterable[tuple[str, np.ndarray]] = (), *, margin: int | Mapping[str, int],
                    layers: Sequence[str] = LAYERS) -> np.ndarray:
    """Return M_port of a portrait that receives new attributes: dilate(worn masks UNION moved masks).

    Moved masks spare the kinds that stay on top. Otherwise new hair would erase a hat that stays on, and no
    other input shows that hat to the model. The paper does not define overlaps; `LAYERS` is our order.

    Args:
        worn: (H, W) uint8 bit field of the attributes that the portrait wears (`Clip.masks`).
        kinds: attribute kinds to replace or remove.
        moved_masks: (kind, (H, W) bool) of the new attributes, already moved to the portrait.
        margin: dilation in pixels, or the dilation of each kind; at least 1 removes the blended pixels of an
            antialiased edge.
        layers: attribute kinds from the skin outwards.

    Returns:
        (H, W) bool, True = region to fill.
    """
    moved_masks = list(moved_masks)
    kinds = set(kinds) | {kind for kind, _ in moved_masks}
    margins = margin if isinstance(margin, Mapping) else dict.fromkeys(kinds, margin)
    # Masks of one margin are dilated together.
    grown: dict[int, list[np.ndarray]] = {}
    for kind in kinds:
        grown.setdefault(margins[kind], []).append((worn & attribute_bit(kind)) > 0)
    for kind, mask in moved_masks:
        stays = [other for other in layers[layers.index(kind) + 1:] if other not in kinds]
        grown[margins[kind]].append(mask & ((worn & sum(attribute_bit(other) for other in stays)) == 0))
    regions = [dilate(np.logical_or.reduce(masks), pixels) for pixels, masks in grown.items()]
    return np.logical_or.reduce([np.zeros(worn.shape, bool), *regions])


def ordered_layers(order: Sequence[str]) -> tuple[str, ...]:
    """`LAYERS` with some kinds in another order: they exchange their places.

    Args:
        order: kinds, the outermost first. () leaves the order as it is.

    Raises:
        InputError: an unknown kind, or one that is named twice.
    """
    if isinstance(order, str) or not set(order) <= set(LAYERS) or len(set(order)) < len(order):
        raise InputError(f"order: expected some of {', '.join(reversed(LAYERS))}, each once and the outermost first, "
                         f"found {order if isinstance(order, str) else ', '.join(map(str, order))}")
    inwards = iter(order)
    return tuple(next(inwards) if kind in order else kind for kind in reversed(LAYERS))[::-1]


def margin_at(size: int, pixels: float = 2) -> int:
    """Scale a margin of `pixels` at 128 px to a picture size, at least 1; 2 is the mean of the training range."""
    return max(1, round(size * pixels / 128))
