"""The training loop: it schedules, the step computes."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from durian_jax.checkpoints.weights import Checkpoint, save_checkpoint
from durian_jax.compiling import compiling
from durian_jax.data.encoded_samples import EncodedSamples
from durian_jax.data.pipeline import make_encoded_loader, make_loader
from durian_jax.data.sources import ClipSource
from durian_jax.errors import InputError
from durian_jax.faces.arcface import IDENTITY_FILE, IdentityEncoder, embed_faces, open_identity_encoder
from durian_jax.fields import UnknownField
from durian_jax.files import atomic_file, check_folder, created_folder, read_json, write_json
from durian_jax.locks import FolderLock
from durian_jax.progress import progress_bar, say
from durian_jax.training.cluster import Heartbeat, Preemption, agreed, barrier, is_first
from durian_jax.training.config import FIXED, RunConfig
from durian_jax.training.differences import describe, differences
from durian_jax.training.encoder_probe import check_samples
from durian_jax.training.initialization import check_codec, check_start, initial_params
from durian_jax.training.layout import run_layout
from durian_jax.training.metrics import Clock, MetricsWriter, Tracing
from durian_jax.training.named_files import saved_steps
from durian_jax.training.optimizer import make_optimizer
from durian_jax.training.run_checkpoints import OUT_OF_MEMORY, RunCheckpoints
from durian_jax.training.sample_sheet import sample_sheet
from durian_jax.training.sharding import Layout, to_host
from durian_jax.training.state import TrainState, create_state, state_shapes, without_teacher
from durian_jax.training.step import make_train_step, step_flops
from durian_jax.training.training_clips import make_source
from durian_jax.video import write_image


def train(config: ConfigDict, workdir: str | Path, profile: tuple[int, int] | None = None) -> bool:
    """Train one stage, or resume it: the same call continues from the newest checkpoint.

    Writes to `workdir`: checkpoints/, metrics.jsonl, tensorboard/, samples/, config.json and, at the end, export/
    (safetensors of the averaged weights, which `--checkpoint` takes). Every process of a cluster calls it, and all
    see the same `workdir`.

    Args:
        config: see `configs`.
        profile: write a trace of these steps, first and last, to workdir/profile.

    Returns:
        Whether the run has reached its end. False: it got SIGTERM, has saved and can be resumed.

    Raises:
        InputError: see `RunConfig`; also a run of another model or a living run in `workdir`, a loss that is not
            finite, a checkpoint that cannot be written, too little memory, and a process that has exited.
        KeyboardInterrupt: Ctrl-C; the run has finished its step, has saved and can be resumed.
    """
    run = RunConfig.read(config)
    workdir = check_folder(workdir)
    check_same_run(workdir, run)
    resumes = bool(saved_steps(workdir / "checkpoints"))
    if not resumes:
        check_codec(run)
    source = EncodedSamples(run.source.samples) if run.encoded else make_source(run)
    clock = Clock(jax.devices())
    layout = run_layout(run)
    if not resumes:
        check_start(run)
    batches = _Batches(run, layout, source)
    optimizer = make_optimizer(run)
    jitted = make_train_step(run, optimizer, layout)
    train_step: Callable[[TrainState, dict], tuple[TrainState, dict]] = jitted
    last_saved = lambda: max(saved_steps(workdir / "checkpoints"), default=None)
    with _held(workdir), Heartbeat(last_saved, run.silence_seconds), Preemption() as preemption, \
            RunCheckpoints(workdir, run.keep_last, run.keep_every) as checkpoints, _memory_explained():
        state = _first_state(run, optimizer, layout, checkpoints, batches)
        batches.check_encoders(state)
        if is_first():
            write_json(workdir / "config.json", json.loads(config.to_json()))
        start = logged = int(state.step)
        if profile is not None and profile[1] <= start and is_first():
            say(f"durian: no trace is written: the run resumes from step {start}, after step {profile[1]}")
        metrics = MetricsWriter(workdir, start, active=is_first())
        with progress_bar(total=run.total_steps, initial=start, desc=f"stage {run.stage}", unit="step",
                          disable=not is_first()) as bar, Tracing(workdir / "profile", profile) as tracing:
            values: dict[str, jax.Array] = {}
            before = values
            for step in range(start + 1, run.total_steps + 1):
                # Keep at most one step in flight, so that the measured wait is the data's, and so that a run that is
                # told to stop does so soon.
                jax.block_until_ready(before)
                before = values
                with clock.waiting():
                    inputs = next(batches)
                if step == start + 1:
                    with compiling("the training step", shown=is_first()):
                        clock.flops = step_flops(run, state, inputs)
                        train_step = jitted.lower(state, inputs).compile()
                    barrier("compiled")  # the first collective times out after half a minute
                    preemption.listen()
                with tracing.step(step):
                    state, values = train_step(state, inputs)
                tracing.end(step, values)
                last = step == run.total_steps or preemption.stops_after(step)
                if step % run.log_every == 0 or last:
                    numbers = _finite(values, logged, step, checkpoints.last_saved)
                    metrics.scalars(step, {**numbers, **clock.read(step - logged)})
                    bar.set_postfix(loss=f"{numbers['loss']:.4f}")
                    logged = step
                saves = last or step % run.checkpoint_every == 0
                draws = bool(run.sample_every) and step % run.sample_every == 0
                if saves or draws:
                    jax.block_until_ready(values)  # the time until then is the step's
                with clock.away():
                    if saves:
                        _finite(values, logged, step, checkpoints.last_saved)
                        checkpoints.save(state, batches.get_state())
                    if draws:
                        _draw_samples(workdir, step, run, current_checkpoint(run, state), batches.local, metrics)
                bar.update()
                if last:
                    break
        metrics.close()
        checkpoints.wait()
        if int(state.step) < run.total_steps:
            if preemption.signal == signal.SIGINT:
                raise KeyboardInterrupt
            return False
        _export(workdir, run, current_checkpoint(run, state))
        return True


class _Batches:
    """Batches of a run, from clips or encoded samples, as global arrays.

    Args:
        source: the clips, or the encoded samples.

    Attributes:
        local: this process's part of the last batch, as the loader made it.
    """

    def __init__(self, run: RunConfig, layout: Layout, source: ClipSource | EncodedSamples):
        self._run, self._layout, self._parts = run, layout, layout.host_parts()
        self._identity_encoder: IdentityEncoder | None = open_identity_encoder(run.identity_model,
                                                                               run.model.identity_dim)
        self._samples = source if isinstance(source, EncodedSamples) else None
        options: dict[str, Any] = {
            "seed": run.seed, "batch_size": run.batch_size // layout.clip_groups * len(self._parts),
            "shard_index": self._parts, "shard_count": layout.clip_groups, "worker_count": run.data_workers}
        if isinstance(source, EncodedSamples):
            loader = make_encoded_loader(source, max_failures=run.data.max_failures, **options)
        else:
            loader = make_loader(source, run.data, **options)
        self._iterator = iter(loader)
        self.get_state: Callable[[], dict] = self._iterator.get_state
        self.set_state: Callable[[dict], None] = self._iterator.set_state
        self.local: dict[str, np.ndarray] = {}

    def __next__(self) -> dict[str, jax.Array]:
        self.local = next(self._iterator)
        if self._samples is None:
            self.local = embed_faces(self.local, self._identity_encoder)
        return self._layout.assemble(self.local, self._parts, self._run.batch_spec)

    def check_encoders(self, state: TrainState) -> None:
        """Refuse encoded samples that the run would have encoded differently, see `check_samples`."""
        if self._samples is not None:
            prefixes = self._run.model.encoders
            encoders = {path: x for path, x in {**state.frozen, **state.params}.items() if path.startswith(prefixes)}
            check_samples(self._samples, self._run, to_host(encoders), self._identity_encoder)


@contextmanager
def _held(workdir: Path) -> Iterator[None]:
    """Create the workdir and hold its lock in the first process; an error removes a workdir that stayed empty.

    Raises:
        InputError: in every process, if another run uses the workdir.
    """
    lock = FolderLock(workdir, "durian train", "wait for it, stop it, or choose another --workdir")
    with ExitStack() as resources:
        def hold() -> None:
            resources.enter_context(created_folder(workdir))
            resources.enter_context(lock)
        agreed(hold, "workdir")
        yield


@contextmanager
def _memory_explained() -> Iterator[None]:
    """Turn XLA's error about memory into advice."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if OUT_OF_MEMORY not in str(error):
            raise
        raise InputError(f"the run needs more memory than a device has ({str(error).splitlines()[0][:300]}); take "
                         "fewer clips (batch_size), --config.remat=full or a larger mesh.fsdp; `durian plan` says what "
                         "fits TPUs") from error


