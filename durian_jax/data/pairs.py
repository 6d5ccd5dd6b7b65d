"""Pseudo pairs: a training sample of Durian from one clip of one person (self-reconstruction).

    frames to reconstruct   F frames of the clip, evenly spaced
    attribute image         another frame: only the attribute's pixels, moved about (ARNet)
    portrait                a third frame: everything but the attribute's region (PRNet)

The two references are complementary: neither shows what the other is there for. The region
blanked in the portrait is larger than the attribute (mask expansion), so that its outline gives the
attribute's extent away no more in training than at inference.
"""

import cv2
import numpy as np

from durian_jax.data.augment import jitter_colour, random_affine
from durian_jax.data.config import DataConfig
from durian_jax.data.sources import ClipSource, OpenClip
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.expand import dilate, margin_at, move_mask, portrait_region
from durian_jax.faces.topology import ATTRIBUTE_KINDS, RIGID
from durian_jax.faces.warp import transform_keypoints, warp_image, warp_mask
from durian_jax.images import to_float


def sample_pair(source: ClipSource, index: int, rng: np.random.Generator, config: DataConfig) -> dict:
    """One training sample from clip `index`, a function of the arguments and of `rng`'s state only.

    Returns:
        The batch's fields without B: frames (F, H, W, 3), frame_masks (F, H, W, 1), keypoints (F, K, 3),
        portrait (H, W, 3), portrait_mask (H, W, 1), attributes (A, H, W, 3), attribute_masks (A, H, W, 1),
        attribute_valid (A,); float32, pictures in [-1, 1] with 0 (mid grey) where blanked. The loss alone
        sees frame_masks: where the frames show the attributes.

    Raises:
        DecodeError: a damaged record, of this clip or of a donor.
    """
    clip, areas, size = source.open(index), source.outline(index).areas, config.image_size
    kinds, worn = _choose_kinds(areas, rng, config)
    targets = target_frames(len(clip), config.frames, config.max_stride, rng)
    sources = [_choose_frame(np.flatnonzero(areas[:, ATTRIBUTE_KINDS.index(kind)] >= config.minimum_area),
                             set(targets), rng) if worn else None for kind in kinds]
    portrait_frame = _choose_frame(np.arange(len(clip)), {*targets, *sources}, rng, {*sources})

    slots = [_attribute(clip, kind, frame, rng, config) for kind, frame in zip(kinds, sources, strict=True)]
    if rng.random() < config.attribute_dropout:
        slots = [empty_slot(size)] * len(slots)
    slots += [empty_slot(size)] * (config.attributes - len(slots))
    portrait, region = _portrait(source, index, clip, portrait_frame, kinds, worn, rng, config)

    images, masks, valid = zip(*slots, strict=True)
    masks = np.stack(masks)[..., None].astype(np.float32)
    region = region[..., None].astype(np.float32)
    return {
        "frames": to_float(np.stack([_frame(clip, i, size) for i in targets])),
        "frame_masks": np.stack([_shown(clip, kinds, i, size) for i in targets])[..., None].astype(np.float32),
        "keypoints": np.asarray(clip.keypoints[targets], np.float32),
        "portrait": to_float(portrait) * (1 - region),
        "portrait_mask": region,
        "attributes": to_float(np.stack(images)) * masks,
        "attribute_masks": masks,
        "attribute_valid": np.array(valid, np.float32),
    }


def target_frames(length: int, count: int, max_stride: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) evenly spaced frame indices of a clip; one shorter than that runs to and fro."""
    if length >= count:
        widest = (length - 1) // (count - 1) if count > 1 else 1
        stride = int(rng.integers(1, min(max_stride, widest) + 1))
        start = int(rng.integers(0, length - (count - 1) * stride))
        return start + stride * np.arange(count)
    period = max(1, 2 * (length - 1))
    place = np.arange(count) % period
    return np.minimum(place, period - place) if length > 1 else np.zeros(count, int)


def empty_slot(size: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Image, mask and validity of an attribute slot that holds nothing."""
    return np.zeros((size, size, 3), np.uint8), np.zeros((size, size), bool), 0.0


# --- the choices --------------------------------------------------------------------------------------

def _choose_kinds(areas: np.ndarray, rng: np.random.Generator, config: DataConfig) -> tuple[list[str], bool]:
    """The attribute kinds of a sample, and whether the person wears them."""
    worn = (areas >= config.minimum_area).any(0)
    # A kind of which a sliver shows is neither: too little to copy, too much to call absent.
    missing = ~(areas > 0).any(0)
    negative = (rng.random() < config.absent_probability or not worn.any()) and missing.any()
    weights = np.array(config.kind_weights) * (missing if negative else worn)
    if not weights.any():
        return [], False
    count = 2 if not negative and config.attributes > 1 and rng.random() < config.second_probability else 1
    count = min(count, int((weights > 0).sum()))
    chosen = rng.choice(len(ATTRIBUTE_KINDS), count, replace=False, p=weights / weights.sum())
    return [ATTRIBUTE_KINDS[i] for i in chosen], not negative


def _choose_frame(candidates: np.ndarray, avoid: set, rng: np.random.Generator,
                  never: set = frozenset()) -> int:
    """One of the candidate frames; outside `avoid`, or at least outside `never`, if there is such."""
    for excluded in (avoid, never, set()):
        left = [i for i in candidates if i not in excluded]
        if left:
            return int(left[rng.integers(len(left))])
    raise ValueError("no candidate frame")


