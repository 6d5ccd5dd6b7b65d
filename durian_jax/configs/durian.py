"""Durian (arXiv 2509.04434), in two sizes.

    durian synthesize --out data/drawn --clips 7000 --frames 12 --fps 6
    durian train --config=tiny,stage=codec --workdir=runs/codec --config.source.clips=data/drawn
    durian train --config=tiny,stage=1 --workdir=runs/stage1 --config.source.clips=data/drawn \
        --config.init_from=runs/codec
    durian train --config=tiny,stage=2 --workdir=runs/stage2 --config.source.clips=data/drawn \
        --config.init_from=runs/stage1

    durian import --base SD15 --motion ANIMATEDIFF --image-encoder CLIP --out data/start    # folders or hub ids
    durian train --config=sd15,stage=1 --workdir=runs/sd1 --config.source.clips=data/mine \
        --config.init_from=data/start
    durian train --config=sd15,stage=2 --workdir=runs/sd2 --config.source.clips=data/mine \
        --config.init_from=runs/sd1

`tiny` is the shipped checkpoint: procedural portraits at 128 px on a CPU. `sd15` is the paper's: Stable Diffusion 1.5
at 512 px. Both are the same code with other numbers, and so are the paper's ablations of either:
`sd15,stage=1,ablation=single_reference`.
"""

from dataclasses import asdict

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from durian_jax.configs.base import base, parse
from durian_jax.models.codecs.config import AutoencoderTinyConfig
from durian_jax.training.recipes.durian import STAGES


def get_config(arguments: str = "tiny,stage=1") -> ConfigDict:
    """The config of a preset, a stage and perhaps an ablation: "tiny,stage=1,ablation=no_augmentation".

    `codec=autoencoder_tiny` takes diffusers' small autoencoder with Stable Diffusion's latents.
    """
    preset, options = parse(arguments, PRESETS, {"stage": STAGES, "ablation": ABLATIONS, "codec": CODECS})
    config = base("durian", options.get("stage", "1"))
    PRESETS[preset](config)
    config.update_from_flattened_dict(ABLATIONS[options.get("ablation", "none")])
    if "codec" in options:
        config.model.codec_kind, config.model.codec = options["codec"], CODECS[options["codec"]]
    return config


CODECS = {"autoencoder_tiny": asdict(AutoencoderTinyConfig())}


# How references reach the denoiser in the paper's method; see `models.durian.config`. Capacities below 1 drop tokens of
# references that show nothing.
VARIANT = {"reference_mode": "dual", "mask_channel": True, "masked_references": True, "portrait_capacity": 1.0,
           "attribute_capacity": 1.0}


def tiny(config: ConfigDict) -> None:
    """128 px, about 10 M parameters, trained from nothing on a CPU."""
    config.model = {
        **VARIANT, "image_size": 128, "max_frames": 16, "temporal_heads": 4, "keypoint_patch": 4,
        "keypoint_channels": (64,),
        "codec": {"patch": 4, "encoder_channels": (32, 64), "decoder_channels": (64, 112), "layers": 1,
                  "latent_channels": 16, "norm_groups": 8, "decoder_norm": "group", "temporal_kernel": 0},
        "image_encoder": None, "identity_dim": placeholder(int),
        "unet": {"channels": (64, 112), "layers": 1, "attention": (True, True), "heads": (1, 2),
                 "context_dim": None, "feedforward_multiplier": 2, "norm_groups": 8, "positions": True},
    }
    # A small budget is best spent on predicting clean latents from much noise, where few sampling steps spend their
    # time. The loss counts pixels, because the latents' error says little about them.
    config.objective.update({"schedule": "flow", "prediction": "sample", "time_power": 0.25, "region_weight": 8.0,
                             "pixel_weight": 30.0})
    # One step is closest to the truth; more steps make outlines crisper and invent more (the model card has figures).
    config.sampling.steps, config.sampling.guidance_scale = 1, 1.0
    config.optimizer, config.learning_rate, config.final_fraction = "muon", 3e-3, 0.02
    config.weight_decay, config.warmup_steps = 0.0, 100
    config.average_decay = 0.998
    config.data.donor_candidates = 1
    config.sample_every = 250
    config.checkpoint_every = 250
    config.log_every = 25
    if config.stage in ("codec", "decoder"):
        config.batch_size, config.data.frames = 16, 2
        config.total_steps, config.decay_steps = 900, 600
    elif config.stage in ("1", "joint"):
        # Three images of a person share the references, in poses as different as the clip has.
        config.batch_size, config.data.frames, config.data.max_stride = 8, 3, 5
        config.data.attributes = 2
        config.total_steps, config.decay_steps = 4500, 2500
    elif config.stage in ("2", "joint2"):
        # Clips of the length that users ask for, from longer ones, so that references come from other frames than those
        # to reconstruct. A second pool at the frame rate of videos suits them:
        # durian synthesize --out data/clips --clips 1500 --frames 28 --first 20000
        config.batch_size, config.data.frames, config.data.max_stride = 2, 16, 1
        config.total_steps, config.decay_steps, config.learning_rate = 500, 300, 2e-3


