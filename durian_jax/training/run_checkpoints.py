"""Run checkpoints: everything a killed run needs to go on with the same losses, on any mesh."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from durian_jax.errors import ClusterError, InputError
from durian_jax.models.parameters import FlatParams
from durian_jax.training.sharding import Layout
from durian_jax.training.state import TrainState

_UNFINISHED = "*.orbax-checkpoint-tmp*"  # what Orbax calls a checkpoint until it is whole
# Of an array that lies on several devices each writes a part, but no smaller one than this: for every shape of a part
# a program is compiled, which at the first save of a small model takes longer than to write it.
_SMALLEST_PART = 64 * 1024
# What errors of XLA say where an array does not fit.
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


class DamagedCheckpoint(UserWarning):
    """A checkpoint was ignored, the one before takes its place."""


class RunCheckpoints:
    """The checkpoints of one run, in `workdir/checkpoints`.

    Each is written beside the run, to a temporary name that is changed when all of it is there.

    Args:
        workdir: folder of the run.
        keep_last: how many of the newest stay.
        keep_every: those of every so many steps stay too; 0: none.
    """

    def __init__(self, workdir: Path, keep_last: int = 2, keep_every: int = 0):
        _quieten()
        folder = (workdir / "checkpoints").absolute()
        if jax.process_index() == 0:
            for path in sorted(folder.glob(_UNFINISHED)):
                warnings.warn(f"{path.name} was cut while it was written and is ignored", DamagedCheckpoint,
                              stacklevel=2)
        context = ocp.Context()
        saving = context.array.saving
        saving.min_slice_bytes_for_replica_parallel = _SMALLEST_PART
        # Where arrays lay is not written down: a run says where they are to lie when it goes on.
        saving.enable_write_sharding_file, saving.array_metadata_store = False, None
        policies = ocp.training.preservation_policies
        keep = [policies.LatestN(keep_last)] + ([policies.EveryNSteps(keep_every)] if keep_every else [])
        self._checkpointer = ocp.training.Checkpointer(
            folder, cleanup_tmp_directories=True,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.AnyPreservationPolicy(keep), context=context)
        self._folder = folder
        self._pending = None  # the save that goes on beside the run
        self._damaged: set[int] = set()

    @property
    def last_saved(self) -> int | None:
        """Step of the newest checkpoint that is whole by now, or None."""
        return max(whole_steps(self._folder) - self._damaged, default=None)

    @property
    def latest_step(self) -> int | None:
        """Step of the newest whole checkpoint, or None."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, state: TrainState, data_state: dict) -> None:
        """Begin to save the state after `state.step` updates, and the data iterator's state at that moment.

        Raises:
            InputError: this save, or the one before, could not be written.
        """
        self.wait()
        step = int(state.step)
        parts = {"state": state, "data": data_state}
        with self._explained(step):
            self._pending = step, self._checkpointer.save_checkpointables_async(step, parts, force=True, overwrite=True)
        self._damaged.discard(step)

    def wait(self) -> None:
        """Until the last save is whole.

        Raises:
            InputError: it could not be written.
        """
        if self._pending is not None:
            step, response = self._pending
            self._pending = None
            with self._explained(step):
                response.result()

    @contextmanager
    def _explained(self, step: int) -> Iterator[None]:
        """Turns what goes wrong while saving into advice."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            kept = "there is none before it" if self.last_saved is None \
                else f"that of step {self.last_saved} is whole, the same command goes on from it"
            # One process may wait for another that has gone: that is no full disk, and may go well next time.
            lost = jax.process_count() > 1 and isinstance(error, RuntimeError)
            kind, reason = (ClusterError, "Another process has exited, or is") if lost else (InputError, "Is")
            raise kind(f"the checkpoint of step {step} could not be written: {_first_line(error)}. {reason} the disk "
                       f"full? Of the checkpoints, {kept}") from error

    def restore(self, like: TrainState, layout: Layout) -> tuple[TrainState, dict]:
        """The newest checkpoint that can be read: its state and data state.

        Args:
            like: the shapes and types of a state.
            layout: where it is to lie, whatever mesh it was saved from.

        Raises:
            InputError: none can be read.
        """
        parts = {"state": placed(like, layout), "data": None}
        problems = []
        for checkpoint in sorted(self._checkpointer.checkpoints, key=lambda found: -found.step):
            loaded, problem = None, "another process cannot read its part"
            try:
                loaded = self._checkpointer.load_checkpointables(checkpoint.step, parts)
            except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
                if OUT_OF_MEMORY in str(error):
                    raise  # it is whole
                problem = _first_line(error)
            if _all_agree(loaded is not None):
                return loaded["state"], loaded["data"]
            self._damaged.add(checkpoint.step)
            problems.append(f"step {checkpoint.step}: {problem}")
            warnings.warn(f"the checkpoint of step {checkpoint.step} cannot be read and is ignored ({problem})",
                          DamagedCheckpoint, stacklevel=2)
        raise InputError(f"no checkpoint of the run can be read: {'; '.join(problems)}. Look at {self._folder} and its "
                         "disk; if they are lost, begin again in another --workdir")

    def __enter__(self) -> "RunCheckpoints":
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            self._checkpointer.close()
        elif jax.process_count() == 1:  # closing would wait for other processes, which may have gone
            with suppress(Exception):  # a save that failed says so again
                self._checkpointer.close()


def whole_steps(folder: Path) -> set[int]:
    """Steps of the checkpoints in a folder that were written to their end."""
    return {int(path.name) for path in folder.glob("*") if path.name.isdigit()}


def _all_agree(mine: bool) -> bool:
    """Whether it is so in every process."""
    if jax.process_count() == 1:
        return mine
    from jax.experimental import multihost_utils

    return bool(np.all(multihost_utils.process_allgather(np.array(mine))))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _quieten() -> None:
    logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax reports every file otherwise


def placed(shapes, layout: Layout | None):
    """Shapes with the places where the arrays are to go; without a layout, this process's first device."""
    one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    places = jax.tree.map(lambda _: one, shapes) if layout is None else layout.state(shapes)
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places)


def load_params(workdir: Path, layout: Layout | None = None) -> FlatParams:
    """All parameters of a run's newest checkpoint, with the moving average of those it trained.

    Args:
        layout: where they are to lie; None: on this process's first device.

    Raises:
        InputError: the run has no checkpoint yet.
    """
    _quieten()
    context = ocp.Context()
    context.pytree.loading.partial_load = True  # of the state no optimiser's
    with ocp.training.Checkpointer((workdir / "checkpoints").absolute(), context=context) as checkpointer:
        if checkpointer.latest is None:
            raise InputError(f"{workdir}: no whole checkpoint yet; let the run reach its first (checkpoint_every)")
        of_state = checkpointer.checkpointables_metadata(None).metadata["state"]
        shapes = {name: of_state[name] for name in ("frozen", "average")}
        state = checkpointer.load_checkpointables(None, {"state": placed(shapes, layout)})["state"]
    return {**state["frozen"], **state["average"]}
