"""Encoded samples of another model, other data settings or other encoders are refused."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from durian_jax.errors import InputError
from durian_jax.faces.arcface import IdentityEncoder
from durian_jax.models.parameters import init_params
from durian_jax.training.config import RunConfig
from durian_jax.training.encoder_probe import check_samples, data_fields, encoder_fields, probe
from tests.helpers.arcface import WIDTH, write_network
from tests.helpers.runs import small_paper_config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    network = write_network(tmp_path_factory.mktemp("identity") / "identity.onnx")
    return RunConfig.read(small_paper_config(**{"model.identity_dim": WIDTH, "identity_model": network}))


@pytest.fixture(scope="module")
def encoder(run):
    return IdentityEncoder(run.identity_model)


@pytest.fixture(scope="module")
def params(run):
    return init_params(run.model, 3)


@pytest.fixture(scope="module")
def source(run, params, encoder):
    """What `encode_samples` writes about its samples. (test_encode.py reads real ones.)"""
    return SimpleNamespace(directory="encoded", probe=probe(run.model, params, encoder),
                           about={"model": encoder_fields(run.model), "data": data_fields(run.data)})


def test_samples_of_the_same_run_are_accepted(source, run, params, encoder):
    check_samples(source, run, params, encoder)
    # How often damaged records are skipped does not change the samples.
    check_samples(source, replace(run, data=replace(run.data, max_failures=3)), params, encoder)


@pytest.mark.parametrize(("part", "changes", "words"), [
    ("model", {"masked_references": False}, "masked_references is True, the run has False"),
    ("data", {"frames": 4, "frame_masks": True}, "frames is 1, the run has 4.*frame_masks is False")])
def test_samples_of_another_model_are_refused(part, changes, words, source, run, params, encoder):
    other = replace(run, **{part: replace(getattr(run, part), **changes)})
    with pytest.raises(InputError, match=words):
        check_samples(source, other, params, encoder)


def test_samples_of_other_encoders_are_refused(source, run, params, encoder):
    for network, words in (("image_encoder/", "embeddings"), ("codec/", "latents")):
        other = {path: 0.5 * x if path.startswith(network) else x for path, x in params.items()}
        with pytest.raises(InputError, match=f"{words} of a known picture differ"):
            check_samples(source, run, other, encoder)
    with pytest.raises(InputError, match="identity embeddings of a known picture differ"):
        check_samples(source, run, params, lambda faces: -encoder(faces))
