"""Recorded clips and a stand-in model for the tests of evaluation."""

from unittest.mock import create_autospec

import numpy as np

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.data.synthesize import synthesize
from durian_jax.diffusion import Objective
from durian_jax.evaluation import transfer
from durian_jax.images import to_uint8
from durian_jax.inference.generate import generate
from durian_jax.models.durian.config import DurianConfig

SIZE = 64  # H = W in pixels


def record_clips(folder):
    """Write six procedural clips of five frames into the folder."""
    synthesize(folder, "validation", 6, 5, SIZE, workers=0)


def use_blank_model(monkeypatch, program):
    """Make a program (a module) use a model that returns the blanked portrait.

    Returns:
        A list that collects, for each call of the model, the shapes of its batch.
    """
    batches = []

    def blank(checkpoint, batch, sampling):
        batches.append({name: value.shape for name, value in batch.items()})
        return np.repeat(to_uint8(batch["portrait"])[:, None], batch["keypoints"].shape[1], 1)
    checkpoint = Checkpoint(DurianConfig(image_size=SIZE, max_frames=6), Objective(), {})
    monkeypatch.setattr(transfer, "generate", create_autospec(generate, side_effect=blank))
    monkeypatch.setattr(program, "load_checkpoint", lambda _: checkpoint)
    monkeypatch.setattr(program, "read_description", lambda _: checkpoint.description)
    return batches
