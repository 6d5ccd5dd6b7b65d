"""A training stage: which parameters it trains, and by which loss."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from durian_jax.checkpoints.weights import Checkpoint

# A `training.config.RunConfig`, which knows its stage.
Run = Any


class Loss(Protocol):
    """The loss of a stage."""

    def __call__(self, run: Run, model: Any, variables: dict, batch: Mapping[str, jax.Array],
                 key: jax.Array, **options: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the loss and its parts.

        Args:
            run: the config.
            model: of the config (`models.family.Model`).
            variables: of the model.
            batch: float32 fields of `run.batch_spec`.
            key: of the step's random numbers.
            options: in stages with a teacher, `teacher`: its variables.
        """


def always(run: Run) -> bool:
    """True, for every run."""
    return True


@dataclass(frozen=True)
class Stage:
    """One stage of a family's recipe.

    Attributes:
        name: what the user writes.
        trains: pattern that matches the beginning of the paths of the parameters to train; the others are frozen.
        loss: see `Loss`.
        columns: draws a sample sheet: (checkpoint, batch) -> its columns, each (B, H, W, 3) uint8.
        temporal: whether the temporal layers run.
        teacher: keep the initial values of the parameters to train, as a teacher.
        uses: the groups of settings that not every stage uses, "disturbance" and "distillation".
        needs_pixels: whether the loss needs pictures, which encoded samples lack.
        check: raises an InputError if the run's config contradicts the stage.
    """

    name: str
    trains: str
    loss: Loss
    columns: Callable[[Checkpoint, Mapping[str, np.ndarray]], list[np.ndarray]]
    temporal: bool = False
    teacher: bool = False
    uses: Collection[str] = ()
    needs_pixels: Callable[[Run], bool] = lambda run: False
    check: Callable[[Run], None] = lambda run: None
