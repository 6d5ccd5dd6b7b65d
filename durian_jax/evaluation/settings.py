"""Settings of an evaluation, for its report."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.diffusion import Sampling


def sampling_settings(name: str | Path, model: Checkpoint, sampling: Sampling) -> dict[str, Any]:
    """Return the settings that determine the pictures, for a report."""
    return {"checkpoint": str(name), "size": model.config.image_size, **asdict(sampling)}
