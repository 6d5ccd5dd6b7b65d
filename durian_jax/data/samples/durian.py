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

from durian_jax.data.augment import change_colours, degrade, jitter_colour, jitter_mask, random_affine, random_colours
from durian_jax.data.samples.config import DataConfig
from durian_jax.data.sources import ClipSource, OpenClip
from durian_jax.faces.clip import attribute_bit, view_keypoints
from durian_jax.faces.face_crop import face_crop
from durian_jax.faces.fill_region import dilate, margin_at, move_mask, portrait_region
from durian_jax.faces.pose import head_pose
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.faces.warp import transform_keypoints, warp_image, warp_nearest

# Mid grey, what models see as 0.
BLANK = 128

_ATTRIBUTE_BITS = sum(map(attribute_bit, ATTRIBUTE_KINDS))


def sample_pair(source: ClipSource, index: int, rng: np.random.Generator, config: DataConfig) -> dict:
    """One training sample from clip `index`, a function of the arguments and of `rng`'s state only.

    Returns:
        The batch's fields without B: frames (F, H, W, 3), frame_masks (F, H, W, 1), portrait (H, W, 3),
        portrait_mask (H, W, 1), attributes (A, H, W, 3), attribute_masks (A, H, W, 1), all uint8 with masks of
        0 and 1 and `BLANK` where nothing may be seen; keypoints (F, K, 3) and attribute_valid (A,) float32.
        `images.model_inputs` makes of them what models take. The loss alone sees frame_masks: where the frames
        show the attributes (all 0 without `config.frame_masks`). With `config.face_crops` also face (112, 112, 3)
        uint8, the portrait's, see `faces.face_crop.face_crop`.

    Raises:
        DecodeError: a damaged record, of this clip or of a donor.
    """
    clip, areas, size = source.open(index), source.outline(index).areas, config.image_size
    kinds, worn = _choose_kinds(areas, rng, config)
    targets = target_frames(len(clip), config.frames, config.max_stride, rng)
    sources = [_choose_frame(np.flatnonzero(areas[:, ATTRIBUTE_KINDS.index(kind)] >= config.minimum_area),
                             set(targets), rng) if worn else None for kind in kinds]
    portrait_frame = _choose_frame(np.arange(len(clip)), {*targets, *sources}, rng, {*sources})
    colours = random_colours(rng, config.clip_colour)

    slots = [_attribute(clip, kind, frame, rng, config, colours) for kind, frame in zip(kinds, sources, strict=True)]
    if rng.random() < config.attribute_dropout:
        slots = [empty_slot(size)] * len(slots)
    slots += [empty_slot(size)] * (config.attributes - len(slots))
    portrait_view = _View(clip, portrait_frame, size)
    portrait, region = _portrait(source, index, clip, portrait_view, kinds, worn, rng, config, colours)

    views = [_View(clip, i, size) for i in targets]
    images, masks, valid = zip(*slots, strict=True)
    sample = {
        "frames": np.stack([change_colours(view.frame(), colours) for view in views]),
        "frame_masks": np.stack([_shown(view, kinds) for view in views])[..., None] if config.frame_masks
        else np.zeros((config.frames, size, size, 1), np.uint8),
        "keypoints": np.stack([view.keypoints for view in views]),
        "portrait": portrait,
        "portrait_mask": region[..., None].astype(np.uint8),
        "attributes": np.stack(images),
        "attribute_masks": np.stack(masks)[..., None].astype(np.uint8),
        "attribute_valid": np.array(valid, np.float32),
    }
    if config.face_crops:
        sample["face"] = face_crop(portrait_view.frame(), portrait_view.keypoints)
    return sample


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
    return np.full((size, size, 3), BLANK, np.uint8), np.zeros((size, size), bool), 0.0


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


# --- the region to fill -------------------------------------------------------------------------------

def _expansion(source: ClipSource, index: int, clip: OpenClip, kind: str, keypoints: np.ndarray,
               rng: np.random.Generator, config: DataConfig) -> np.ndarray | None:
    """(size, size) bool: where an attribute of another shape would lie on the face with these keypoints (M_gen)."""
    if len(clip.generated_frames) and rng.random() < config.generated_probability:
        number = int(rng.integers(len(clip.generated_frames)))
        mask = clip.generated_mask(number)
        if (mask & attribute_bit(kind)).any():
            return _moved(mask, clip.keypoints[clip.generated_frames[number]], kind, keypoints, config)
    donor = _donor(source, index, kind, head_pose(keypoints), rng, config)
    return None if donor is None else _moved(*source.donor(*donor), kind, keypoints, config)


