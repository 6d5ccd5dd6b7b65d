"""Reference pictures of a training sample: attributes and the portrait, from other frames of the same clip.

    attribute image         a frame: only the attribute's pixels, moved about
    portrait                another frame: everything but the attribute's region

The two are complementary: neither shows what the other one shows. The region masked in the portrait is larger than the
attribute (mask expansion, arXiv 2509.04434), so that its outline tells no more about the attribute's extent in training
than at inference.

H x W pixels, K keypoints.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from durian_jax.data.augment import change_colours, degrade, jitter_colour, jitter_mask, random_affine, random_colours
from durian_jax.data.samples.config import SampleConfig
from durian_jax.data.samples.donors import expansion
from durian_jax.data.samples.views import BLANK, View, blanked
from durian_jax.data.sources import ClipSource, OpenClip
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.fill_region import dilate, margin_at, portrait_region
from durian_jax.faces.moved_references import Reference
from durian_jax.faces.topology import ATTRIBUTE_KINDS, SHOWN_AREA
from durian_jax.faces.warp import transform_keypoints
from durian_jax.fields import FieldError, Items, NotNegative, Positive, Range, Share

_ATTRIBUTE_BITS = sum(map(attribute_bit, ATTRIBUTE_KINDS))


_Pixels = Annotated[int, Range(0, 4096)]
_Tries = Annotated[int, Range(1, 10**6)]


@dataclass(frozen=True)
class ReferenceSamples(SampleConfig):
    """How reference pictures are made from clips. Pixels are at 128 px and scale with the size."""

    least_attributes: ClassVar[int] = 1  # fewest attribute slots that the family's models take

    attributes: Annotated[int, Range(0, 16)] = 1  # A, attribute slots; unused ones are zero with attribute_valid 0

    # Which attribute a sample is about.
    # Of ATTRIBUTE_KINDS, among those worn; nearly everyone wears hair, which therefore gets less.
    kind_weights: Annotated[tuple[Positive, ...], Items(len(ATTRIBUTE_KINDS), len(ATTRIBUTE_KINDS))] = (
        1.0, 2.0, 2.0, 2.0)
    minimum_area: Share = SHOWN_AREA  # share of the picture from which an attribute counts as visible
    absent_probability: Share = 0.05  # a kind that is not worn: empty reference, the region becomes bare
    second_probability: Share = 0.15  # two attributes at once, if A and the clip allow
    attribute_dropout: Share = 0.0  # withhold the reference although the region is masked

    # The region to fill (M_port).
    expand_probability: Share = 0.9  # another mask is added to the attribute's own
    generated_probability: Share = 0.5  # that mask is a generated one (`durian expand`), if the clip has any; else a
    # donor's: another person's attribute moved onto this face
    margin: tuple[_Pixels, _Pixels] = (1, 3)  # growth in pixels, drawn uniformly, both ends included
    closest_probability: Share = 0.5  # take the donor's frame with the most similar head pose, not any frame
    donor_candidates: _Tries = 4  # donors among which the most similar pose is sought
    donor_tries: _Tries = 16  # clips looked at to find them

    # Augmentation: the largest change, drawn uniformly on both sides.
    augment_probability: Share = 0.8  # of moving a reference, which also blurs it a little
    attribute_shift: NotNegative = 0.08  # of the picture's width
    attribute_scale: NotNegative = 0.15  # relative
    attribute_rotation: NotNegative = 12.0  # degrees
    attribute_brightness: NotNegative = 0.06  # relative; see `augment.jitter_colour` for why it is small
    portrait_shift: NotNegative = 0.04
    portrait_scale: NotNegative = 0.06
    portrait_rotation: NotNegative = 5.0
    clip_colour: NotNegative = 0.0  # brightness, contrast and saturation, the same for all pictures of a sample
    blur_probability: Share = 0.0  # of a reference losing detail, by up to `blur` pixels (standard deviation)
    blur: NotNegative = 1.0
    jpeg_probability: Share = 0.0  # of a reference being compressed, with a quality from 30 to 90
    mask_jitter: Share = 0.0  # probability that an attribute mask is eroded, grown or gets holes
    mask_jitter_pixels: NotNegative = 1.5  # largest erosion or growth; holes have up to three times this radius

    frame_masks: bool = True  # tell the loss where the frames show the attributes; False saves decoding those masks

    mask_references: bool = True  # mask reference pictures

    def __post_init__(self):
        SampleConfig.__post_init__(self)
        if self.attributes < self.least_attributes:
            raise FieldError("attributes", f"expected at least {self.least_attributes}, found {self.attributes}")
        if self.margin[0] > self.margin[1]:
            raise FieldError("margin", f"expected least <= most, found {self.margin}")

    @property
    def sizes(self) -> dict[str, int]:
        """Letter of a batch's axis -> its size, without B."""
        return {"F": self.frames, "A": self.attributes}


