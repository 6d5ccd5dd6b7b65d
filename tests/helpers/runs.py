"""Small training runs for tests of several rooms."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from durian_jax.configs.durian import ABLATIONS, get_config
from durian_jax.training.sharding import MESH_AXES

STEPS = 20
# A small run spends most of its time compiling. Therefore: one network of one level, no decoder in the step, and a
# plain optimiser. Stage 2 uses Muon.
SMALL = [
    "--config.optimizer=adamw", "--config.model.reference_mode=tokens",
    "--config.model.image_size=32", "--config.model.unet.channels=(32,)",
    "--config.model.unet.heads=(2,)", "--config.model.unet.attention=(True,)",
    "--config.model.codec.encoder_channels=(8,8)",
    "--config.model.codec.decoder_channels=(8,8)", "--config.model.codec.latent_channels=4",
    "--config.model.codec.norm_groups=2",
    "--config.model.keypoint_channels=(8,)", "--config.model.temporal_heads=2", "--config.batch_size=2",
    "--config.data.frames=2", "--config.log_every=1", "--config.checkpoint_every=4", "--config.sample_every=0",
    f"--config.total_steps={STEPS}", "--config.decay_steps=5", "--config.warmup_steps=5",
    "--config.objective.pixel_weight=0.0",
]

# The paper's preset with tiny sizes. Its U-Nets attend to CLIP's embedding; the codec is diffusers' small one.
SMALL_PAPER = {
    "model.image_size": 32, "model.max_frames": 8, "model.temporal_heads": 2, "model.keypoint_channels": (8,),
    "model.dtype": "float32",
    "model.codec_kind": "autoencoder_tiny",
    "model.codec": {"channels": 8, "encoder_blocks": (1, 1), "decoder_blocks": (1, 1)},
    "model.unet": {"channels": (16,), "layers": 1, "attention": (True,), "heads": (2,), "context_dim": 24,
                   "norm_groups": 8, "positions": False, "feedforward_multiplier": 2},
    "model.image_encoder": {"channels": 16, "layers": 1, "heads": 2, "mlp_channels": 32, "image_size": 28,
                            "patch": 14, "projection": 24},
    "batch_size": 2, "total_steps": 2, "checkpoint_every": 2, "log_every": 1, "sample_every": 0, "learning_rate": 1e-2,
    "warmup_steps": 1, "remat": "none",
}


def command(records: str | Path, workdir: str | Path, stage: str | int, *more: str) -> list[str]:
    """Return the command line of a small run. A flag in `more` replaces the same flag in `SMALL`."""
    optimizer = ["--config.optimizer=muon"] if str(stage) == "2" else []
    # Most tests do without a trained codec.
    fresh = ["--config.init_fresh=codec/"] if not any("init_from" in flag for flag in more) else []
    flags = {flag.partition("=")[0]: flag for flag in (*SMALL, *optimizer, *fresh, *more)}
    return [sys.executable, "-m", "durian_jax", "train", f"--config=tiny,stage={stage}",
            f"--workdir={workdir}", f"--config.source.clips={records}", *flags.values()]


def small_config(records: str | Path, stage: str = "1", **changes) -> ConfigDict:
    """Return the config of a small run, with `changes` by dotted name."""
    config = get_config(f"tiny,stage={stage}")
    flags = [option.removeprefix("--config.").split("=") for option in SMALL]
    values = {name: value if name.endswith((".reference_mode", "optimizer")) else ast.literal_eval(value)
              for name, value in flags}
    return changed(config, {**values, "source.clips": str(records), **fresh_codec(changes), **changes})


def small_paper_config(ablation: str = "none", stage: str = "1", **changes) -> ConfigDict:
    """Return the paper's config of an ablation with tiny sizes, with `changes` by dotted name."""
    config = get_config(f"sd15,stage={stage},ablation={ablation}")
    changed(config, {**SMALL_PAPER, "data.frames": 2 if stage == "2" else 1, **fresh_codec(changes), **changes})
    config.update_from_flattened_dict(ABLATIONS[ablation])
    return config


def fresh_codec(changes: dict) -> dict:
    """Let a run that starts from nothing do without a trained autoencoder."""
    return {} if "init_from" in changes else {"init_fresh": "codec/"}


def changed(config: ConfigDict, changes: dict) -> ConfigDict:
    """Set values of a config by their dotted names, and return the config."""
    with config.unlocked(), config.ignore_type():
        for name, value in changes.items():
            *path, last = name.split(".")
            target = config
            for part in path:
                target = target[part]
            target[last] = value
    return config


def losses(workdir: Path) -> dict[int, float]:
    """Return step -> loss of a run."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


# Changes for runs that are repeated on several meshes: all networks, kernels large enough to be sharded, and a single
# checkpoint.
ON_MESHES = ["--config.model.reference_mode=dual",
             "--config.model.unet.channels=(64,)", "--config.batch_size=8", "--config.total_steps=20",
             "--config.decay_steps=0", "--config.optimizer=adamw", "--config.learning_rate=1e-3",
             "--config.checkpoint_every=20"]


def mesh_flags(mesh: str) -> list[str]:
    """Return the flags of a mesh such as 1x2x2x2."""
    return [f"--config.mesh.{axis}={size}" for axis, size in zip(MESH_AXES, mesh.split("x"), strict=True)]


def train_on(mesh: str, records: str | Path, workdir: Path, stage: str, *more: str) -> np.ndarray:
    """Run in a process of its own, on one virtual device per mesh position, and return the losses."""
    count = np.prod([int(size) for size in mesh.split("x")])
    subprocess.run(command(records, workdir, stage, *ON_MESHES, *mesh_flags(mesh), *more), check=True,
                   env={**os.environ, "JAX_NUM_CPU_DEVICES": str(count)})
    return np.array(list(losses(workdir).values()))
