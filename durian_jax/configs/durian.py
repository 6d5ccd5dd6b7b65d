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

from durian_jax.data import DataConfig
from durian_jax.data.samples.config import FROM_MODEL
from durian_jax.models.codecs.config import AutoencoderTinyConfig


def get_config(arguments: str = "tiny,stage=1") -> ConfigDict:
    """A preset, a stage (see `training.state.STAGES`) and perhaps an ablation: "tiny,stage=1,ablation=no_augmentation".

    `codec=autoencoder_tiny` takes diffusers' small autoencoder with Stable Diffusion's latents.
    """
    preset, *rest = arguments.split(",")
    options = dict(option.partition("=")[::2] for option in rest)
    unknown = set(options) - {"stage", "ablation", "codec"}
    ablation, codec = options.get("ablation", "none"), options.get("codec")
    if preset not in PRESETS or unknown or ablation not in ABLATIONS or codec not in (None, "autoencoder_tiny"):
        raise ValueError(f"expected PRESET,stage=STAGE[,ablation=ABLATION][,codec=autoencoder_tiny] with a preset of "
                         f"{sorted(PRESETS)} and an ablation of {sorted(ABLATIONS)}, got {arguments!r}")
    config = base()
    config.stage = options.get("stage", "1")
    PRESETS[preset](config)
    config.update_from_flattened_dict(ABLATIONS[ablation])
    if codec is not None:
        config.model.codec_kind, config.model.codec = codec, asdict(AutoencoderTinyConfig())
    return config


def base() -> ConfigDict:
    """What every preset starts from."""
    return ConfigDict({
        "stage": "1",
        "seed": 0,
        "init_from": "",            # workdir of a run, or folder of a checkpoint; "": fresh parameters
        "init_fresh": "",           # pattern of parameters that init_from may lack and that start fresh
        # Length and logging, in steps.
        "total_steps": 60_000,      # Durian, section 4.1: 60,000 for each stage
        "log_every": 50,
        "checkpoint_every": 500,
        "keep_last": 2,             # checkpoints that stay
        "keep_every": 0,            # steps; checkpoints of their multiples stay too; 0: none
        "sample_every": 500,        # 0: no sample sheets
        # Optimiser.
        "optimizer": "adamw",       # or "muon"
        "learning_rate": 1e-5,
        "final_fraction": 1.0,      # of the learning rate, at the end of the decay
        "warmup_steps": 500,
        "decay_steps": 0,           # cosine decay over the last so many steps
        "weight_decay": 0.01,
        "gradient_clip": 1.0,
        "average_decay": 0.9999,    # of the moving average of the weights
        # Devices along each axis of the mesh, -1: those that are left. Clips are shared out over data and fsdp,
        # parameters and optimiser state over fsdp, a clip's frames over frames, attention heads over tensor.
        "mesh": {"data": -1, "fsdp": 1, "frames": 1, "tensor": 1},
        "silence_seconds": 60.0,     # after which a process of several that says nothing has gone, and the others stop
        # Batch.
        "batch_size": 32,           # clips, on all devices together
        "data_workers": 0,          # processes that make batches; 0: threads
        # Loss.
        "frozen_dtype": "float32",  # of parameters that the stage does not train, or "bfloat16"
        "frozen_whole": False,      # those lie whole on every chip, also with fsdp: more memory, less traffic
        "remat": "none",            # recomputed by the backward pass, to save memory: "none", "dots" or "full"
        "attention": "auto",        # or "xla", "chunked" (bounded memory), "splash" (TPU), "cudnn" (GPU, 16 bits)
        "guidance_dropout": 0.1,    # probability that a clip sees no reference
        "codec_noise": 0.1,         # stage codec: disturbance of the latents
        "objective": {"schedule": "cosine", "prediction": "velocity", "time_power": 1.0, "region_weight": 0.0,
                      "pixel_weight": 0.0, "min_snr": 0.0, "noise_offset": 0.0},
        "identity_model": "",       # ONNX file of an ArcFace network, where model.identity_dim is its width
        # Clips: folders of records, separated by commas, and "synthetic" for procedural ones drawn on the fly. Or a
        # folder of samples that `durian encode` has made of such; clips and data are then as they were there.
        "source": {"samples": "", "clips": "synthetic", "weights": (), "synthetic_clips": 20_000,
                   "synthetic_frames": 12, "synthetic_fps": 6.0},
        "data": {name: value for name, value in asdict(DataConfig()).items() if name not in FROM_MODEL},
        "model": {},
    })


