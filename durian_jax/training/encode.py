"""`durian encode`: training samples with latents and embeddings, encoded once instead of in every epoch.

A reference is masked, moved and degraded at random before it is encoded. Therefore whole samples are encoded: as many
as the user asks for, each with other frames, regions and augmentation. Training then runs neither autoencoder nor image
encoder, reads no pictures, and repeats the samples after one pass.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from durian_jax.data.encoded_samples import FORMAT, read_plan, shard_name, write_samples
from durian_jax.data.pipeline import batch_samples, make_samples
from durian_jax.errors import InputError, cut
from durian_jax.faces.arcface import IdentityEncoder, embed_faces, open_identity_encoder
from durian_jax.files import atomic_file, check_folder, write_json
from durian_jax.models.batch import model_inputs, stored
from durian_jax.models.family import ModelConfig
from durian_jax.models.parameters import FlatParams, variables
from durian_jax.progress import progress_bar
from durian_jax.training.config import RunConfig
from durian_jax.training.encoder_probe import data_fields, differences, encoder_fields, probe
from durian_jax.training.initialization import initial_params
from durian_jax.training.training_clips import make_source


def encode_samples(config: ConfigDict, out: str | Path, samples: int, *, samples_per_shard: int = 256,
                   part: tuple[int, int] = (0, 1)) -> dict:
    """Encode samples as a training config says. Repeat a killed call to continue it.

    Args:
        config: of the training run that will use them: model, data, source, seed, batch_size, init_from (whose
            autoencoder and image encoder encode) and identity_model.
        out: folder to write.
        samples: number of samples.
        samples_per_shard: number of samples per file.
        part: (i, n): this process makes shards i, i + n, ...; the last process to finish completes the folder.

    Returns:
        Content of dataset.json, or of plan.json while other parts are missing.

    Raises:
        InputError: a config that does not fit, or a folder that holds other samples.
    """
    run = RunConfig.read(config)
    if not 0 <= part[0] < part[1] or samples < 1 or samples_per_shard < 1:
        raise InputError(f"encode: expected at least one sample and a part i/n with 0 <= i < n, found {samples} "
                         f"samples and part {part[0]}/{part[1]}")
    if not run.init_from:
        raise InputError("encode: expected --config.init_from=CHECKPOINT, whose autoencoder and image encoder encode; "
                         "found none")
    if run.encoded:
        raise InputError("encode: source.samples names encoded samples, which this command makes; leave it out and "
                         "name source.clips")
    run.check_encodable("train on source.clips as they are")
    out = check_folder(out)
    plan = {"format": FORMAT, "samples": samples, "samples_per_shard": samples_per_shard, "seed": run.seed,
            "source": asdict(run.source), "data": data_fields(run.data), "model": encoder_fields(run.model)}
    source = make_source(run)
    identity_encoder = open_identity_encoder(run.identity_model, run.model.identity_dim)
    params = {path: jnp.asarray(x) for path, x in initial_params(run, run.model.encoders).items()}
    # After everything else that may fail: a written plan is binding.
    _check_plan(out, plan)
    _check_probe(out / "probe.safetensors", probe(run.model, params, identity_encoder))
    encode = _encoder(run.model, params)

    count = -(-samples // samples_per_shard)
    mine = [i for i in range(part[0], count, part[1]) if not (out / shard_name(i, count)).is_file()]
    stream = make_samples(source, run.data, run.seed)
    with progress_bar(total=sum(_shard_length(i, plan) for i in mine), desc="encoding", unit="sample") as bar:
        for number in mine:
            first, length = number * samples_per_shard, _shard_length(number, plan)
            batch_size = min(run.batch_size, samples_per_shard)
            # Fill the last batch with samples of the next shard, so that one compilation serves all.
            filled = stream[first:first + -(-length // batch_size) * batch_size]
            encoded = itertools.islice(_encoded(filled, batch_size, encode, identity_encoder), length)
            write_samples(out / shard_name(number, count), _counted(encoded, bar))
    if all((out / shard_name(i, count)).is_file() for i in range(count)):
        write_json(out / "dataset.json", plan)
    return plan


def _check_plan(out: Path, plan: dict) -> None:
    """Write plan.json, or refuse to continue another plan."""
    path = out / "plan.json"
    if not path.is_file():
        others = [entry.name for entry in out.glob("*") if not entry.name.startswith(".")]
        if others:
            raise InputError(f"{out}: expected an empty or new folder, found {', '.join(sorted(others)[:3])}; name "
                             "another")
        write_json(path, plan)
        return
    before = read_plan(path, "delete the folder and encode again")
    now = json.loads(json.dumps(plan))
    changed = sorted(name for name in now if before.get(name) != now[name])
    if changed:
        raise InputError(f"{out} holds samples that were made with another {', '.join(changed)}; name another folder, "
                         "or repeat the first arguments")


def _check_probe(path: Path, made: dict[str, np.ndarray]) -> None:
    """Write probe.safetensors, or refuse to continue with other encoders."""
    if not path.is_file():
        with atomic_file(path) as temporary:
            save_file(made, temporary)
        return
    try:
        problems = differences(load_file(path), made)
    except (OSError, SafetensorError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({cut(str(error))}); delete the folder and encode again") from error
    if problems:
        raise InputError(f"{path.parent} was started with other weights: {'; '.join(problems)}; name another folder, "
                         "or repeat the first init_from and identity_model")


def _shard_length(number: int, plan: dict) -> int:
    return min(plan["samples_per_shard"], plan["samples"] - number * plan["samples_per_shard"])


def _encoder(model: ModelConfig, params: FlatParams) -> Callable[[dict], dict[str, np.ndarray]]:
    """The compiled encoding of a batch of the loader."""
    network, pictures, encoded = model.create(), model.batch_spec(), model.batch_spec(encoded=True)

    @jax.jit
    def compiled(params, batch):
        fields = network.apply(variables(params), model_inputs(batch, pictures, jnp), method="encode_batch")
        return stored(fields, encoded, jnp)
    return lambda batch: jax.device_get(compiled(params, batch))


def _encoded(samples: grain.MapDataset, batch_size: int, encode: Callable[[dict], dict[str, np.ndarray]],
             identity_encoder: IdentityEncoder | None) -> Iterator[dict[str, np.ndarray]]:
    """Encoded samples one by one."""
    for batch in batch_samples(samples, batch_size):
        fields = encode(embed_faces(batch, identity_encoder))
        for i in range(batch_size):
            yield {name: x[i] for name, x in fields.items()}


def _counted(samples: Iterator, bar: tqdm) -> Iterator:
    for sample in samples:
        yield sample
        bar.update()
