"""Run checkpoints: everything a killed run needs to go on with the same losses."""

import logging
from pathlib import Path

import jax
from orbax.checkpoint import v1 as ocp

from durian_jax.errors import InputError
from durian_jax.models.parameters import FlatParams
from durian_jax.training.state import TrainState


class RunCheckpoints:
    """The checkpoints of one run, in `workdir/checkpoints`, the newest `keep` of them.

    Orbax writes each to a temporary name and renames it when it is whole, so that a run killed while
    saving finds the one before.
    """

    def __init__(self, workdir: Path, keep: int = 2):
        logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax reports every file otherwise
        self._checkpointer = ocp.training.Checkpointer(
            (workdir / "checkpoints").absolute(), cleanup_tmp_directories=True,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep))

    @property
    def latest_step(self) -> int | None:
        """Step of the newest whole checkpoint, or None."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, state: TrainState, data_state: dict) -> None:
        """Save the state after `state.step` updates, and the data iterator's state at that moment."""
        self._checkpointer.save_checkpointables(int(state.step), {"state": state, "data": data_state}, force=True)

    def restore(self, like: TrainState) -> tuple[TrainState, dict]:
        """The newest checkpoint's state and data state.

        Args:
            like: the shapes and types of a state.
        """
        loaded = self._checkpointer.load_checkpointables(None, {"state": _placed(like), "data": None})
        return loaded["state"], loaded["data"]

    def close(self) -> None:
        self._checkpointer.close()


def _placed(shapes):
    """Shapes with the place where the arrays are to go: this process's first device."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)


def load_params(workdir: Path) -> FlatParams:
    """All parameters of a run's newest checkpoint, with the moving average of those it trained.

    Raises:
        InputError: the run has no checkpoint yet.
    """
    with ocp.training.Checkpointer((workdir / "checkpoints").absolute()) as checkpointer:
        if checkpointer.latest is None:
            raise InputError(f"{workdir}: no whole checkpoint yet; let the run reach its first (checkpoint_every)")
        shapes = checkpointer.checkpointables_metadata(None).metadata["state"]
        state = checkpointer.load_checkpointables(None, {"state": _placed(shapes)})["state"]
    return {**state["frozen"], **state["average"]}
