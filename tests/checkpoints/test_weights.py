"""Checkpoints on disk: round trips, and refusal of every misfit."""

import json
from dataclasses import replace

import numpy as np
import pytest

from durian_jax.checkpoints.weights import Checkpoint, load_checkpoint, read_description, save_checkpoint
from durian_jax.diffusion import Objective, Sampling
from durian_jax.errors import InputError
from durian_jax.models.parameters import init_params
from durian_jax.tensor_files import TensorFiles, check_paths, write_tensors
from tests.helpers.models import TINY

# config.json of the same checkpoint as version 0.1 wrote it: without a family, sampling and distributions of times.
VERSION_0_1 = """{
    "model": {
        "image_size": 32, "max_frames": 8,
        "unet": {"channels": [16, 32], "layers": 1, "attention": [false, true], "heads": [1, 2], "context_dim": null,
                 "feedforward_multiplier": 2, "norm_groups": 8, "positions": true},
        "codec": {"patch": 4, "encoder_channels": [8, 16], "decoder_channels": [8, 16], "layers": 1,
                  "latent_channels": 4, "norm_groups": 8},
        "image_encoder": null, "identity_dim": null, "keypoint_patch": 4, "keypoint_channels": [8],
        "temporal_heads": 2, "reference_mode": "dual", "mask_channel": true, "masked_references": true,
        "portrait_capacity": 1.0, "attribute_capacity": 1.0, "dtype": "float32", "codec_kind": "small"},
    "objective": {"schedule": "flow", "prediction": "sample", "time_power": 0.6, "region_weight": 2.0,
                  "pixel_weight": 0.0, "min_snr": 0.0, "noise_offset": 0.0}
}"""


@pytest.fixture(scope="module")
def checkpoint():
    return Checkpoint(TINY, Objective(region_weight=2.0), init_params(TINY, 0),
                      sampling=Sampling(steps=3, guidance_scale=2.0, sampler="ddim"))


def test_round_trip(checkpoint, tmp_path):
    save_checkpoint(tmp_path, checkpoint, dtype="float32")
    loaded = load_checkpoint(tmp_path)
    assert loaded.description == checkpoint.description == read_description(tmp_path) and loaded.path == tmp_path
    assert loaded.config == TINY and loaded.objective == checkpoint.objective
    assert set(loaded.params) == set(checkpoint.params)
    assert all(np.array_equal(loaded.params[path], x) for path, x in checkpoint.params.items())
    assert not [path for path in tmp_path.iterdir() if path.name not in ("config.json", "model.safetensors")]


def test_the_seed_is_not_stored(checkpoint, tmp_path):
    sampling = Sampling(guidance_scale=(2.0, 2.5), seed=7)
    save_checkpoint(tmp_path, replace(checkpoint, sampling=sampling))
    assert read_description(tmp_path).sampling == replace(sampling, seed=0)


def test_a_checkpoint_of_version_0_1_loads_alike(checkpoint, tmp_path):
    save_checkpoint(tmp_path, checkpoint, dtype="float32")
    (tmp_path / "config.json").write_text(VERSION_0_1)
    loaded = load_checkpoint(tmp_path)
    assert (loaded.config, loaded.objective, loaded.sampling) == (TINY, checkpoint.objective, Sampling())
    assert set(loaded.params) == set(checkpoint.params)
    assert all(np.array_equal(loaded.params[path], x) for path, x in checkpoint.params.items())


def test_half_precision_keeps_three_digits(checkpoint, tmp_path):
    save_checkpoint(tmp_path, checkpoint)
    for path, x in load_checkpoint(tmp_path).params.items():
        np.testing.assert_allclose(x, checkpoint.params[path], rtol=1e-3, atol=1e-6)


def test_every_misfit_is_listed():
    expected = {"a": (2,), "b": (3,), "c": (1,)}
    with pytest.raises(InputError) as error:
        check_paths(expected, {"a": (3,), "c": (1,), "d": (1,)}, "file")
    for words in ("3 tensors", "missing b", "unexpected d", "a has shape (3,), expected (2,)"):
        assert words in str(error.value)


def test_a_named_rule_excuses_missing_tensors_only():
    expected = {"new/kernel": (2,), "old": (2,)}
    check_paths(expected, {"old": (2,)}, "file", fresh="new/")
    with pytest.raises(InputError, match="missing old"):
        check_paths(expected, {}, "file", fresh="new/")
    with pytest.raises(InputError, match="unexpected other"):
        check_paths(expected, {**expected, "other": (1,)}, "file", fresh="new/|other")


def test_a_large_checkpoint_is_written_in_shards_and_read_alike(checkpoint, tmp_path):
    tensors = {path: np.asarray(x) for path, x in checkpoint.params.items()}
    write_tensors(tmp_path, tensors.items(), shard_bytes=50_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(shards) > 2 and sorted(set(index["weight_map"].values())) == shards
    assert all((tmp_path / name).stat().st_size < 120_000 for name in shards)  # the largest tensor is 74 kB
    files = TensorFiles(tmp_path)
    assert set(files) == set(tensors) and all(np.array_equal(files[path], x) for path, x in tensors.items())
    (tmp_path / shards[1]).unlink()
    with pytest.raises(InputError, match=f"names {shards[1]}, which are missing"):
        TensorFiles(tmp_path)
    write_tensors(tmp_path, tensors.items())
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_weights_are_read_in_the_wanted_precision(checkpoint, tmp_path):
    save_checkpoint(tmp_path, checkpoint, dtype="bfloat16")
    dtypes = lambda dtype: {str(x.dtype) for x in load_checkpoint(tmp_path, dtype).params.values()}
    assert dtypes(None) == {"float32"} and dtypes("stored") == {"bfloat16"} and dtypes("float16") == {"float16"}


def test_damaged_or_missing_checkpoints_are_refused(checkpoint, tmp_path):
    with pytest.raises(InputError, match="no checkpoint 'nowhere'.*tiny"):
        load_checkpoint("nowhere")
    run = tmp_path / "run"
    save_checkpoint(run / "export", checkpoint)
    with pytest.raises(InputError, match="did you mean .*export"):
        read_description(run)
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
