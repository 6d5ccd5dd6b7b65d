"""Stable Video-Driven Portraits (arXiv 2509.17476), in two sizes.

    durian synthesize --out data/people --clips 6000 --frames 12 --fps 6 --drivers
    durian train --config=svdp:tiny,stage=image --workdir=runs/image --config.source.clips=data/people \
        --config.init_from=tiny --config.init_only=codec/
    durian train --config=svdp:tiny,stage=retouch --workdir=runs/retouch --config.source.clips=data/people \
        --config.init_from=runs/image
    durian synthesize --out data/videos --clips 1500 --frames 20 --first 20000 --drivers
    durian train --config=svdp:tiny,stage=video --workdir=runs/video --config.source.clips=data/videos \
        --config.init_from=runs/retouch
    durian train --config=svdp:tiny,stage=history --workdir=runs/history --config.source.clips=data/videos \
        --config.init_from=runs/video

    durian import --base SD35 --dtype bfloat16 --out data/start    # folder or hub id of Stable Diffusion 3.5 Medium
    durian train --config=svdp:sd35m,stage=video --workdir=runs/sd-video --config.source.clips=data/mine \
        --config.init_from=data/start
    durian train --config=svdp:sd35m,stage=history --workdir=runs/sd-history --config.source.clips=data/mine \
        --config.init_from=runs/sd-video
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference, placeholder

from durian_jax.configs.base import base, parse
from durian_jax.training.recipes.svdp import STAGES

# Stages that train on frames one by one.
FRAME_STAGES = ("image", "joint", "retouch")


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
        "image_size": 128, "max_frames": 16, "history": 3, "fps": 25.0, "dtype": "float32", "mode": "one_way",
        "driving_capacity": 0.25, "attribute_capacity": 0.5, "aligned_pictures": True,
        "codec": {"patch": 4, "encoder_channels": (32, 64), "decoder_channels": (64, 112), "layers": 1,
                  "latent_channels": 16, "norm_groups": 8},
        "mmdit": {"width": 256, "layers": 6, "heads": 4, "patch": 2, "feedforward_multiplier": 4, "dual_layers": 0,
                  "positions": "rotary", "text_dim": placeholder(int), "text_tokens": 0,
                  "pooled_dim": placeholder(int), "video": "full", "time_rotation": 16,
                  "stem_width": 64, "retouch_layers": 5},
    }
    # Clean predictions and a loss on pixels, as in Durian's tiny. Sampling takes one step, so almost all times are near
    # 1: with less noise the frame itself tells where the head is, and the model need not look at the driver.
    config.objective.update({"schedule": "flow", "prediction": "sample", "time_power": 0.06, "region_weight": 12.0,
                             "pixel_weight": 30.0})
    config.sampling.steps, config.sampling.guidance_scale = 1, 1.0
    config.optimizer, config.learning_rate, config.final_fraction = "muon", 3e-3, 0.02
    config.weight_decay, config.warmup_steps = 0.0, 100
    config.average_decay = 0.998
    with config.ignore_type():  # a share for each branch, where other families have one number
        config.guidance_dropout = (0.02, 0.03, 0.0)
    config.data.donor_candidates = 1
    config.data.attributes = 1
    config.data.region_jitter, config.data.region_dropout, config.data.region_occlusion = 1.0, 0.05, 0.05
    config.sample_every = config.checkpoint_every = 250
    config.log_every = 25
    if config.stage in ("codec", "decoder"):
        config.batch_size, config.data.frames = 16, 2
        config.total_steps, config.decay_steps = 900, 600
    elif config.stage in FRAME_STAGES:
        config.batch_size, config.data.frames, config.data.max_stride = 6, 4, 3
        config.total_steps, config.decay_steps = (1500, 1000) if config.stage == "retouch" else (9000, 4000)
    else:
        config.source.synthetic_fps = 25.0
    if config.stage == "video":
        config.batch_size, config.data.frames, config.data.max_stride = 4, 4, 2
        config.total_steps, config.decay_steps, config.learning_rate = 3000, 2000, 1e-3
    elif config.stage in ("history", "fusion", "steps"):
        config.batch_size, config.data.frames, config.data.history, config.data.max_stride = 4, 4, 3, 1
        config.guidance_dropout = (0.02, 0.03, 0.25)
        config.total_steps, config.decay_steps, config.learning_rate = 1500, 1000, 1e-3
    if config.stage == "fusion":
        with config.ignore_type():
            config.distillation.scales = (1.5, 1.5, 1.0)
    elif config.stage == "steps":
        config.distillation.teacher_steps, config.distillation.student_steps = 4, 1


def sd35m(config: ConfigDict) -> None:
    """The paper's size: Stable Diffusion 3.5 Medium at 512 px, clips of 16 frames, from `durian import`.

    The paper does not say its resolution, learning rate, batch or drop-out.
    """
    config.model = {
        "image_size": 512, "max_frames": 16, "history": 3, "fps": 25.0, "mode": "joint", "driving_capacity": 1.0,
        "attribute_capacity": 1.0, "aligned_pictures": False, "dtype": "bfloat16",
        "codec_kind": "autoencoder_kl",
        "codec": {"channels": (128, 256, 512, 512), "layers": 2, "latent_channels": 16, "norm_groups": 32,
                  "scaling_factor": 1.5305, "shift_factor": 0.0609, "quant_conv": False},
        # Positions (i - 160) / 4 on the canvas; `durian import` compares them with the table in the file.
        "mmdit": {"width": 1536, "layers": 24, "heads": 24, "patch": 2, "feedforward_multiplier": 4, "dual_layers": 13,
                  "positions": "canvas", "canvas_size": 384, "canvas_origin": 160.0, "canvas_step": 0.25,
                  "text_dim": _optional(4096), "text_tokens": 128, "pooled_dim": _optional(2048), "video": "full",
                  "time_rotation": 16, "stem_width": 0, "retouch_layers": 0},
    }
    # Rectified flow as in Stable Diffusion 3.5 (arXiv 2403.03206), sampled with Euler's steps.
    config.objective.update({"schedule": "flow", "prediction": "flow", "time_power": 1.0, "times": "logit_normal",
                             "time_mean": 0.0, "time_shift": 3.0, "region_weight": 0.0, "pixel_weight": 0.0})
    config.sampling.steps, config.sampling.sampler = 40, "ddim"
    with config.ignore_type():  # a scale and a share for each branch
        config.sampling.guidance_scale = (2.0, 2.5, 1.0)
        config.guidance_dropout = (0.1, 0.1, 0.0)
    config.frozen_dtype = "bfloat16"
    config.remat = "full"
    # The paper has no attributes, and the loss weighs no region.
    config.data.attributes, config.data.frame_masks, config.data.clip_colour = 0, False, 0.1
    config.data.region_jitter, config.data.region_dropout, config.data.region_occlusion = 1.0, 0.05, 0.05
    if config.stage in FRAME_STAGES:
        config.data.frames = 1
    elif config.stage == "video":
        config.data.frames, config.data.max_stride, config.total_steps = 16, 1, 48_000
    elif config.stage in ("history", "fusion", "steps"):  # history: the last fifth of the steps
        config.data.frames, config.data.history, config.data.max_stride, config.total_steps = 16, 3, 1, 12_000
        config.guidance_dropout = (0.05, 0.1, 0.25)
    if config.stage in ("fusion", "steps"):
        with config.ignore_type():
            config.sampling.guidance_scale = (1.0, 1.0, 1.0)
    if config.stage == "fusion":
        with config.ignore_type():
            config.distillation.scales = (2.0, 2.5, 1.0)
    elif config.stage == "steps":
        config.distillation.teacher_steps, config.distillation.student_steps = 40, 4
        config.sampling.steps = 4


def _optional(number: int) -> FieldReference:
    """A number that an ablation or the user may set to None."""
    return FieldReference(number, field_type=int)


PRESETS = {"tiny": tiny, "sd35m": sd35m}

ABLATIONS = {
    "none": {},
    "joint": {"model.mode": "joint"},
    "one_way": {"model.mode": "one_way"},
    "factorised": {"model.mmdit.video": "factorised"},
    "canvas": {"model.mmdit.positions": "canvas"},
    "unaligned": {"model.aligned_pictures": False},
    # Without Stable Diffusion's text stream, of which the method uses null text only.
    "no_text": {"model.mmdit.text_dim": None, "model.mmdit.text_tokens": 0, "model.mmdit.pooled_dim": None},
}
