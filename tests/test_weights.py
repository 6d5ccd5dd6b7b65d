"""Checkpoints on disk: strict in both directions, whole or refused."""

import json

import numpy as np
import pytest

from durian_jax.diffusion import Objective
from durian_jax.errors import InputError
from durian_jax.models.parameters import init_params
from durian_jax.weights import Checkpoint, load_checkpoint, read_config, save_checkpoint, strict_update
from tests.test_models import TINY


@pytest.fixture(scope="module")
def checkpoint():
    return Checkpoint(TINY, Objective(region_weight=2.0), init_params(TINY, 0))


def test_round_trip(checkpoint, tmp_path):
    save_checkpoint(tmp_path, checkpoint, dtype="float32")
    loaded = load_checkpoint(tmp_path)
    assert loaded.config == TINY and loaded.objective == checkpoint.objective and loaded.path == tmp_path
    assert set(loaded.params) == set(checkpoint.params)
    assert all(np.array_equal(loaded.params[path], x) for path, x in checkpoint.params.items())
    assert not [path for path in tmp_path.iterdir() if path.name not in ("config.json", "model.safetensors")]


def test_half_precision_keeps_three_digits(checkpoint, tmp_path):
    save_checkpoint(tmp_path, checkpoint)
    for path, x in load_checkpoint(tmp_path).params.items():
        np.testing.assert_allclose(x, checkpoint.params[path], rtol=1e-3, atol=1e-6)


def test_every_misfit_is_listed():
    params = {"a": np.zeros(2), "b": np.zeros(3), "c": np.zeros(1)}
    with pytest.raises(InputError) as error:
        strict_update(params, {"a": np.zeros(3), "c": np.zeros(1), "d": np.zeros(1)}, "file")
    for words in ("3 tensors", "missing b", "unexpected d", "a has shape (3,), expected (2,)"):
        assert words in str(error.value)


def test_a_named_rule_excuses_missing_tensors_only():
    params = {"new/kernel": np.ones(2), "old": np.zeros(2)}
    assert strict_update(params, {"old": np.full(2, 5.0)}, "file", fresh="new/")["new/kernel"] is params["new/kernel"]
    with pytest.raises(InputError, match="missing old"):
        strict_update(params, {}, "file", fresh="new/")
    with pytest.raises(InputError, match="unexpected other"):
        strict_update(params, {**params, "other": np.zeros(1)}, "file", fresh="new/|other")


def test_damaged_or_missing_checkpoints_are_refused(checkpoint, tmp_path):
    with pytest.raises(InputError, match="no checkpoint 'nowhere'.*tiny"):
        load_checkpoint("nowhere")
    run = tmp_path / "run"
    save_checkpoint(run / "export", checkpoint)
    with pytest.raises(InputError, match="did you mean .*export"):
        read_config(run)
    folder = save_checkpoint(tmp_path / "cut", checkpoint)
    tensors = folder / "model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:1000])
    with pytest.raises(InputError, match="model.safetensors is damaged"):
        load_checkpoint(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="config.json is damaged"):
        load_checkpoint(folder)
    save_checkpoint(folder, checkpoint)
    values = json.loads((folder / "config.json").read_text())
    values["model"]["image_sise"] = 3
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="image_sise"):
        load_checkpoint(folder)
