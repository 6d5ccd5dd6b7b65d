"""Sizes of the image encoder, and the statistics of its input. Imports no jax."""

from dataclasses import dataclass
from typing import Annotated

from durian_jax.fields import FieldError, Heads, Layers, Pixels, Range, Width, check_fields

# Mean and standard deviation of each colour channel in [0, 1] in CLIP's training images.
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImageEncoderConfig:
    """CLIP's vision transformer with its projection (`models.image_encoder`); the defaults are ViT-L/14's.

    Attributes:
        channels, layers, heads: of the transformer.
        mlp_channels: width of its feed-forward layers.
        image_size: H = W to which pictures are resized.
        patch: side of a token in pixels.
        projection: width of the embedding.
    """

    channels: Width = 1024
    layers: Layers = 24
    heads: Heads = 16
    mlp_channels: Width = 4096
    image_size: Pixels = 224
    patch: Annotated[int, Range(1, 1024)] = 14
    projection: Width = 768

    def __post_init__(self):
        check_fields(self)
        if self.image_size % self.patch:
            raise FieldError("image_size", f"expected a multiple of patch={self.patch}, found {self.image_size}")
        if self.channels % self.heads:
            raise FieldError("channels", f"expected a multiple of heads={self.heads}, found {self.channels}")