def _finite(values: dict[str, jax.Array], logged: int, step: int, last_saved: int | None) -> dict[str, float]:
    numbers = {name: float(value) for name, value in values.items()}
    for name in ("loss", "gradient_norm"):
        check_finite(name, numbers[name], logged, step, last_saved)
    return numbers


def _draw_samples(workdir: Path, step: int, run: RunConfig, checkpoint: Checkpoint, batch: dict,
                  metrics: MetricsWriter) -> None:
    if is_first():
        try:
            params = {path: x.astype(run.model.dtype) for path, x in checkpoint.params.items()}
            sheet = sample_sheet(replace(checkpoint, params=params), batch, run)
        except jax.errors.JaxRuntimeError as error:
            say(f"durian: no samples at step {step}, training continues: {str(error).splitlines()[0]}\n"
                "durian: sample_every=0 turns samples off")
            return
        write_image(workdir / "samples" / f"{step:07d}.png", sheet)
        metrics.image(step, "samples", sheet)


def _first_state(run: RunConfig, optimizer: optax.GradientTransformation, layout: Layout, checkpoints: RunCheckpoints,
                 batches: _Batches) -> TrainState:
    """A new state; or that of the newest checkpoint, and `batches` continues from there."""
    if not checkpoints.latest_step:
        return create_state(initial_params(run, layout=layout), run.recipe.trains, optimizer, run.frozen_dtype, layout,
                            run.recipe.teacher)
    shapes = state_shapes(run.model, run.recipe.trains, optimizer, run.frozen_dtype, run.recipe.teacher)
    state, data_state = checkpoints.restore(shapes, layout)
    batches.set_state(data_state)
    return state


