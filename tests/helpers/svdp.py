"""Tiny random SVDP models, one for each mode and position code, and small training runs."""

from pathlib import Path

from ml_collections import ConfigDict

from durian_jax.configs.svdp import get_config
from durian_jax.models.codecs.config import CodecConfig
from durian_jax.models.mmdit.config import MMDiTConfig
from durian_jax.models.svdp.config import SVDPConfig
from tests.helpers.runs import changed, fresh_codec

CODEC = CodecConfig(patch=4, encoder_channels=(8,), decoder_channels=(8,), latent_channels=4, norm_groups=2)
SIZES = {"width": 32, "layers": 2, "heads": 2, "time_rotation": 4}
PIXELS = {"stem_width": 8, "retouch_layers": 3}


def tiny(mode: str = "one_way", positions: str = "rotary", **changes) -> SVDPConfig:
    """Return a config of 32 px: 8 x 8 latents, 16 tokens; `changes` of the transformer's fields.

    In "one_way" the model also sees the aligned pictures and retouches frames.
    """
    if positions == "canvas":  # as in Stable Diffusion 3.5: two attentions at first, null text
        changes = {"dual_layers": 1, "text_dim": 8, "text_tokens": 3, "pooled_dim": 8, "canvas_size": 24, **changes}
    return SVDPConfig(image_size=32, max_frames=4, history=2, codec=CODEC, mode=mode, driving_capacity=0.5,
                      aligned_pictures=mode == "one_way",
                      mmdit=MMDiTConfig(**{**SIZES, **(PIXELS if mode == "one_way" else {}),
                                           "positions": positions, **changes}))

# The preset with tiny sizes: one compiled step takes seconds.
SMALL = {
    "model.image_size": 32, "model.max_frames": 4, "model.history": 2, "model.driving_capacity": 0.5,
    "model.codec": {"patch": 4, "encoder_channels": (8,), "decoder_channels": (8,), "layers": 1, "latent_channels": 4,
                    "norm_groups": 2},
    "model.mmdit": {**SIZES, **PIXELS, "layers": 1, "patch": 2, "positions": "rotary", "video": "full"},
    "optimizer": "adamw", "batch_size": 2, "data.frames": 2, "data.max_stride": 1, "log_every": 1,
    "checkpoint_every": 2, "sample_every": 0, "total_steps": 4, "decay_steps": 0, "warmup_steps": 1,
    "objective.pixel_weight": 0.0,
}


def small_config(records: str | Path, stage: str = "video", **changes) -> ConfigDict:
    """Return the config of a small run, with `changes` by dotted name."""
    continued = {"data.history": 2} if stage in ("history", "fusion", "steps") else {}
    return changed(get_config(f"tiny,stage={stage}"), {
        **SMALL, "source.clips": str(records), **continued, **fresh_codec(changes), **changes})
