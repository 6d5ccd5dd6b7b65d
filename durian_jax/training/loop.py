"""The training loop: it schedules, the step computes."""

import json
import re
import shutil
import time
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict
from tqdm import tqdm

from durian_jax.data import DataConfig, make_loader
from durian_jax.data.encoded import EncodedSamples, make_encoded_loader
from durian_jax.diffusion import Objective
from durian_jax.errors import InputError
from durian_jax.files import atomic_file, writable_folder, write_json
from durian_jax.identity import embed_faces, open_identity_encoder
from durian_jax.models import CodecConfig, DurianConfig
from durian_jax.models.parameters import FlatParams, init_params, param_shapes
from durian_jax.models.unet import REMAT_POLICIES
from durian_jax.training.checkpoints import RunCheckpoints, load_params
from durian_jax.training.encoders import check_samples
from durian_jax.training.metrics import MetricsWriter
from durian_jax.training.optimizer import OPTIMIZERS, make_optimizer
from durian_jax.training.samples import sample_sheet
from durian_jax.training.sources import make_source
from durian_jax.training.state import STAGES, TrainState, create_state
from durian_jax.training.step import make_train_step
from durian_jax.video import write_image
from durian_jax.weights import IDENTITY_FILE, Checkpoint, check_paths, load_checkpoint, read_config, save_checkpoint

# What must not change when a run goes on.
FIXED = ("stage", "model", "objective", "optimizer", "seed", "batch_size", "data_workers")


def initial_params(config: ConfigDict, model: DurianConfig, prefixes: tuple[str, ...] = ("",)) -> FlatParams:
    """Fresh parameters, or those of `config.init_from` where it names a run or checkpoint.

    A checkpoint must hold every parameter of the model with its shape (one written before a stage holds
    that stage's fresh parameters), but for those that `config.init_fresh` names, which are fresh.

    Args:
        prefixes: beginnings of the paths that are wanted.
    """
    if not config.init_from:
        return init_params(model, config.seed)
    folder = Path(config.init_from)
    if (folder / "checkpoints").is_dir():
        loaded = load_params(folder)
    else:
        loaded = load_checkpoint(config.init_from, "stored", prefixes).params
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
    fresh = init_params(model, config.seed, missing) if missing else {}
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
    for field in ("total_steps", "batch_size", "checkpoint_every", "log_every"):
        if config[field] < 1:
            raise InputError(f"{field} must be at least 1, got {config[field]}")
    if config.frozen_dtype not in ("float32", "bfloat16"):
        raise InputError(f"frozen_dtype: expected float32 or bfloat16, found {config.frozen_dtype!r}")
    if config.remat not in REMAT_POLICIES:
        raise InputError(f"unknown remat {config.remat!r}; expected one of {', '.join(REMAT_POLICIES)}")
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


def train(config: ConfigDict, workdir: str | Path) -> None:
    """Train one stage, or go on with it: the same command resumes from the newest checkpoint.

    Writes to `workdir`: checkpoints/, metrics.jsonl, tensorboard/, samples/, config.json and, at the
    end, export/ (safetensors of the averaged weights, what `--checkpoint` takes).

    Raises:
        InputError: see `validate`; also a run of another model in `workdir`, and a loss that is not finite.
    """
    model, data, objective = validate(config)
    workdir = writable_folder(workdir)
    check_same_run(workdir, config)
    identity_encoder = open_identity_encoder(config.identity_model, model.identity_dim)
    samples = EncodedSamples(config.source.samples) if config.source.samples else None
    if samples is not None:
        loader = make_encoded_loader(samples, seed=config.seed, batch_size=config.batch_size,
                                     max_failures=data.max_failures, worker_count=config.data_workers)
    else:
        loader = make_loader(make_source(config.source, data), data, seed=config.seed, batch_size=config.batch_size,
                             worker_count=config.data_workers)
    batches = iter(loader)

    optimizer = make_optimizer(config)
    checkpoints = RunCheckpoints(workdir)
    start = checkpoints.latest_step or 0
    if start:
        like = jax.eval_shape(lambda params: create_state(params, config.stage, optimizer, config.frozen_dtype),
                              param_shapes(model))
        state, data_state = checkpoints.restore(like)
        batches.set_state(data_state)
    else:
        state = create_state(initial_params(config, model), config.stage, optimizer, config.frozen_dtype)
    if samples is not None:
        check_samples(samples, model, data, {**state.frozen, **state.params}, identity_encoder)
    write_json(workdir / "config.json", json.loads(config.to_json()))
    # On the device from the first step on, or the step would be compiled a second time for its own output.
    state = jax.device_put(state, jax.local_devices()[0])
    step_function = make_train_step(config, model, objective, optimizer)
    metrics = MetricsWriter(workdir, start)
    since, waited, logged = time.monotonic(), 0.0, start

    with tqdm(total=config.total_steps, initial=start, desc=f"stage {config.stage}", unit="step") as bar:
        bar.set_postfix_str("compiling, once")
        for step in range(start + 1, config.total_steps + 1):
            began = time.monotonic()
            batch = next(batches)
            if samples is None:
                batch = embed_faces(batch, identity_encoder)
            waited += time.monotonic() - began
            state, values = step_function(state, batch)
            if step % config.log_every == 0 or step == config.total_steps:
                values = {name: float(value) for name, value in values.items()}
                for name in ("loss", "gradient_norm"):
                    check_finite(name, values[name], logged, step, checkpoints.latest_step)
                now = time.monotonic()
                timing = {"seconds_per_step": (now - since) / (step - logged),
                          "data_seconds_per_step": waited / (step - logged)}
                metrics.scalars(step, {**values, **timing})
                since, waited, logged = now, 0.0, step
                bar.set_postfix(loss=f"{values['loss']:.4f}")
            if step % config.checkpoint_every == 0 or step == config.total_steps:
                check_finite("loss", float(values["loss"]), logged, step, checkpoints.latest_step)
                checkpoints.save(state, batches.get_state())
            if config.sample_every and step % config.sample_every == 0:
                sheet = sample_sheet(current_checkpoint(objective, model, state), batch, stage=config.stage)
                write_image(workdir / "samples" / f"{step:07d}.png", sheet)
                metrics.image(step, "samples", sheet)
            bar.update()
    checkpoints.close()
    metrics.close()
    save_checkpoint(workdir / "export", current_checkpoint(objective, model, state))
    if identity_encoder is not None:
        with atomic_file(workdir / "export" / IDENTITY_FILE) as temporary:
            shutil.copyfile(config.identity_model, temporary)


def current_checkpoint(objective: Objective, model: DurianConfig, state: TrainState) -> Checkpoint:
    """The averaged weights of a state, as inference takes them."""
    return Checkpoint(model, objective, {**state.frozen, **state.average})


def check_finite(name: str, value: float, logged: int, step: int, last_saved: int | None) -> None:
    """Stop a run that has gone wrong before its checkpoints are overwritten.

    Raises:
        InputError: the value is not finite; names the steps and the last good checkpoint.
    """
    if not np.isfinite(value):
        raise InputError(f"{name} is {value} between steps {logged + 1} and {step}; the last good checkpoint is of "
                         f"step {last_saved}. Start again with a lower learning_rate or gradient_clip.")


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