@dataclass(frozen=True)
class References:
    """The reference pictures of a sample.

    Attributes:
        fields: portrait, portrait_mask, attributes, attribute_masks and attribute_valid of a batch, without B.
        portrait: the frame that became the portrait.
        source: the portrait as it is shown.
        attributes: those that are valid.
        colours: of the whole sample (`augment.random_colours`).
    """

    fields: dict[str, np.ndarray]
    portrait: View
    source: Reference
    attributes: list[Reference]
    colours: np.ndarray | None


def sample_references(source: ClipSource, index: int, clip: OpenClip, kinds: list[str], worn: bool,
                      targets: np.ndarray, rng: np.random.Generator, config: ReferenceSamples) -> References:
    """Make the reference pictures of a sample.

    Args:
        source, index: where `clip` is from, and other people's regions.
        clip: the clip.
        kinds, worn: from `choose_kinds`.
        targets: indices of the frames to reconstruct, which references avoid.
        rng: source of all draws.
        config: settings.

    Raises:
        DecodeError: a damaged record, of this clip or of a donor.
    """
    areas, size = source.outline(index).areas, config.image_size
    sources = [_choose_frame(np.flatnonzero(areas[:, ATTRIBUTE_KINDS.index(kind)] >= config.minimum_area),
                             set(targets), rng) if worn else None for kind in kinds]
    portrait_frame = _choose_frame(np.arange(len(clip)), {*targets, *sources}, rng, {*sources})
    colours = random_colours(rng, config.clip_colour)

    attributes = [_attribute(clip, kind, frame, rng, config, colours)
                  for kind, frame in zip(kinds, sources, strict=True)]
    if rng.random() < config.attribute_dropout:
        attributes = [_empty(clip, kind, size) for kind in kinds]
    # A shift may move a small attribute out of the picture: then nothing is attended to.
    slots = [(each.picture, each.known, float(each.known.any())) for each in attributes]
    slots += [(*_nothing(size), 0.0)] * (config.attributes - len(slots))
    view = View(clip, portrait_frame, size)
    portrait, region, keypoints = _portrait(source, index, clip, view, kinds, worn, rng, config, colours)
    images, masks, valid = zip(*slots, strict=True) if slots else ((), (), ())
    fields = {
        "portrait": portrait,
        "portrait_mask": region[..., None].astype(np.uint8),
        "attributes": np.stack(images) if slots else np.zeros((0, size, size, 3), np.uint8),
        "attribute_masks": np.stack(masks)[..., None].astype(np.uint8) if slots
        else np.zeros((0, size, size, 1), np.uint8),
        "attribute_valid": np.array(valid, np.float32),
    }
    return References(fields, view, Reference(portrait, ~region, keypoints),
                      [each for each in attributes if each.known.any()], colours)


def target_frames(length: int, count: int, max_stride: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) evenly spaced frame indices of a clip; a shorter clip is played forwards and backwards."""
    if length >= count:
        widest = (length - 1) // (count - 1) if count > 1 else 1
        stride = int(rng.integers(1, min(max_stride, widest) + 1))
        start = int(rng.integers(0, length - (count - 1) * stride))
        return start + stride * np.arange(count)
    period = max(1, 2 * (length - 1))
    place = np.arange(count) % period
    return np.minimum(place, period - place) if length > 1 else np.zeros(count, int)


def _nothing(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of an attribute slot that holds nothing."""
    return np.full((size, size, 3), BLANK, np.uint8), np.zeros((size, size), bool)


def _empty(clip: OpenClip, kind: str, size: int) -> Reference:
    """A reference that shows nothing of an attribute."""
    return Reference(*_nothing(size), clip.keypoints[0], kind)


# --- the choices --------------------------------------------------------------------------------------

