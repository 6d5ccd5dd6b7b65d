"""The training loop: it schedules, the step computes."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from durian_jax.checkpoints.weights import Checkpoint, load_checkpoint, read_config, save_checkpoint
from durian_jax.data import DataConfig, make_loader
from durian_jax.data.encoded_samples import EncodedSamples, make_encoded_loader
from durian_jax.diffusion import Objective
from durian_jax.errors import InputError
from durian_jax.faces.arcface import IDENTITY_FILE, embed_faces, open_identity_encoder
from durian_jax.files import atomic_file, writable_folder, write_json
from durian_jax.models.attention import IMPLEMENTATIONS
from durian_jax.models.codecs.config import CodecConfig
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.parameters import FlatParams, init_params, param_axes, param_shapes
from durian_jax.models.unet.unet import REMAT_POLICIES
from durian_jax.tensor_files import check_paths
from durian_jax.training.cluster import Heartbeat, Preemption, barrier, is_first
from durian_jax.training.encoder_probe import ENCODERS, check_samples
from durian_jax.training.metrics import Clock, MetricsWriter, Tracing, bar_in_logs
from durian_jax.training.optimizer import OPTIMIZERS, make_optimizer
from durian_jax.training.run_checkpoints import OUT_OF_MEMORY, RunCheckpoints, load_params, whole_steps
from durian_jax.training.sample_sheet import sample_sheet
from durian_jax.training.sharding import Layout, make_mesh, to_host
from durian_jax.training.state import STAGES, TrainState, create_state, split, state_shapes
from durian_jax.training.step import make_train_step, step_flops
from durian_jax.training.training_clips import make_source
from durian_jax.video import write_image

# What must not change when a run goes on.
FIXED = ("stage", "model", "objective", "optimizer", "seed", "batch_size", "data_workers")


def initial_params(config: ConfigDict, model: DurianConfig, prefixes: tuple[str, ...] = ("",),
                   layout: Layout | None = None) -> FlatParams:
    """Fresh parameters, or those of `config.init_from` where it names a run or checkpoint.

    A checkpoint must hold every parameter of the model with its shape (one written before a stage holds
    that stage's fresh parameters), but for those that `config.init_fresh` names, which are fresh.

    Args:
        prefixes: beginnings of the paths that are wanted.
        layout: where they are to lie, all in parts; None: on the first device.
    """
    # What is to be whole becomes so in the precision in which it is kept, and not before.
    layout = layout and replace(layout, whole=frozenset())
    place = None if layout is None else layout.param
    if not config.init_from:
        return init_params(model, config.seed, place=place)
    folder = Path(config.init_from)
    if (folder / "checkpoints").is_dir():
        loaded = load_params(folder, layout)
    else:
        loaded = load_checkpoint(config.init_from, "stored", prefixes, layout and layout.place).params
    wanted = lambda shapes: {path: x.shape for path, x in shapes.items() if path.startswith(prefixes)}
    expected, loaded_shapes = wanted(param_shapes(model)), wanted(loaded)
    try:
        check_paths(expected, loaded_shapes, config.init_from, config.init_fresh)
    except InputError as error:
        fields = _other_fields(folder, model)
        if not fields:
            raise
        raise InputError(f"{config.init_from} is of another model than the config: {'; '.join(fields)}. Import or "
                         "train one of this config, or change the config") from error
    missing = frozenset(set(expected) - set(loaded))
    fresh = init_params(model, config.seed, missing, place) if missing else {}
    return {**{path: loaded[path] for path in loaded_shapes}, **fresh}


def _other_fields(folder: Path, model: DurianConfig) -> list[str]:
    """Fields in which the model of a checkpoint differs from another; none where the folder is no checkpoint."""
    if not (folder / "config.json").is_file() or (folder / "checkpoints").is_dir():
        return []
    found, wanted = (flatten_dict(x.to_dict(), sep=".") for x in (read_config(folder)[0], model))
    names = sorted(name for name in {**found, **wanted} if found.get(name) != wanted.get(name))
    return [f"{name} is {found.get(name)}, the config has {wanted.get(name)}" for name in names]


def validate(config: ConfigDict) -> tuple[DurianConfig, DataConfig, Objective]:
    """The typed parts of a config.

    Raises:
        InputError: a contradiction, before anything expensive starts.
    """
    if config.stage not in STAGES:
        raise InputError(f"unknown stage {config.stage!r}; expected one of {', '.join(STAGES)}")
    for field in ("total_steps", "batch_size", "checkpoint_every", "keep_last", "log_every"):
        if config[field] < 1:
            raise InputError(f"{field} must be at least 1, got {config[field]}")
    if config.keep_every < 0 or config.silence_seconds <= 0:
        raise InputError(f"expected keep_every of at least 0 and silence_seconds above 0, found {config.keep_every} "
                         f"and {config.silence_seconds}")
    if config.frozen_dtype not in ("float32", "bfloat16"):
        raise InputError(f"frozen_dtype: expected float32 or bfloat16, found {config.frozen_dtype!r}")
    if config.remat not in REMAT_POLICIES:
        raise InputError(f"unknown remat {config.remat!r}; expected one of {', '.join(REMAT_POLICIES)}")
    if config.attention not in ("auto", *IMPLEMENTATIONS):
        raise InputError(f"unknown attention {config.attention!r}; expected auto or one of "
                         f"{', '.join(IMPLEMENTATIONS)}")
    if config.optimizer not in OPTIMIZERS:
        raise InputError(f"unknown optimizer {config.optimizer!r}; expected one of {', '.join(OPTIMIZERS)}")
    if not 0 <= config.guidance_dropout <= 1:
        raise InputError(f"guidance_dropout: expected a probability in 0..1, got {config.guidance_dropout}")
    try:
        re.compile(config.init_fresh)
    except re.error as error:
        raise InputError(f"init_fresh: {config.init_fresh!r} is no regular expression ({error})") from error
    model = DurianConfig.from_dict(config.model.to_dict())
    data = DataConfig(**config.data.to_dict(), image_size=model.image_size, mask_references=model.masked_references,
                      face_crops=model.identity_dim is not None)
    if config.stage == "joint" and not config.objective.pixel_weight:
        raise InputError("stage joint trains the decoder through the loss on pixels: objective.pixel_weight must not "
                         "be 0")
    if config.objective.region_weight and not data.frame_masks:
        raise InputError("objective.region_weight needs to know where frames show attributes: data.frame_masks must "
                         "be true")
    if config.stage == "codec" and not isinstance(model.codec, CodecConfig):
        raise InputError("stage codec trains the small autoencoder (codec_kind small) from nothing; a pretrained one "
                         "comes with `durian import`")
    if config.source.samples and (config.stage not in ("1", "2") or config.objective.pixel_weight):
        raise InputError("encoded samples hold no pixels: source.samples is for stages 1 and 2 with "
                         "objective.pixel_weight=0")
    if config.identity_model and model.identity_dim is None:
        raise InputError(f"identity_model={config.identity_model}: this model attends to no identity embedding; set "
                         "model.identity_dim to its width (ArcFace: 512), or leave identity_model out")
    if config.stage == "2" and data.frames > model.max_frames:
        raise InputError(f"data.frames={data.frames} exceeds model.max_frames={model.max_frames}")
    return model, data, Objective(**config.objective.to_dict())


def run_layout(config: ConfigDict, model: DurianConfig, mesh: Mesh) -> Layout:
    """Where the state and the batches of a run lie on a mesh."""
    frozen = split(param_shapes(model), config.stage)[1] if config.frozen_whole else ()
    return Layout(mesh, param_axes(model), frozenset(frozen))


def train(config: ConfigDict, workdir: str | Path, profile: tuple[int, int] | None = None) -> bool:
    """Train one stage, or go on with it: the same command resumes from the newest checkpoint.

    Writes to `workdir`: checkpoints/, metrics.jsonl, tensorboard/, samples/, config.json and, at the
    end, export/ (safetensors of the averaged weights, what `--checkpoint` takes). Every process of a cluster calls it;
    all see the same `workdir`.

    Args:
        profile: write a trace of these steps, first and last, to workdir/profile.

    Returns:
        Whether the run has reached its end; False: it was asked to stop (SIGTERM) and has saved.

    Raises:
        InputError: see `validate`; also a run of another model in `workdir`, a loss that is not finite, a checkpoint
            that cannot be written, too little memory, and a process that has gone.
    """
    clock = Clock(jax.devices())
    model, data, objective = validate(config)
    layout = run_layout(config, model, make_mesh(config.mesh))
    layout.check_batch(config.batch_size, data.frames)
    parts = layout.host_parts()
    workdir = writable_folder(workdir)
    check_same_run(workdir, config)
    identity_encoder = open_identity_encoder(config.identity_model, model.identity_dim)
    samples = EncodedSamples(config.source.samples) if config.source.samples else None
    batches = iter(_loader(config, data, samples, parts, layout.clip_groups))
    optimizer = make_optimizer(config)
    step_function = make_train_step(config, model, objective, optimizer, layout)
    last_saved = lambda: max(whole_steps(workdir / "checkpoints"), default=None)
    with Heartbeat(last_saved, config.silence_seconds), Preemption() as preemption, \
            RunCheckpoints(workdir, config.keep_last, config.keep_every) as checkpoints, _memory_explained():
        state = _first_state(config, model, optimizer, layout, checkpoints, batches)
        if samples is not None:
            encoders = {path: x for path, x in {**state.frozen, **state.params}.items() if path.startswith(ENCODERS)}
            check_samples(samples, model, data, to_host(encoders), identity_encoder)
        if is_first():
            write_json(workdir / "config.json", json.loads(config.to_json()))
        start = logged = int(state.step)
        if profile is not None and profile[1] <= start and is_first():
            tqdm.write(f"durian: no trace is written: step {profile[1]} is over, the run goes on from step {start}",
                       file=sys.stderr)
        metrics = MetricsWriter(workdir, start, active=is_first())
        with tqdm(total=config.total_steps, initial=start, desc=f"stage {config.stage}", unit="step",
                  disable=not is_first(), **bar_in_logs()) as bar, Tracing(workdir / "profile", profile) as tracing:
            bar.set_postfix_str("compiling, once")
            values = before = {}
            for step in range(start + 1, config.total_steps + 1):
                # While a batch is fetched one step is under way, no more: what is waited for are data, and a run that
                # is told to stop does so soon.
                jax.block_until_ready(before)
                before = values
                with clock.waiting():
                    batch = next(batches)
                    if samples is None:
                        batch = embed_faces(batch, identity_encoder)
                    inputs = layout.assemble(batch, parts)
                if step == start + 1:
                    clock.flops = step_flops(config, model, objective, state, inputs)
                    step_function = step_function.lower(state, inputs).compile()
                    barrier("compiled")  # the first exchange waits for half a minute only
                with tracing.step(step):
                    state, values = step_function(state, inputs)
                if step == start + 1:
                    bar.set_postfix_str("", refresh=False)
                tracing.end(step, values)
                last = step == config.total_steps or preemption.stops_after(step)
                if step % config.log_every == 0 or last:
                    values = _finite(values, logged, step, checkpoints.last_saved)
                    metrics.scalars(step, {**values, **clock.read(step - logged)})
                    bar.set_postfix(loss=f"{values['loss']:.4f}")
                    logged = step
                saves = last or step % config.checkpoint_every == 0
                draws = bool(config.sample_every) and step % config.sample_every == 0
                if saves or draws:
                    jax.block_until_ready(values)  # what is still being computed is training
                with clock.away():
                    if saves:
                        _finite(values, logged, step, checkpoints.last_saved)
                        checkpoints.save(state, batches.get_state())
                    if draws:
                        _draw_samples(workdir, step, current_checkpoint(objective, model, state), batch, config.stage,
                                      metrics)
                bar.update()
                if last:
                    break
        metrics.close()
        checkpoints.wait()
        if int(state.step) < config.total_steps:
            return False
        _export(workdir, config, current_checkpoint(objective, model, state))
        return True


@contextmanager
def _memory_explained() -> Iterator[None]:
    """Turns a lack of memory, of which XLA tells in its own way, into advice."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if OUT_OF_MEMORY not in str(error):
            raise
        raise InputError(f"the run needs more memory than a device has ({str(error).splitlines()[0][:300]}); take "
                         "fewer clips (batch_size), --config.remat=full or a larger mesh.fsdp; `durian plan` says what "
                         "fits TPUs") from error


def _finite(values: dict[str, jax.Array], logged: int, step: int, last_saved: int | None) -> dict[str, float]:
    values = {name: float(value) for name, value in values.items()}
    for name in ("loss", "gradient_norm"):
        check_finite(name, values[name], logged, step, last_saved)
    return values


def _draw_samples(workdir: Path, step: int, checkpoint: Checkpoint, batch: dict, stage: str, metrics: MetricsWriter
                  ) -> None:
    if is_first():
        try:
            params = {path: x.astype(checkpoint.config.dtype) for path, x in checkpoint.params.items()}
            sheet = sample_sheet(replace(checkpoint, params=params), batch, stage=stage)
        except jax.errors.JaxRuntimeError as error:
            tqdm.write(f"durian: no samples at step {step}, training goes on: {str(error).splitlines()[0]}\n"
                       "durian: with sample_every=0 none are drawn", file=sys.stderr)
            return
        write_image(workdir / "samples" / f"{step:07d}.png", sheet)
        metrics.image(step, "samples", sheet)


def _loader(config: ConfigDict, data: DataConfig, samples: EncodedSamples | None, parts: tuple[int, ...], count: int):
    """This process's parts of the batches, which have so many."""
    options = {"seed": config.seed, "batch_size": config.batch_size // count * len(parts), "shard_index": parts,
               "shard_count": count, "worker_count": config.data_workers}
    if samples is not None:
        return make_encoded_loader(samples, max_failures=data.max_failures, **options)
    return make_loader(make_source(config.source, data), data, **options)


def _first_state(config: ConfigDict, model: DurianConfig, optimizer, layout: Layout, checkpoints: RunCheckpoints,
                 batches) -> TrainState:
    """A new state, or that of the newest checkpoint, to which `batches` is wound on."""
    if not checkpoints.latest_step:
        params = initial_params(config, model, layout=layout)
        return create_state(params, config.stage, optimizer, config.frozen_dtype, layout)
    shapes = state_shapes(model, config.stage, optimizer, config.frozen_dtype)
    state, data_state = checkpoints.restore(shapes, layout)
    batches.set_state(data_state)
    return state


def _export(workdir: Path, config: ConfigDict, checkpoint: Checkpoint) -> None:
    if not is_first():
        return
    save_checkpoint(workdir / "export", checkpoint)
    if config.identity_model:
        with atomic_file(workdir / "export" / IDENTITY_FILE) as temporary:
            shutil.copyfile(config.identity_model, temporary)


def current_checkpoint(objective: Objective, model: DurianConfig, state: TrainState) -> Checkpoint:
    """The averaged weights of a state, as inference takes them; every process must call it, the first one gets all.

    What every device holds whole stays on the first one, without a copy; the rest goes to this process's memory.
    """
    params = {**state.frozen, **state.average}
    whole = {path: x.addressable_data(0) for path, x in params.items() if x.is_fully_replicated}
    parts = {path: x for path, x in params.items() if path not in whole}
    return Checkpoint(model, objective, {**whole, **to_host(parts, keep=is_first())})


def check_finite(name: str, value: float, logged: int, step: int, last_saved: int | None) -> None:
    """Stop a run that has gone wrong before its checkpoints are overwritten.

    Raises:
        InputError: the value is not finite; names the steps and the last good checkpoint.
    """
    if not np.isfinite(value):
        saved = f"the last good checkpoint is of step {last_saved}" if last_saved else "there is no checkpoint yet"
        raise InputError(f"{name} is {value} between steps {logged + 1} and {step}; {saved}. Start again with a lower "
                         "learning_rate or gradient_clip.")


def check_same_run(workdir: Path, config: ConfigDict) -> None:
    """Refuse to go on with a run that was another one.

    Raises:
        InputError: `FIXED` fields differ from those in the workdir, which are named; or config.json is damaged.
    """
    path = workdir / "config.json"
    values = json.loads(config.to_json())
    if path.exists():
        try:
            before = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise InputError(f"{path} is damaged ({error}); choose another --workdir") from error
        changed = [name for name in FIXED if values[name] != before.get(name)]
        if changed:
            name = changed[0]
            raise InputError(f"{workdir} holds a run with another {', '.join(changed)}: {before.get(name)} instead of "
                             f"{values[name]}; choose another --workdir")