def _moved(masks: np.ndarray, from_keypoints: np.ndarray, kind: str, keypoints: np.ndarray, config: DataConfig
           ) -> np.ndarray:
    """(size, size) bool: the masks' bits of one kind, moved from one face's keypoints to another's."""
    size = config.image_size
    # A small mask says nothing about single pixels: moved at a quarter of the size it takes a quarter of the time.
    rough = size // 4 if 2 * masks.shape[0] <= size else size
    moved = move_mask((masks & attribute_bit(kind)) > 0, from_keypoints, keypoints, (rough, rough))
    if rough == size:
        return moved
    return cv2.resize(moved.view(np.uint8) * np.uint8(255), (size, size), interpolation=cv2.INTER_LINEAR) > 127


def _donor(source: ClipSource, index: int, kind: str, pose: np.ndarray, rng: np.random.Generator,
           config: DataConfig) -> tuple[int, int] | None:
    """Another person's clip and which of its donor frames has the head pose nearest to `pose` (3,); sometimes any.

    Any, because a photo at inference has the pose it has.
    """
    identity, column = source.outline(index).identity, ATTRIBUTE_KINDS.index(kind)
    candidates = []
    for other in rng.integers(0, len(source), config.donor_tries):
        outline, frames = source.outline(int(other)), source.donor_frames(int(other))
        shown = np.flatnonzero(outline.areas[frames, column] >= config.minimum_area)
        if len(shown) and outline.identity != identity:
            # Roll does not count: masks are moved by a similarity.
            away = ((outline.poses[frames[shown], :2] - pose[:2]) ** 2).sum(-1)
            candidates.append((float(away.min()), int(other), int(shown[away.argmin()]), shown))
        if len(candidates) == config.donor_candidates:
            break
    if not candidates:
        return None
    if rng.random() < config.closest_probability:
        return min(candidates, key=lambda candidate: candidate[0])[1:3]
    return candidates[0][1], int(rng.choice(candidates[0][3]))


# --- the pictures -------------------------------------------------------------------------------------