def _donor(source: ClipSource, index: int, kind: str, keypoints: np.ndarray, rng: np.random.Generator,
           config: DataConfig) -> np.ndarray | None:
    """(H, W) bool: the mask that another person's attribute would have on this face, or None."""
    identity, column = source.outline(index).identity, ATTRIBUTE_KINDS.index(kind)
    for other in rng.integers(0, len(source), config.donor_tries):
        outline = source.outline(int(other))
        shown = np.flatnonzero(outline.areas[:, column] >= config.minimum_area)
        if len(shown) and other != index and outline.identity != identity:
            donor = source.open(int(other))
            # The frame of the most similar pose, of which a similarity leaves least over; or any, since a photo
            # at inference has the pose it has.
            closest = int(shown[np.argmin(_pose_difference(donor.keypoints[shown], keypoints))])
            frame = closest if rng.random() < config.closest_probability else int(rng.choice(shown))
            mask = _masks(donor, frame, config.image_size) & attribute_bit(kind)
            return move_mask(mask > 0, donor.keypoints[frame], keypoints)
    return None


def _pose_difference(faces: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(T,) squared distance that the best similarity leaves between faces (T, K, 3) and another (K, 3)."""
    # A similarity of the plane multiplies by a complex number: what it leaves is a projection's rest.
    a, b = (points[..., RIGID, 0] + 1j * points[..., RIGID, 1] for points in (faces, other))
    a, b = a - a.mean(-1, keepdims=True), b - b.mean()
    return (abs(b) ** 2).sum() - abs(a.conj() @ b) ** 2 / (abs(a) ** 2).sum(-1)


# --- the pictures -------------------------------------------------------------------------------------

def _frame(clip: OpenClip, index: int, size: int) -> np.ndarray:
    """(size, size, 3) uint8."""
    frame = clip.frame(index)
    return frame if frame.shape[:2] == (size, size) else cv2.resize(
        frame, (size, size), interpolation=cv2.INTER_AREA)


def _masks(clip: OpenClip, index: int, size: int) -> np.ndarray:
    """(size, size) uint8 bit field."""
    masks = clip.mask(index)
    # Bits cannot be averaged: nearest neighbour.
    return masks if masks.shape == (size, size) else cv2.resize(
        masks, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)


def _shown(clip: OpenClip, kinds: list[str], index: int, size: int) -> np.ndarray:
    """(size, size) bool: where a frame shows attributes of these kinds, with their outline."""
    bits = sum(attribute_bit(kind) for kind in kinds)
    return dilate((_masks(clip, index, size) & bits) > 0, margin_at(size))


def _attribute(clip: OpenClip, kind: str, frame: int | None, rng: np.random.Generator,
               config: DataConfig) -> tuple[np.ndarray, np.ndarray, float]:
    """Image (H, W, 3) uint8, mask (H, W) bool and validity of one attribute reference."""
    size = config.image_size
    if frame is None:
        return empty_slot(size)
    move = np.eye(2, 3)
    if rng.random() < config.augment_probability:
        move = random_affine(rng, size, config.attribute_shift, config.attribute_scale, config.attribute_rotation)
    image = jitter_colour(rng, warp_image(_frame(clip, frame, size), move), config.attribute_brightness)
    mask = warp_mask((_masks(clip, frame, size) & attribute_bit(kind)) > 0, move)
    if rng.random() < config.mask_jitter:
        mask = dilate(mask, int(rng.choice([-1, 1])))
    # A shift may have carried a small attribute out of the picture: then there is nothing to attend to.
    return image, mask, float(mask.any())


def _portrait(source: ClipSource, index: int, clip: OpenClip, frame: int, kinds: list[str], worn: bool,
              rng: np.random.Generator, config: DataConfig) -> tuple[np.ndarray, np.ndarray]:
    """Portrait (H, W, 3) uint8, not yet blanked, and the region to fill (H, W) bool."""
    size = config.image_size
    move = np.eye(2, 3)
    if rng.random() < config.augment_probability:
        move = random_affine(rng, size, config.portrait_shift, config.portrait_scale, config.portrait_rotation)
    # The edge is repeated, in the masks too: hair that touches the edge is then blanked there as well.
    image = warp_image(_frame(clip, frame, size), move, "replicate")
    own = _masks(clip, frame, size)
    moved_own = np.zeros_like(own)
    for kind in ATTRIBUTE_KINDS:
        bit = attribute_bit(kind)
        if (own & bit).any():
            moved_own[warp_mask((own & bit) > 0, move, threshold=0.0, border="replicate")] |= bit
    keypoints = transform_keypoints(clip.keypoints[frame], move, size, size)

    donors = []
    for kind in kinds:
        # Where the kind is not worn, the donor's mask alone is the region.
        if not worn or rng.random() < config.expand_probability:
            mask = _donor(source, index, kind, keypoints, rng, config)
            if mask is not None:
                donors.append((kind, mask))
    least, most = (round(pixels * size / 128) for pixels in config.margin)
    margin = int(rng.integers(least, max(least, most) + 1))
    return image, portrait_region(moved_own, kinds, donors, margin=max(margin, min(1, config.margin[1])))
