"""Tiny random SVDP models, one for each mode and position code."""

from durian_jax.models.codecs.config import CodecConfig
from durian_jax.models.mmdit.config import MMDiTConfig
from durian_jax.models.svdp.config import SVDPConfig

CODEC = CodecConfig(patch=4, encoder_channels=(8,), decoder_channels=(8,), latent_channels=4, norm_groups=2)
SIZES = {"width": 32, "layers": 2, "heads": 2, "time_rotation": 4}


def tiny(mode: str = "one_way", positions: str = "rotary", **changes) -> SVDPConfig:
    """Return a config of 32 px: 8 x 8 latents, 16 tokens; `changes` of the transformer's fields."""
    if positions == "canvas":  # as in Stable Diffusion 3.5: two attentions at first, null text
        changes = {"dual_layers": 1, "text_dim": 8, "text_tokens": 3, "pooled_dim": 8, "canvas_size": 24, **changes}
    return SVDPConfig(image_size=32, max_frames=4, history=2, codec=CODEC, mode=mode, driving_capacity=0.5,
                      mmdit=MMDiTConfig(**{**SIZES, "positions": positions, **changes}))
