"""Check that encoded samples are the ones that a run would have encoded itself."""

import json
from dataclasses import asdict

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.data.encoded_samples import EncodedSamples
from durian_jax.data.samples.config import SampleConfig
from durian_jax.errors import InputError
from durian_jax.faces.arcface import IdentityEncoder
from durian_jax.faces.face_crop import FACE_SIZE
from durian_jax.images import to_uint8
from durian_jax.models.family import ModelConfig
from durian_jax.models.parameters import AnyParams, variables
from durian_jax.training.config import RunConfig

# Largest relative difference between the outputs of two copies of the same encoders, in different precision. Other
# weights differ by more.
_SAME = 0.1


def encoder_fields(model: ModelConfig) -> dict:
    """The fields of a model that decide how its samples are encoded, as in JSON."""
    return json.loads(json.dumps(model.encoder_fields()))


def data_fields(data: SampleConfig) -> dict:
    """The fields of the sample settings that decide the samples, as in JSON."""
    return json.loads(json.dumps({name: x for name, x in asdict(data).items() if name != "max_failures"}))


def check_samples(source: EncodedSamples, run: RunConfig, params: AnyParams, identity_encoder: IdentityEncoder | None
                  ) -> None:
    """Refuse encoded samples that differ from those that a run would have made itself.

    Args:
        params: at least the encoders of the run.

    Raises:
        InputError: other sizes, other settings of the data, or other encoders; says which.
    """
    about = source.about
    problems = [f"{name} is {found.get(name)}, the run has {value}" for found, wanted in (
        (about["model"], encoder_fields(run.model)), (about["data"], data_fields(run.data)))
        for name, value in wanted.items() if found.get(name) != value]
    if not problems:
        problems = differences(source.probe, probe(run.model, params, identity_encoder))
    if problems:
        raise InputError(f"{source.directory} does not fit this run: {'; '.join(problems)}; encode the samples again")


def differences(before: dict[str, np.ndarray], now: dict[str, np.ndarray]) -> list[str]:
    """Describe the outputs in which two probes differ, because other encoders made them."""
    problems = [f"{name} of a known picture are missing or of another shape" for name in {*before, *now}
                if name not in before or name not in now or before[name].shape != now[name].shape]
    for name, values in () if problems else before.items():
        error = np.linalg.norm(now[name] - values) / max(np.linalg.norm(values), 1e-6)
        if not error < _SAME:
            problems.append(f"{name} of a known picture differ by {error:.0%}: another encoder made them")
    return problems


def probe(model: ModelConfig, params: AnyParams, identity_encoder: IdentityEncoder | None) -> dict[str, np.ndarray]:
    """Name -> output of every encoder for a known picture.

    Args:
        params: at least the encoders.
        identity_encoder: None: the model uses no identity embedding.
    """
    params = {path: jnp.asarray(x) for path, x in params.items() if path.startswith(model.encoders)}
    side = 8 * model.codec.downscale
    line = np.linspace(-1, 1, side, dtype=np.float32)
    picture = np.stack([np.broadcast_to(line, (side, side)), np.broadcast_to(line[:, None], (side, side)),
                        np.sin(8 * line[:, None] * line)], -1)[None]
    made = jax.jit(lambda p: model.create().apply(variables(p), picture, method="probe"))(params)
    parts = {name: np.asarray(x, np.float32) for name, x in made.items()}
    if identity_encoder is not None:
        face = cv2.resize(to_uint8(picture[0]), (FACE_SIZE, FACE_SIZE))
        parts["identity embeddings"] = identity_encoder(face[None])
    return parts
