"""The region of the portrait that may change (M_port), shared by training and inference.

Durian trains with M_port = M_attr UNION M_gen, M_gen being the attribute's mask in a generated image
of the same pose; at inference M_port = M_port_init UNION M_attr_aligned. Here both are one
union: M_gen is the mask that another person (the donor) wears, moved to this face by keypoints,
which is the very thing that inference meets.
"""

from collections.abc import Iterable

import cv2
import numpy as np

from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.warp import keypoint_similarity, warp_mask

# Attribute kinds from the skin outwards: later ones cover earlier ones.
LAYERS = ("beard", "hair", "glasses", "hat")


# Up to this radius a disc is as fast as what stands in for it.
_LARGEST_DISC = 3


def dilate(mask: np.ndarray, pixels: int) -> np.ndarray:
    """(H, W) bool grown by a disc of `pixels` radius, or an octagon where it is large; negative erodes."""
    if pixels == 0:
        return mask
    grow, radius = cv2.dilate if pixels > 0 else cv2.erode, abs(pixels)
    field = mask.view(np.uint8) if mask.dtype == bool else mask.astype(np.uint8)
    if radius <= _LARGEST_DISC:
        return grow(field, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))) > 0
    # A square, then a diamond: the octagon's corners reach 1.08 radii.
    diamond = round(0.586 * radius)
    square = 2 * (radius - diamond) + 1
    field = grow(field, cv2.getStructuringElement(cv2.MORPH_RECT, (square, square)))
    return grow(field, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)), iterations=diamond) > 0


def move_mask(mask: np.ndarray, from_keypoints: np.ndarray, to_keypoints: np.ndarray,
              size: tuple[int, int] | None = None) -> np.ndarray:
    """A donor's (H, W) mask moved onto another face by the similarity between their keypoints.

    `size` is the (H, W) of the face moved to; None when both pictures are equally large.
    """
    height, width = mask.shape
    to_height, to_width = size or mask.shape
    scale = np.diag([to_width / width, to_height / height])
    # Both faces in the donor's pixels first, then to the other picture's.
    matrix = scale @ keypoint_similarity(from_keypoints, to_keypoints, height, width)
    return warp_mask(mask, matrix, size=(to_height, to_width))


def portrait_region(worn: np.ndarray, kinds: Iterable[str],
                    moved_masks: Iterable[tuple[str, np.ndarray]] = (), *, margin: int) -> np.ndarray:
    """M_port of a portrait that gets new attributes: dilate(what it wears of them U what will be put on it).

    What stays on top is spared: hair laid under a hat would otherwise wipe out the hat, of which nothing
    else could then tell the model. The paper leaves overlaps undefined; `LAYERS` is our order.

    Args:
        worn: (H, W) uint8 bit field of what the portrait wears (`Clip.masks`).
        kinds: attribute kinds to replace or remove.
        moved_masks: (kind, (H, W) bool) of the attributes to come, already moved to the portrait.
        margin: pixels to grow by; at least 1 removes the blended pixels of an antialiased edge.

    Returns:
        (H, W) bool, True = region to fill.
    """
    moved_masks = list(moved_masks)
    kinds = set(kinds) | {kind for kind, _ in moved_masks}
    coming = []
    for kind, mask in moved_masks:
        stays = [other for other in LAYERS[LAYERS.index(kind) + 1:] if other not in kinds]
        coming.append(mask & ((worn & sum(attribute_bit(other) for other in stays)) == 0))
    own = (worn & sum(attribute_bit(kind) for kind in kinds)) > 0
    return dilate(np.logical_or.reduce([own, *coming]), margin)


def margin_at(size: int, pixels: float = 2) -> int:
    """Pixels of margin at a picture size, at least 1, given those at 128: 2 is the middle of what training draws."""
    return max(1, round(size * pixels / 128))
