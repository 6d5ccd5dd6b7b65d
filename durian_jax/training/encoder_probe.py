"""Whether encoded samples are what a run would have encoded itself."""

import json
from dataclasses import asdict

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.data import DataConfig
from durian_jax.data.encoded_samples import EncodedSamples
from durian_jax.errors import InputError
from durian_jax.faces.arcface import IdentityEncoder
from durian_jax.faces.face_crop import FACE_SIZE
from durian_jax.images import to_uint8
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.durian.model import Durian
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


def check_samples(source: EncodedSamples, model: DurianConfig, data: DataConfig, params: FlatParams,
                  identity_encoder: IdentityEncoder | None) -> None:
    """Refuse encoded samples that are not what a run would have made itself.

    Args:
        params: at least the encoders of the run.

    Raises:
        InputError: other sizes, other settings of the data, or other encoders; says which.
    """
    about = source.about
    problems = [f"{name} is {found.get(name)}, the run has {value}" for found, wanted in (
        (about["model"], encoder_fields(model)), (about["data"], data_fields(data)))
        for name, value in wanted.items() if found.get(name) != value]
    if not problems:
        problems = differences(source.probe, probe(model, params, identity_encoder))
    if problems:
        raise InputError(f"{source.directory} does not fit this run: {'; '.join(problems)}; encode the samples again")


def data_fields(data: DataConfig) -> dict:
    """What of the data's settings decides the samples, as in JSON."""
    return json.loads(json.dumps({name: x for name, x in asdict(data).items() if name != "max_failures"}))


def differences(before: dict[str, np.ndarray], now: dict[str, np.ndarray]) -> list[str]:
    """In which parts two probes are of different encoders."""
    problems = []
    for name, values in before.items():
        error = np.linalg.norm(now[name] - values) / max(np.linalg.norm(values), 1e-6)
        if not error < _SAME:
            problems.append(f"{name} of a known picture differ by {error:.0%}: that was another encoder")
    return problems


def probe(model: DurianConfig, params: FlatParams, identity_encoder: IdentityEncoder | None) -> dict[str, np.ndarray]:
    """What the encoders make of a known picture: latents, and embeddings where the model has such.

    Args:
        params: at least the encoders.
    """
    params = {path: jnp.asarray(x) for path, x in params.items() if path.startswith(ENCODERS)}
    side = 8 * model.codec.downscale
    line = np.linspace(-1, 1, side, dtype=np.float32)
    picture = np.stack([np.broadcast_to(line, (side, side)), np.broadcast_to(line[:, None], (side, side)),
                        np.sin(8 * line[:, None] * line)], -1)[None]

    def run(m: Durian):
        parts = {"latents": m.encode(picture)}
        return {**parts, "embeddings": m.embed(picture)} if model.image_encoder is not None else parts
    made = jax.jit(lambda p: Durian(model).apply(variables(p), method=run))(params)
    parts = {name: np.asarray(x, np.float32) for name, x in made.items()}
    if identity_encoder is not None:
        face = cv2.resize(to_uint8(picture[0]), (FACE_SIZE, FACE_SIZE))
        parts["identity embeddings"] = identity_encoder(face[None])
    return parts
