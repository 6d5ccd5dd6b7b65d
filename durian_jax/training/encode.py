"""`durian encode`: training samples with their latents and embeddings, made once instead of in every epoch.

A reference is blanked, moved and degraded by chance before it is encoded, so that whole samples are what can be kept:
as many as are asked for, each with other frames, regions and augmentation. Training then runs neither autoencoder nor
image encoder, reads no pictures, and sees each sample again after so many steps.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from durian_jax.data.encoded_samples import FORMAT, shard_name, write_samples
from durian_jax.data.pipeline import batch_samples, make_samples
from durian_jax.errors import InputError
from durian_jax.faces.arcface import IdentityEncoder, embed_faces, open_identity_encoder
from durian_jax.files import atomic_file, writable_folder, write_json
from durian_jax.images import model_inputs
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.durian.model import Durian
from durian_jax.models.parameters import FlatParams, variables
from durian_jax.training.encoder_probe import ENCODERS, data_fields, differences, encoder_fields, probe
from durian_jax.training.loop import initial_params, validate
from durian_jax.training.training_clips import make_source


def encode_samples(config: ConfigDict, out: str | Path, samples: int, *, samples_per_shard: int = 256,
                   part: tuple[int, int] = (0, 1)) -> dict:
    """Make encoded samples as a training config says; a killed call goes on when it is repeated.

    Args:
        config: of the training run they are for: model, data, source, seed, batch_size, init_from (whose autoencoder
            and image encoder encode) and identity_model.
        out: folder to write.
        samples: how many.
        samples_per_shard: of one file.
        part: (i, n): this process makes shards i, i + n, ...; the last one to be done completes the folder.

    Returns:
        Content of dataset.json, or of plan.json while other parts are missing.

    Raises:
        InputError: a config that does not fit, or a folder that holds other samples.
    """
    model, data, _ = validate(config)
    if not 0 <= part[0] < part[1] or samples < 1 or samples_per_shard < 1:
        raise InputError(f"encode: expected at least one sample and a part i/n with 0 <= i < n, found {samples} "
                         f"samples and part {part[0]}/{part[1]}")
    if not config.init_from:
        raise InputError("encode: expected --config.init_from=CHECKPOINT, whose autoencoder and image encoder encode; "
                         "found none")
    if config.source.samples:
        raise InputError("encode: source.samples is what is made here; leave it out and name source.clips")
    out = writable_folder(out)
    plan = {"format": FORMAT, "samples": samples, "samples_per_shard": samples_per_shard, "seed": config.seed,
            "source": json.loads(config.source.to_json()), "data": data_fields(data), "model": encoder_fields(model)}
    source = make_source(config.source, data)
    identity_encoder = open_identity_encoder(config.identity_model, model.identity_dim)
    params = {path: jnp.asarray(x) for path, x in initial_params(config, model, ENCODERS).items()}
    # Last of all that may fail: a plan, once written, must be kept to.
    _check_plan(out, plan)
    _check_probe(out / "probe.safetensors", probe(model, params, identity_encoder))
    encode = _encoder(model, params)

    count = -(-samples // samples_per_shard)
    mine = [i for i in range(part[0], count, part[1]) if not (out / shard_name(i, count)).is_file()]
    stream = make_samples(source, data, config.seed)
    with tqdm(total=sum(_shard_length(i, plan) for i in mine), desc="encoding", unit="sample") as bar:
        for number in mine:
            first, length = number * samples_per_shard, _shard_length(number, plan)
            batch_size = min(config.batch_size, samples_per_shard)
            # The last batch is filled up with samples of the next shard, so that one compilation serves all.
            filled = stream[first:first + -(-length // batch_size) * batch_size]
            encoded = itertools.islice(_encoded(filled, batch_size, encode, identity_encoder), length)
            write_samples(out / shard_name(number, count), _counted(encoded, bar))
    if all((out / shard_name(i, count)).is_file() for i in range(count)):
        write_json(out / "dataset.json", plan)
    return plan


def _check_plan(out: Path, plan: dict) -> None:
    """Write plan.json, or refuse to go on with another one."""
    path = out / "plan.json"
    if not path.is_file():
        others = [entry.name for entry in out.iterdir() if not entry.name.startswith(".")]
        if others:
            raise InputError(f"{out}: expected an empty or new folder, found {', '.join(sorted(others)[:3])}; name "
                             "another")
        write_json(path, plan)
        return
    try:
        before = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); delete the folder and encode again") from error
    now = json.loads(json.dumps(plan))
    changed = sorted(name for name in now if before.get(name) != now[name])
    if changed:
        raise InputError(f"{out} holds samples that were made with another {', '.join(changed)}; name another folder, "
                         "or repeat the arguments they were begun with")


def _check_probe(path: Path, made: dict[str, np.ndarray]) -> None:
    """Write probe.safetensors, or refuse to go on with other encoders than those it is of."""
    if not path.is_file():
        with atomic_file(path) as temporary:
            save_file(made, temporary)
        return
    try:
        problems = differences(load_file(path), made)
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{path} is damaged ({error!r}); delete the folder and encode again") from error
    if problems:
        raise InputError(f"{path.parent} was begun with other weights: {'; '.join(problems)}; name another folder, or "
                         "the init_from and identity_model it was begun with")


def _shard_length(number: int, plan: dict) -> int:
    return min(plan["samples_per_shard"], plan["samples"] - number * plan["samples_per_shard"])


def _encoder(model: DurianConfig, params: FlatParams):
    """The compiled encoding of a batch of the loader."""
    def run(m: Durian, batch):
        latents = m.encode(batch["frames"])
        encoded = m.references_of(batch)
        region = batch["frame_masks"]
        region = jax.image.resize(region, (*latents.shape[:-1], 1), "linear")
        half = {"frame_latents": latents, "portrait_latents": encoded.portrait, "attribute_latents": encoded.attributes}
        for name in ("portrait_embedding", "attribute_embeddings"):
            if getattr(encoded, name) is not None:
                half[name] = getattr(encoded, name)
        share = {"frame_masks": region, "portrait_mask": encoded.portrait_mask,
                 "attribute_masks": encoded.attribute_masks}
        return {**{name: x.astype(jnp.float16) for name, x in half.items()},
                **{name: jnp.round(255 * x).astype(jnp.uint8) for name, x in share.items()},
                "keypoints": batch["keypoints"], "attribute_valid": batch["attribute_valid"]}

    compiled = jax.jit(lambda p, batch: Durian(model).apply(variables(p), model_inputs(batch, jnp), method=run))
    return lambda batch: jax.device_get(compiled(params, batch))


def _encoded(samples: grain.MapDataset, batch_size: int, encode, identity_encoder: IdentityEncoder | None
             ) -> Iterator[dict[str, np.ndarray]]:
    """Encoded samples one by one."""
    for batch in batch_samples(samples, batch_size):
        fields = encode(embed_faces(batch, identity_encoder))
        for i in range(batch_size):
            yield {name: x[i] for name, x in fields.items()}


def _counted(samples: Iterator, bar: tqdm) -> Iterator:
    for sample in samples:
        yield sample
        bar.update()
