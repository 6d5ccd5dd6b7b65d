"""Whether encoded samples are what a run would have encoded itself."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.data import DataConfig
from durian_jax.data.encoded import EncodedSamples
from durian_jax.errors import InputError
from durian_jax.models import Durian, DurianConfig
from durian_jax.models.parameters import FlatParams, variables

# Networks that encode: beginnings of their parameters' paths.
ENCODERS = ("codec/", "image_encoder/")

# Largest relative difference between what two copies of the same encoders make of the known picture, in different
# precision; other weights are further apart.
_SAME = 0.1



def encoder_fields(model: DurianConfig) -> dict:
    """What of a model decides how its samples are encoded."""
    fields = model.to_dict()
    return json.loads(json.dumps({name: fields[name] for name in (
        "image_size", "codec_kind", "codec", "image_encoder", "identity_dim", "masked_references")}))


def check_samples(source: EncodedSamples, model: DurianConfig, data: DataConfig, params: FlatParams) -> None:
    """Refuse encoded samples that are not what a run would have made itself.

    Args:
        params: at least the encoders of the run.

    Raises:
        InputError: other sizes, another number of frames or attributes, or other encoders; says which.
    """
    wanted = {**encoder_fields(model), "frames": data.frames, "attributes": data.attributes}
    found = {**source.about["model"], "frames": source.about["data"]["frames"],
             "attributes": source.about["data"]["attributes"]}
    problems = [f"{name} is {found.get(name)}, the run has {value}" for name, value in wanted.items()
                if found.get(name) != value]
    if not problems:
        mine = probe(model, {path: jnp.asarray(x) for path, x in params.items() if path.startswith(ENCODERS)})
        for name, values in source.probe.items():
            error = np.linalg.norm(mine[name] - values) / max(np.linalg.norm(values), 1e-6)
            if not error < _SAME:
                problems.append(f"{name} of a known picture differ by {error:.0%}: the run's encoder is another")
    if problems:
        raise InputError(f"{source.directory} does not fit this run: {'; '.join(problems)}; encode the samples again")


def probe(model: DurianConfig, params: FlatParams) -> dict[str, np.ndarray]:
    """What the encoders make of a known picture: latents, and the embedding if there is an image encoder."""
    side = 8 * model.codec.downscale
    line = np.linspace(-1, 1, side, dtype=np.float32)
    picture = np.stack([np.broadcast_to(line, (side, side)), np.broadcast_to(line[:, None], (side, side)),
                        np.sin(8 * line[:, None] * line)], -1)[None]

    def run(m: Durian):
        parts = {"latents": m.encode(picture)}
        return {**parts, "embeddings": m.embed(picture)} if model.image_encoder is not None else parts
    made = jax.jit(lambda p: Durian(model).apply(variables(p), method=run))(params)
    return {name: np.asarray(x, np.float32) for name, x in made.items()}
