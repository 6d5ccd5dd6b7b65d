"""Sample sheets of a run: pictures to look at, beside the loss."""

from collections.abc import Mapping

import numpy as np

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.models.batch import model_inputs
from durian_jax.training.config import RunConfig


def sample_sheet(checkpoint: Checkpoint, batch: Mapping[str, np.ndarray], run: RunConfig, rows: int = 8) -> np.ndarray:
    """Draw the first clips of a batch, in the columns of the run's stage.

    Args:
        checkpoint: to sample from.
        batch: as the loader makes it.
        rows: number of clips, at most.

    Returns:
        (height, width, 3) uint8.
    """
    some = model_inputs({name: np.asarray(value[:rows]) for name, value in batch.items()}, run.batch_spec)
    columns = run.recipe.columns(checkpoint, some)
    return np.concatenate([np.concatenate(row, 1) for row in zip(*columns, strict=True)])