def choose_kinds(areas: np.ndarray, rng: np.random.Generator, config: ReferenceSamples) -> tuple[list[str], bool]:
    """The attribute kinds of a sample, and whether the person wears them."""
    worn = (areas >= config.minimum_area).any(0)
    # Kinds with a very small visible area are neither worn nor absent.
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
    """One of the candidate frames; outside `avoid`, or at least outside `never`, if any is left."""
    for excluded in (avoid, never, set()):
        left = [i for i in candidates if i not in excluded]
        if left:
            return int(left[rng.integers(len(left))])
    raise ValueError("no candidate frame")


# --- the pictures -------------------------------------------------------------------------------------

def shown(view: View, kinds: list[str]) -> np.ndarray:
    """(size, size) uint8: where a frame shows attributes of these kinds, with their outline."""
    bits = sum(attribute_bit(kind) for kind in kinds)
    mask = view.mask()
    return dilate((mask & bits) > 0, margin_at(mask.shape[0])).astype(np.uint8)


def _move(rng: np.random.Generator, config: ReferenceSamples, shift: float, scale: float, rotation: float
          ) -> np.ndarray:
    """A random affine move of a reference, or none."""
    if rng.random() < config.augment_probability:
        return random_affine(rng, config.image_size, shift, scale, rotation)
    return np.eye(2, 3)


def _degraded(rng: np.random.Generator, image: np.ndarray, hidden: np.ndarray, config: ReferenceSamples,
              colours: np.ndarray | None) -> np.ndarray:
    """(H, W, 3) uint8 in the sample's colours, perhaps degraded, `BLANK` in the (H, W) bool region to hide.

    Mask before degrading: blur and JPEG would spread hidden pixels. Without `config.mask_references` nothing is
    masked.
    """
    blur = config.blur * config.image_size / 128
    blank = (lambda picture: blanked(picture, hidden)) if config.mask_references else (lambda picture: picture)
    image = blank(change_colours(image, colours))
    degraded = degrade(rng, image, config.blur_probability, blur, config.jpeg_probability)
    return image if degraded is image else blank(degraded)


def _attribute(clip: OpenClip, kind: str, frame: int | None, rng: np.random.Generator, config: ReferenceSamples,
               colours: np.ndarray | None) -> Reference:
    """An attribute reference: its picture is blanked outside its mask."""
    size = config.image_size
    if frame is None:
        return _empty(clip, kind, size)
    view = View(clip, frame, size)
    move = _move(rng, config, config.attribute_shift, config.attribute_scale, config.attribute_rotation)
    image, share = view.moved(attribute_bit(kind), move)
    mask = share > 127
    if rng.random() < config.mask_jitter:
        mask = jitter_mask(rng, mask, config.mask_jitter_pixels * size / 128)
    image = jitter_colour(rng, image, config.attribute_brightness)
    image = _degraded(rng, image, ~mask, config, colours)
    return Reference(image, mask, transform_keypoints(view.keypoints, move, size, size), kind)


def _portrait(source: ClipSource, index: int, clip: OpenClip, view: View, kinds: list[str], worn: bool,
              rng: np.random.Generator, config: ReferenceSamples, colours: np.ndarray | None
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Portrait (H, W, 3) uint8, blanked in the region to fill, which is (H, W) bool; and its keypoints (K, 3)."""
    size = config.image_size
    move = _move(rng, config, config.portrait_shift, config.portrait_scale, config.portrait_rotation)
    bits = sum(attribute_bit(kind) for kind in kinds)
    image, share = view.moved(bits, move)
    # Mask every pixel that these kinds touch. The other kinds only decide which pixels stay on top.
    own = view.moved_field(move, _ATTRIBUTE_BITS & ~bits) | (share > 0).view(np.uint8) * np.uint8(bits)
    keypoints = transform_keypoints(view.keypoints, move, size, size)

    others = []
    for kind in kinds:
        # If the kind is not worn, the other mask alone is the region.
        if not worn or rng.random() < config.expand_probability:
            mask = expansion(source, index, clip, kind, keypoints, rng, config)
            if mask is not None:
                others.append((kind, mask))
    least, most = (round(pixels * size / 128) for pixels in config.margin)
    margin = int(rng.integers(least, max(least, most) + 1))
    region = portrait_region(own, kinds, others, margin=max(margin, min(1, config.margin[1])))
    return _degraded(rng, image, region, config, colours), region, keypoints
