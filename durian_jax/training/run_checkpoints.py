"""Run checkpoints: everything that a killed run needs to resume with the same losses, on any mesh."""

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from durian_jax.errors import ClusterError, InputError
from durian_jax.files import is_disk_full
from durian_jax.models.parameters import FlatParams
from durian_jax.training.named_files import has_checkpoints, saved_steps
from durian_jax.training.sharding import Layout
from durian_jax.training.state import TrainState, without_teacher

_UNFINISHED = "*.orbax-checkpoint-tmp*"  # Orbax' name of a checkpoint that is being written
# Several devices share the writing of a replicated array, in parts of at least this size: XLA compiles a program for
# every shape of a part, which takes longer than writing a small model.
_SMALLEST_PART = 64 * 1024
# The word in XLA's errors when memory is short.
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


class DamagedCheckpoint(UserWarning):
    """A checkpoint is damaged; an earlier one replaces it."""


class RunCheckpoints:
    """The checkpoints of one run, in `workdir/checkpoints`.

    A save runs in the background and is atomic: the checkpoint gets its name when it is complete.

    Args:
        workdir: folder of the run.
        keep_last: number of newest checkpoints to keep.
        keep_every: also keep those of the multiples of this many steps; 0: none.
    """

    def __init__(self, workdir: Path, keep_last: int = 2, keep_every: int = 0):
        _quieten()
        folder = (workdir / "checkpoints").absolute()
        if jax.process_index() == 0:
            for path in sorted(folder.glob(_UNFINISHED)):
                warnings.warn(f"{path.name} is incomplete (the run was killed while saving) and is ignored",
                              DamagedCheckpoint, stacklevel=2)
        context = ocp.Context()
        saving = context.array.saving
        saving.min_slice_bytes_for_replica_parallel = _SMALLEST_PART
        # Do not save shardings: a run that resumes has its own.
        saving.enable_write_sharding_file, saving.array_metadata_store = False, None
        policies = ocp.training.preservation_policies
        keep = [policies.LatestN(keep_last)] + ([policies.EveryNSteps(keep_every)] if keep_every else [])
        self._checkpointer = ocp.training.Checkpointer(
            folder, cleanup_tmp_directories=True,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.AnyPreservationPolicy(keep), context=context)
        self._folder = folder
        self._pending = None  # the save that runs in the background
        self._damaged: set[int] = set()

    @property
    def last_saved(self) -> int | None:
        """Step of the newest complete checkpoint so far, or None."""
        return max(saved_steps(self._folder) - self._damaged, default=None)

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, state: TrainState, data_state: dict) -> None:
        """Start to save the state after `state.step` updates, and the data iterator's state at that moment.

        Raises:
            InputError: this save or the previous one could not be written.
        """
        self.wait()
        step = int(state.step)
        parts = {"state": state, "data": data_state}
        with self._explained(step):
            self._pending = step, self._checkpointer.save_checkpointables_async(step, parts, force=True, overwrite=True)
        self._damaged.discard(step)

    def wait(self) -> None:
        """Wait until the last save is complete.

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
        """Turn errors while saving into advice."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            kept = "No earlier checkpoint exists" if self.last_saved is None \
                else f"The checkpoint of step {self.last_saved} is complete, and the same command resumes from it"
            # A process may have waited for one that has exited: the disk may be fine, and a retry may work.
            lost = jax.process_count() > 1 and isinstance(error, RuntimeError)
            what = f"the checkpoint of step {step} could not be written"
            if is_disk_full(error):
                for unfinished in Path(self._folder).glob(f"{step}.orbax-checkpoint-tmp*"):
                    shutil.rmtree(unfinished, ignore_errors=True)
                raise InputError(f"{what}: the disk is full, or a quota is used up; free some space. {kept}") from error
            kind, reason = (ClusterError, "Another process has exited, or is") if lost else (InputError, "Is")
            raise kind(f"{what}: {_first_line(error)}. {reason} the disk full? {kept}") from error

    def restore(self, like: TrainState, layout: Layout) -> tuple[TrainState, dict]:
        """Restore the state and data state of the newest readable checkpoint.

        Args:
            like: the shapes and types of a state.
            layout: how to shard it, whatever mesh it was saved from.

        Raises:
            InputError: no checkpoint is readable.
        """
        parts = {"state": placed(like, layout), "data": None}
        problems = []
        for checkpoint in sorted(self._checkpointer.checkpoints, key=lambda found: -found.step):
            loaded, problem = None, "another process cannot read its part"
            try:
                loaded = self._checkpointer.load_checkpointables(checkpoint.step, parts)
            except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
                if OUT_OF_MEMORY in str(error):
                    raise  # the checkpoint is not damaged
                problem = _first_line(error)
            if _all_agree(loaded is not None):
                return loaded["state"], loaded["data"]
            self._damaged.add(checkpoint.step)
            problems.append(f"step {checkpoint.step}: {problem}")
            warnings.warn(f"the checkpoint of step {checkpoint.step} cannot be read and is ignored ({problem})",
                          DamagedCheckpoint, stacklevel=2)
        raise InputError(f"no checkpoint of the run can be read: {'; '.join(problems)}. Check {self._folder} and its "
                         "disk; if the checkpoints are lost, start again in another --workdir")

    def __enter__(self) -> "RunCheckpoints":
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            self._checkpointer.close()
        elif jax.process_count() == 1:  # closing would wait for other processes, which may have exited
            with suppress(Exception):  # a failed save raises again
                self._checkpointer.close()
            with suppress(OSError):
                self._folder.rmdir()  # if it is empty: a run that fails before its first checkpoint leaves no folder


