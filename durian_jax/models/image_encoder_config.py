"""Sizes of the image encoder, and the statistics of its input. Imports no jax."""

from dataclasses import dataclass

from durian_jax.errors import InputError

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

    channels: int = 1024
    layers: int = 24
    heads: int = 16
    mlp_channels: int = 4096
    image_size: int = 224
    patch: int = 14
    projection: int = 768

    def __post_init__(self):
        if self.image_size % self.patch or self.channels % self.heads:
            raise InputError(f"ImageEncoderConfig: image_size={self.image_size} must be a multiple of patch="
                             f"{self.patch}, and channels={self.channels} of heads={self.heads}")