def _export(workdir: Path, run: RunConfig, checkpoint: Checkpoint) -> None:
    if not is_first():
        return
    save_checkpoint(workdir / "export", checkpoint)
    if run.identity_model:
        with atomic_file(workdir / "export" / IDENTITY_FILE) as temporary:
            shutil.copyfile(run.identity_model, temporary)


def current_checkpoint(run: RunConfig, state: TrainState) -> Checkpoint:
    """The averaged weights of a state, for inference. Every process must call it; the first one gets all weights.

    Replicated weights stay on the first device, without a copy; the rest is gathered in this process's memory.
    """
    params = without_teacher({**state.frozen, **state.average})
    whole = {path: x.addressable_data(0) for path, x in params.items() if x.is_fully_replicated}
    parts = {path: x for path, x in params.items() if path not in whole}
    return Checkpoint(run.model, run.objective, {**whole, **to_host(parts, keep=is_first())}, sampling=run.sampling)


def check_finite(name: str, value: float, logged: int, step: int, last_saved: int | None) -> None:
    """Stop a run that has diverged before its checkpoints are overwritten.

    Raises:
        InputError: the value is not finite; names the steps and the last good checkpoint.
    """
    if not np.isfinite(value):
        saved = f"the last good checkpoint is of step {last_saved}" if last_saved else "there is no checkpoint yet"
        raise InputError(f"{name} is {value} between steps {logged + 1} and {step}; {saved}. Start again with a lower "
                         "learning_rate or gradient_clip; if this happens within the first steps, check that the "
                         "autoencoder of init_from is trained")


def check_same_run(workdir: Path, run: RunConfig) -> None:
    """Refuse to resume a run of another config.

    Raises:
        InputError: `FIXED` fields differ from those in the workdir, which are named; or config.json is damaged.
    """
    path = workdir / "config.json"
    if os.path.exists(path):
        values = read_json(path, "choose another --workdir")
        try:
            before = RunConfig.read(values)
        except UnknownField as error:
            raise InputError(f"{path}: {error}; a newer version wrote it, or it was edited; update durian-jax, or "
                             "choose another --workdir") from error
        except InputError as error:
            raise InputError(f"{path}: {error}; choose another --workdir") from error
        changed = [name for name in FIXED if getattr(run, name) != getattr(before, name)]
        if changed:
            raise InputError(f"{workdir} holds a run with another {', '.join(changed)}: "
                             f"{_described(before, run, changed)}; choose another --workdir")


def _described(before: RunConfig, run: RunConfig, changed: list[str]) -> str:
    if len(changed) == 1:
        before, run = (getattr(config, changed[0]) for config in (before, run))
        return describe(differences(before, run), "{name} {before} instead of {now}")
    values = ({name: getattr(config, name) for name in changed} for config in (before, run))
    return describe(differences(*values), "{name} {before} instead of {now}")