def _all_agree(mine: bool) -> bool:
    """Whether `mine` is true in every process."""
    if jax.process_count() == 1:
        return mine
    from jax.experimental import multihost_utils

    return bool(np.all(multihost_utils.process_allgather(np.array(mine))))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _quieten() -> None:
    logger = logging.getLogger("absl")
    logger.setLevel(logging.WARNING)  # Orbax reports every file otherwise
    logger.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a message of Orbax is needed: its threads print tracebacks of a full disk, which `_explained` names."""
    return not (record.exc_info and is_disk_full(record.exc_info[1]))


def placed(shapes, layout: Layout | None):
    """Add shardings to shapes; without a layout, this process's first device."""
    one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    places = jax.tree.map(lambda _: one, shapes) if layout is None else layout.state(shapes)
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places)


def stored_shapes(workdir: Path) -> dict[str, tuple[int, ...]]:
    """Return path -> shape of the parameters that `load_params` loads, without loading them.

    Raises:
        InputError: the run has no checkpoint yet.
    """
    with _newest(workdir) as (_, state):
        return {path: tuple(x.shape) for path, x in without_teacher({**state["frozen"], **state["average"]}).items()}


def load_params(workdir: Path, layout: Layout | None = None) -> FlatParams:
    """Load all parameters of a run's newest checkpoint; of the trained ones, the moving average.

    Args:
        layout: how to shard them; None: on this process's first device.

    Raises:
        InputError: the run has no checkpoint yet.
    """
    with _newest(workdir) as (checkpointer, shapes):
        state = checkpointer.load_checkpointables(None, {"state": placed(shapes, layout)})["state"]
    return without_teacher({**state["frozen"], **state["average"]})


@contextmanager
def _newest(workdir: Path) -> Iterator[tuple[ocp.training.Checkpointer, dict]]:
    """Yield a reader of a run's checkpoints, and the shapes of all parameters of the newest one."""
    _quieten()
    has_checkpoints(workdir)
    context = ocp.Context()
    context.pytree.loading.partial_load = True  # without the optimiser's state
    with ocp.training.Checkpointer((workdir / "checkpoints").absolute(), context=context) as checkpointer:
        of_state = checkpointer.checkpointables_metadata(None).metadata["state"]
        yield checkpointer, {name: of_state[name] for name in ("frozen", "average")}
