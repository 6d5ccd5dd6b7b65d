"""The numbers of the data pipeline."""

from dataclasses import dataclass

from durian_jax.errors import InputError
from durian_jax.faces.topology import ATTRIBUTE_KINDS

# Fields that follow from the model.
FROM_MODEL = ("image_size", "mask_references", "face_crops")


@dataclass(frozen=True)
class DataConfig:
    """How a training sample is made from clips. Pixels are meant at 128 px and scale with the size."""

    image_size: int = 128  # H = W of the batch; other sizes are resampled
    frames: int = 1  # F, frames to reconstruct: 1 in stage 1
    attributes: int = 1  # A, attribute slots; unused ones are zero with attribute_valid 0
    max_stride: int = 3  # neighbouring frames of a sample are 1..max_stride frames apart in the clip

    # Which attribute a sample is about.
    kind_weights: tuple[float, ...] = (1.0, 2.0, 2.0, 2.0)  # of ATTRIBUTE_KINDS, among those worn; nearly
    # everyone wears hair, which therefore gets less
    minimum_area: float = 0.002  # share of the picture from which an attribute counts as visible
    absent_probability: float = 0.05  # a kind that is not worn: empty reference, the region turns bare
    second_probability: float = 0.15  # two attributes at once, if A and the clip allow
    attribute_dropout: float = 0.0  # reference withheld although the region is blanked

    # The region to fill (M_port).
    expand_probability: float = 0.9  # another mask is added to the attribute's own
    generated_probability: float = 0.5  # of that being a generated one (`durian expand`), where the clip has such;
    # else a donor's: another person's attribute moved onto this face
    margin: tuple[int, int] = (1, 3)  # growth in pixels, drawn uniformly, both ends included
    closest_probability: float = 0.5  # the donor's frame is that of the most similar head pose, not any
    donor_candidates: int = 4  # donors among which the most similar pose is sought
    donor_tries: int = 16  # clips looked at to find them

    # Augmentation: the largest change, drawn uniformly on both sides.
    augment_probability: float = 0.8  # of moving a reference; one that is moved is also a little blurred
    attribute_shift: float = 0.08  # of the picture's width
    attribute_scale: float = 0.15  # relative
    attribute_rotation: float = 12.0  # degrees
    attribute_brightness: float = 0.06  # relative; see `augment.jitter_colour` for why it is small
    portrait_shift: float = 0.04
    portrait_scale: float = 0.06
    portrait_rotation: float = 5.0
    clip_colour: float = 0.0  # brightness, contrast and saturation of a sample's pictures, all alike
    blur_probability: float = 0.0  # of a reference losing detail, by up to `blur` pixels (standard deviation)
    blur: float = 1.0
    jpeg_probability: float = 0.0  # of a reference being compressed, with a quality from 30 to 90
    mask_jitter: float = 0.0  # probability that an attribute mask is eroded, grown or gets holes
    mask_jitter_pixels: float = 1.5  # by up to so much; holes have up to three times this radius

    frame_masks: bool = True  # tell the loss where the frames show the attributes; False spares decoding those masks

    mask_references: bool = True  # blank what a reference is not there for; the model's masked_references
    face_crops: bool = False  # add the portrait's face for an identity embedding; where the model has identity_dim

    max_failures: int = 100  # undecodable records (not counting one twice) skipped before the loader gives up

    def __post_init__(self):
        for name in ("image_size", "frames", "attributes", "max_stride", "donor_tries", "donor_candidates"):
            if getattr(self, name) < 1:
                raise InputError(f"data.{name}: expected at least 1, found {getattr(self, name)}")
        for name in ("absent_probability", "second_probability", "attribute_dropout", "expand_probability",
                     "mask_jitter", "augment_probability", "closest_probability", "generated_probability",
                     "blur_probability", "jpeg_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"data.{name}: expected a probability in 0..1, found {getattr(self, name)}")
        if len(self.kind_weights) != len(ATTRIBUTE_KINDS) or min(self.kind_weights) <= 0:
            raise InputError(f"data.kind_weights: expected {len(ATTRIBUTE_KINDS)} positive numbers (for "
                             f"{', '.join(ATTRIBUTE_KINDS)}), found {self.kind_weights}")
        if not 0 <= self.margin[0] <= self.margin[1]:
            raise InputError(f"data.margin: expected 0 <= least <= most, found {self.margin}")
