"""Checkpoints with random weights, and their exports for PyTorch."""

import json
import math
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from durian_jax.checkpoints.weights import Checkpoint, load_checkpoint, save_checkpoint
from durian_jax.convert.bundle import BUNDLE_FILE, file_hashes
from durian_jax.convert.exporter import export_checkpoint
from durian_jax.diffusion import Objective, Sampling
from durian_jax.faces.arcface import IDENTITY_FILE
from durian_jax.models.codecs.config import AutoencoderKLConfig, AutoencoderTinyConfig, CodecConfig
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.family import ModelConfig
from durian_jax.models.image_encoder_config import ImageEncoderConfig
from durian_jax.models.parameters import param_shapes
from durian_jax.models.unet.config import UNetConfig
from tests.helpers.arcface import WIDTH, write_network

# "like_sd" has Stable Diffusion's layout with an image encoder, "small" the layout of the shipped checkpoint.
LIKE_SD = DurianConfig(
    image_size=32, max_frames=6, temporal_heads=2, keypoint_patch=1, keypoint_channels=(8,),
    unet=UNetConfig(channels=(16, 32), attention=(True, False), heads=(2, 2), context_dim=24, positions=False,
                    feedforward_multiplier=4),
    codec=AutoencoderKLConfig(channels=(8, 16), layers=1, norm_groups=4),
    image_encoder=ImageEncoderConfig(channels=16, layers=2, heads=2, mlp_channels=32, image_size=28, projection=24))
SMALL = DurianConfig(
    image_size=32, max_frames=6, temporal_heads=2, keypoint_channels=(8,),
    unet=UNetConfig(channels=(16, 32), attention=(False, True), heads=(2, 4)),
    codec=CodecConfig(encoder_channels=(8, 8), decoder_channels=(8, 8), latent_channels=4, norm_groups=2,
                      decoder_norm="pixel", temporal_kernel=3))
CONFIGS = {
    "like_sd": LIKE_SD, "small": SMALL,
    "no_image_encoder": replace(LIKE_SD, image_encoder=None, mask_channel=False, masked_references=False,
                                codec=AutoencoderTinyConfig(channels=8, encoder_blocks=(1, 2), decoder_blocks=(2, 1))),
    "identity": replace(LIKE_SD, identity_dim=WIDTH),
}
OBJECTIVES = {"like_sd": Objective("stable_diffusion", "epsilon", time_power=1.0, region_weight=0.0),
              "small": Objective(), "no_image_encoder": Objective("cosine", "velocity"), "identity": Objective()}
SAMPLING = Sampling(2, 1.5)

# The beginning of a Python program in which JAX cannot be imported.
REFUSE_JAX = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("jax", "jaxlib", "flax", "optax", "orbax", "grain", "ml_dtypes"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
"""


def random_checkpoint(config: ModelConfig, objective: Objective) -> Checkpoint:
    """Return a checkpoint in which no tensor is zero, also where training starts from zeros."""
    rng, params = np.random.default_rng(0), {}
    for path, wanted in param_shapes(config).items():
        noise = rng.standard_normal(wanted.shape, np.float32)
        if path.endswith("kernel"):
            params[path] = noise * math.sqrt(0.01 + 1 / math.prod(wanted.shape[:-1]))
        else:
            params[path] = np.float32(path.endswith("scale")) + np.float32(0.1) * noise
    return Checkpoint(config, objective, {path: jnp.asarray(x) for path, x in params.items()}, sampling=SAMPLING)


def make_export(kind: str, folder: Path) -> tuple[Checkpoint, Path]:
    """Write a checkpoint of a kind of model and its export; return the loaded checkpoint and the export's folder."""
    return export_random(CONFIGS[kind], OBJECTIVES[kind], folder)


def export_random(config: ModelConfig, objective: Objective, folder: Path) -> tuple[Checkpoint, Path]:
    """Write a random checkpoint and its export; return the loaded checkpoint and the export's folder."""
    save_checkpoint(folder / "checkpoint", random_checkpoint(config, objective), "float32")
    if config.identity_dim is not None:
        write_network(folder / "checkpoint" / IDENTITY_FILE)
    export_checkpoint(folder / "checkpoint", folder / "export", "fp32")
    return load_checkpoint(folder / "checkpoint"), folder / "export"


def edit_bundle(folder: Path, **changes) -> None:
    """Change fields of durian.json."""
    path = folder / BUNDLE_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def update_hashes(folder: Path) -> None:
    """Write the hashes of the present files to durian.json."""
    edit_bundle(folder, files=file_hashes(folder))