def sd15(config: ConfigDict) -> None:
    """The paper's size: Stable Diffusion 1.5 at 512 px, 60,000 steps per stage, from `durian import`.

    Where the paper is silent, this is the recipe of Animate Anyone, which has the same architecture: velocity
    prediction on a schedule that ends in pure noise, min-SNR weighting, a noise offset. To predict noise as Stable
    Diffusion does:
    --config.objective.prediction=epsilon --config.objective.schedule=stable_diffusion.
    """
    config.model = {
        **VARIANT, "image_size": 512, "max_frames": 16, "temporal_heads": 8, "keypoint_patch": 1,
        "keypoint_channels": (32, 96, 256), "dtype": "bfloat16",
        "codec_kind": "autoencoder_kl",
        "codec": {"channels": (128, 256, 512, 512), "layers": 2, "latent_channels": 4, "norm_groups": 32,
                  "scaling_factor": 0.18215},
        "unet": {"channels": (320, 640, 1280, 1280), "layers": 2, "attention": (True, True, True, False),
                 "heads": (8, 8, 8, 8), "context_dim": 768, "feedforward_multiplier": 4, "norm_groups": 32,
                 "positions": False},
        # CLIP ViT-L/14. The paper's PRNet attends to an ArcFace embedding: --config.identity_model=FILE.onnx and
        # --config.model.identity_dim=512; without, it attends to CLIP's of the portrait.
        "image_encoder": {"channels": 1024, "layers": 24, "heads": 16, "mlp_channels": 4096, "image_size": 224,
                          "patch": 14, "projection": 768},
        "identity_dim": placeholder(int),
    }
    config.objective.update({"schedule": "stable_diffusion_zero_snr", "prediction": "velocity", "time_power": 1.0,
                             "region_weight": 0.0, "pixel_weight": 0.0, "min_snr": 5.0, "noise_offset": 0.05})
    config.sampling.steps, config.sampling.guidance_scale = 20, 3.5
    config.frozen_dtype = "bfloat16"
    # Stage 2 needs nearly all frozen parameters until the end of the backward pass: sharded, they would be gathered
    # anyway.
    config.frozen_whole = config.stage in ("2", "joint2")
    config.remat = "full"
    config.data.frames = 16 if config.stage in ("2", "joint2") else 1
    # Real masks have errors, and real photos differ in quality (Durian, reference augmentation). The loss weighs no
    # region.
    config.data.mask_jitter, config.data.blur_probability, config.data.jpeg_probability = 0.3, 0.1, 0.1
    config.data.clip_colour, config.data.donor_candidates, config.data.frame_masks = 0.1, 8, False


PRESETS = {"tiny": tiny, "sd15": sd15}

# The paper's ablations, and one of our own: references as more tokens of the denoiser's own sequence, instead of keys
# and values from separate networks.
ABLATIONS = {
    "none": {},
    "no_mask_expansion": {"data.expand_probability": 0.0},
    "no_augmentation": {"data.augment_probability": 0.0, "data.attribute_brightness": 0.0, "data.clip_colour": 0.0,
                        "data.mask_jitter": 0.0, "data.blur_probability": 0.0, "data.jpeg_probability": 0.0},
    "single_reference": {"model.reference_mode": "single"},
    "no_mask_channel": {"model.mask_channel": False},
    "unmasked_references": {"model.masked_references": False},
    "no_embedding": {"model.unet.context_dim": None, "model.image_encoder": None},
    "token_concatenation": {"model.reference_mode": "tokens"},
}
