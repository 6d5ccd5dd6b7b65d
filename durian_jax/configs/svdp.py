"""Stable Video-Driven Portraits (arXiv 2509.17476), in two sizes.

    durian synthesize --out data/drawn --clips 5000 --frames 12 --fps 6 --drivers
    durian train --config=svdp:tiny,stage=image --workdir=runs/image --config.source.clips=data/drawn \
        --config.init_from=tiny --config.init_only=codec/
    durian train --config=svdp:tiny,stage=video --workdir=runs/video --config.source.clips=data/drawn \
        --config.init_from=runs/image
    durian train --config=svdp:tiny,stage=history --workdir=runs/history --config.source.clips=data/drawn \
        --config.init_from=runs/video
"""

from ml_collections import ConfigDict

from durian_jax.configs.base import base, parse
from durian_jax.training.recipes.svdp import STAGES


def get_config(arguments: str = "tiny,stage=video") -> ConfigDict:
    """The config of a preset, a stage and perhaps an ablation: "tiny,stage=video,ablation=factorised"."""
    preset, options = parse(arguments, PRESETS, {"stage": STAGES, "ablation": ABLATIONS})
    config = base("svdp", options.get("stage", "video"))
    PRESETS[preset](config)
    config.update_from_flattened_dict(ABLATIONS[options.get("ablation", "none")])
    return config


def tiny(config: ConfigDict) -> None:
    """128 px, about 10 M parameters, trained from nothing on a CPU."""
    config.model = {
        "image_size": 128, "max_frames": 16, "history": 3, "mode": "one_way", "driving_capacity": 0.25,
        "attribute_capacity": 0.5,
        "codec": {"patch": 4, "encoder_channels": (32, 64), "decoder_channels": (64, 112), "layers": 1,
                  "latent_channels": 16, "norm_groups": 8},
        "mmdit": {"width": 192, "layers": 10, "heads": 6, "patch": 2, "feedforward_multiplier": 4, "dual_layers": 0,
                  "positions": "rotary", "video": "full", "time_rotation": 8},
    }
    # As in Durian's tiny: much noise, clean predictions, and a loss on pixels.
    config.objective.update({"schedule": "flow", "prediction": "sample", "time_power": 0.25, "region_weight": 4.0,
                             "pixel_weight": 30.0})
    config.sampling.steps, config.sampling.guidance_scale = 1, 1.0
    config.optimizer, config.learning_rate, config.final_fraction = "muon", 3e-3, 0.02
    config.weight_decay, config.warmup_steps = 0.0, 100
    config.average_decay = 0.998
    with config.ignore_type():  # a share for each branch, where other families have one number
        config.guidance_dropout = (0.02, 0.03, 0.0)
    config.data.donor_candidates = 1
    config.data.attributes = 1
    config.sample_every = config.checkpoint_every = 250
    config.log_every = 25
    if config.stage in ("codec", "decoder"):
        config.batch_size, config.data.frames = 16, 2
        config.total_steps, config.decay_steps = 900, 600
    elif config.stage in ("image", "joint"):
        config.batch_size, config.data.frames, config.data.max_stride = 4, 4, 3
        config.total_steps, config.decay_steps = 12_000, 6000
    elif config.stage == "video":
        config.batch_size, config.data.frames, config.data.max_stride = 4, 4, 2
        config.total_steps, config.decay_steps, config.learning_rate = 3000, 2000, 1e-3
    elif config.stage == "history":
        config.batch_size, config.data.frames, config.data.history, config.data.max_stride = 4, 4, 3, 1
        config.guidance_dropout = (0.02, 0.03, 0.25)
        config.total_steps, config.decay_steps, config.learning_rate = 1500, 1000, 1e-3


PRESETS = {"tiny": tiny}

ABLATIONS = {
    "none": {},
    "joint": {"model.mode": "joint"},
    "one_way": {"model.mode": "one_way"},
    "factorised": {"model.mmdit.video": "factorised"},
    "canvas": {"model.mmdit.positions": "canvas"},
}