class _View:
    """One frame of a clip at the batch's scale, with what its margin holds.

    Attributes:
        margin: pixels around the view at this scale.
        keypoints: (K, 3) float32 in units of the view.
    """

    def __init__(self, clip: OpenClip, index: int, size: int):
        self._clip, self._index, self._size = clip, index, size
        self._frame = clip.frame(index)
        stored = self._frame.shape[0]
        inner = stored - 2 * clip.margin
        self.margin = round(clip.margin * size / inner)
        self._side = size + 2 * self.margin
        if stored != self._side:
            self._frame = cv2.resize(self._frame, (self._side, self._side), interpolation=cv2.INTER_AREA)
        self.keypoints = view_keypoints(clip.keypoints[index], inner, inner, clip.margin)

    def frame(self) -> np.ndarray:
        """(size, size, 3) uint8."""
        return self._inside(self._frame)

    def mask(self) -> np.ndarray:
        """(size, size) uint8 bit field."""
        return self._inside(self._field())

    def moved(self, layers: int, move: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The view moved by a (2, 3) matrix, with what lies around it; beyond the picture its edge is repeated.

        Returns:
            (size, size, 3) uint8, and (size, size) uint8: the share of each pixel that the mask bits `layers` cover,
            255 for all of it.
        """
        mask = ((self._field() & np.uint8(layers)) > 0).view(np.uint8) * np.uint8(255)
        if np.array_equal(move, np.eye(2, 3)):
            return self.frame(), self._inside(mask)
        # Four channels are moved in less than half the time of three (benchmarks/data.py), and one of them is free.
        packed = cv2.cvtColor(self._frame, cv2.COLOR_RGB2RGBA)
        cv2.insertChannel(mask, packed, 3)
        packed = warp_image(packed, self._from_stored(move), "replicate", (self._size, self._size))
        return cv2.cvtColor(packed, cv2.COLOR_RGBA2RGB), cv2.extractChannel(packed, 3)

    def moved_field(self, move: np.ndarray, layers: int) -> np.ndarray:
        """(size, size) uint8: the mask bits `layers`, moved alike; each pixel takes the nearest one's."""
        field, size = self._field() & np.uint8(layers), (self._size, self._size)
        return warp_nearest(field, self._from_stored(move), size) if field.any() else np.zeros(size, np.uint8)

    def _field(self) -> np.ndarray:
        if not hasattr(self, "_bits"):
            bits = self._clip.mask(self._index)
            # Bits cannot be averaged: nearest neighbour.
            self._bits = bits if bits.shape[0] == self._side else cv2.resize(
                bits, (self._side, self._side), interpolation=cv2.INTER_NEAREST_EXACT)
        return self._bits

    def _inside(self, picture: np.ndarray) -> np.ndarray:
        return picture[self.margin:self.margin + self._size, self.margin:self.margin + self._size]

    def _from_stored(self, move: np.ndarray) -> np.ndarray:
        shift = move[:, :2] @ np.full(2, -float(self.margin))
        return np.concatenate([move[:, :2], (move[:, 2] + shift)[:, None]], 1)


def _blanked(image: np.ndarray, region: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 with `BLANK` in the (H, W) bool region."""
    return cv2.copyTo(image, (~region).view(np.uint8), np.full_like(image, BLANK))


def _shown(view: _View, kinds: list[str]) -> np.ndarray:
    """(size, size) uint8: where a frame shows attributes of these kinds, with their outline."""
    bits = sum(attribute_bit(kind) for kind in kinds)
    mask = view.mask()
    return dilate((mask & bits) > 0, margin_at(mask.shape[0])).astype(np.uint8)


def _move(rng: np.random.Generator, config: DataConfig, shift: float, scale: float, rotation: float) -> np.ndarray:
    """A random affine move of a reference, or none."""
    if rng.random() < config.augment_probability:
        return random_affine(rng, config.image_size, shift, scale, rotation)
    return np.eye(2, 3)


def _degraded(rng: np.random.Generator, image: np.ndarray, hidden: np.ndarray, config: DataConfig,
              colours: np.ndarray | None) -> np.ndarray:
    """(H, W, 3) uint8 in the sample's colours, perhaps degraded, `BLANK` in the (H, W) bool region to hide.

    Blanked before it is degraded too: blur and JPEG would spread what is hidden into what is seen. Without
    `config.mask_references` nothing is blanked.
    """
    blur = config.blur * config.image_size / 128
    blank = (lambda picture: _blanked(picture, hidden)) if config.mask_references else (lambda picture: picture)
    image = blank(change_colours(image, colours))
    degraded = degrade(rng, image, config.blur_probability, blur, config.jpeg_probability)
    return image if degraded is image else blank(degraded)


def _attribute(clip: OpenClip, kind: str, frame: int | None, rng: np.random.Generator, config: DataConfig,
               colours: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, float]:
    """Image (H, W, 3) uint8, blanked outside its mask (H, W) bool, and validity of one attribute reference."""
    size = config.image_size
    if frame is None:
        return empty_slot(size)
    view = _View(clip, frame, size)
    move = _move(rng, config, config.attribute_shift, config.attribute_scale, config.attribute_rotation)
    image, share = view.moved(attribute_bit(kind), move)
    mask = share > 127
    if rng.random() < config.mask_jitter:
        mask = jitter_mask(rng, mask, config.mask_jitter_pixels * size / 128)
    image = jitter_colour(rng, image, config.attribute_brightness)
    image = _degraded(rng, image, ~mask, config, colours)
    # A shift may have carried a small attribute out of the picture: then there is nothing to attend to.
    return image, mask, float(mask.any())


def _portrait(source: ClipSource, index: int, clip: OpenClip, view: _View, kinds: list[str], worn: bool,
              rng: np.random.Generator, config: DataConfig, colours: np.ndarray | None
              ) -> tuple[np.ndarray, np.ndarray]:
    """Portrait (H, W, 3) uint8, blanked in the region to fill, which is (H, W) bool."""
    size = config.image_size
    move = _move(rng, config, config.portrait_shift, config.portrait_scale, config.portrait_rotation)
    bits = sum(attribute_bit(kind) for kind in kinds)
    image, share = view.moved(bits, move)
    # What the portrait wears of these kinds goes wherever it touches a pixel; the others only tell what stays on top.
    own = view.moved_field(move, _ATTRIBUTE_BITS & ~bits) | (share > 0).view(np.uint8) * np.uint8(bits)
    keypoints = transform_keypoints(view.keypoints, move, size, size)

    others = []
    for kind in kinds:
        # Where the kind is not worn, the other mask alone is the region.
        if not worn or rng.random() < config.expand_probability:
            mask = _expansion(source, index, clip, kind, keypoints, rng, config)
            if mask is not None:
                others.append((kind, mask))
    least, most = (round(pixels * size / 128) for pixels in config.margin)
    margin = int(rng.integers(least, max(least, most) + 1))
    region = portrait_region(own, kinds, others, margin=max(margin, min(1, config.margin[1])))
    return _degraded(rng, image, region, config, colours), region
