"""Small training runs, for tests of several kinds."""

import ast
import json
import os
import subprocess
import sys

import numpy as np

from durian_jax.configs.durian import get_config
from durian_jax.training.sharding import MESH_AXES

STEPS = 20
# Compiling is what a small run spends its time on: one network of one level, no decoder in the step, and a plain
# optimiser; stage 2 has Muon.
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


def command(records, workdir, stage, *more):
    """The command line of a small run; a flag of `more` takes the place of one of `SMALL`."""
    optimizer = ["--config.optimizer=muon"] if str(stage) == "2" else []
    flags = {flag.partition("=")[0]: flag for flag in (*SMALL, *optimizer, *more)}
    return [sys.executable, "-m", "durian_jax", "train", f"--config=tiny,stage={stage}",
            f"--workdir={workdir}", f"--config.source.clips={records}", *flags.values()]


def small_config(records, stage="1"):
    config = get_config(f"tiny,stage={stage}")
    for option in SMALL:
        name, value = option.removeprefix("--config.").split("=")
        *path, last = name.split(".")
        target = config
        for part in path:
            target = target[part]
        target[last] = value if last in ("optimizer", "reference_mode") else ast.literal_eval(value)
    config.source.clips = str(records)
    return config


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


# Runs that are repeated on several meshes: all networks, kernels that are worth dividing, and one checkpoint.
ON_MESHES = ["--config.model.reference_mode=dual",
             "--config.model.unet.channels=(64,)", "--config.batch_size=8", "--config.total_steps=20",
             "--config.decay_steps=0", "--config.optimizer=adamw", "--config.learning_rate=1e-3",
             "--config.checkpoint_every=20"]


def mesh_flags(mesh):
    """The flags of a mesh such as 1x2x2x2."""
    return [f"--config.mesh.{axis}={size}" for axis, size in zip(MESH_AXES, mesh.split("x"), strict=True)]


def train_on(mesh, records, workdir, stage, *more):
    """The losses of a run on so many virtual devices, in a process of its own."""
    count = np.prod([int(size) for size in mesh.split("x")])
    subprocess.run(command(records, workdir, stage, *ON_MESHES, *mesh_flags(mesh), *more), check=True,
                   env={**os.environ, "JAX_NUM_CPU_DEVICES": str(count)})
    return np.array(list(losses(workdir).values()))