# How references reach the denoiser in the paper's method; see `models.durian.config`. Capacities below 1 leave
# out tokens of references that show nothing.
VARIANT = {"reference_mode": "dual", "mask_channel": True, "masked_references": True, "portrait_capacity": 1.0,
           "attribute_capacity": 1.0}


def tiny(config: ConfigDict) -> None:
    """128 px, about 10 M parameters, trained from nothing on a CPU."""
    config.model = {
        **VARIANT, "image_size": 128, "max_frames": 16, "temporal_heads": 4, "keypoint_patch": 4,
        "keypoint_channels": (64,),
        "codec": {"patch": 4, "encoder_channels": (32, 64), "decoder_channels": (64, 112), "layers": 1,
                  "latent_channels": 16, "norm_groups": 8},
        "image_encoder": None, "identity_dim": placeholder(int),
        "unet": {"channels": (64, 112), "layers": 1, "attention": (True, True), "heads": (1, 2),
                 "context_dim": None, "feedforward_multiplier": 2, "norm_groups": 8, "positions": True},
    }
    # Predicting clean latents from much noise, which is where few sampling steps spend their time, suits a small
    # budget best; and counting pixels, of which the latents' error says little.
    config.objective = {"schedule": "flow", "prediction": "sample", "time_power": 0.25, "region_weight": 8.0,
                        "pixel_weight": 30.0}
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
    else:
        # As long as the model will be asked for; a second pool at the frame rate of videos suits it:
        # durian synthesize --out data/clips --clips 1500 --frames 16 --first 20000
        config.batch_size, config.data.frames, config.data.max_stride = 2, 16, 1
        config.total_steps, config.decay_steps, config.learning_rate = 500, 300, 2e-3


def sd15(config: ConfigDict) -> None:
    """The paper's: Stable Diffusion 1.5 at 512 px, 60,000 steps a stage, from `durian import`.

    Where the paper is silent the recipe is Animate Anyone's, whose architecture this grew from: velocity prediction on
    a schedule that ends in pure noise, min-SNR weighting, a noise offset. To predict noise as Stable Diffusion does:
    --config.objective.prediction=epsilon --config.objective.schedule=stable_diffusion.
    """
    config.model = {
        **VARIANT, "image_size": 512, "max_frames": 32, "temporal_heads": 8, "keypoint_patch": 1,
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
    config.objective = {"schedule": "stable_diffusion_zero_snr", "prediction": "velocity", "time_power": 1.0,
                        "region_weight": 0.0, "pixel_weight": 0.0, "min_snr": 5.0, "noise_offset": 0.05}
    config.frozen_dtype = "bfloat16"
    # Stage 2 needs nearly all of what it does not train until the backward pass is over: parts would only be gathered.
    config.frozen_whole = config.stage == "2"
    config.remat = "full"
    config.data.frames = 16 if config.stage == "2" else 1
    # Real masks are wrong and real photos are not alike (Durian, reference augmentation). The loss weighs no region.
    config.data.mask_jitter, config.data.blur_probability, config.data.jpeg_probability = 0.3, 0.1, 0.1
    config.data.clip_colour, config.data.donor_candidates, config.data.frame_masks = 0.1, 8, False


PRESETS = {"tiny": tiny, "sd15": sd15}

# The paper's ablations (its table of them), and one question it leaves open: references as more tokens of the
# denoiser's own sequence instead of keys and values from networks of their own.
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
