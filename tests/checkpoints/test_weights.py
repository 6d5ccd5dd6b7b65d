"""Checkpoints on disk: round trips, and refusal of every misfit."""

import json
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from durian_jax.checkpoints.weights import Checkpoint, load_checkpoint, read_description, save_checkpoint
from durian_jax.diffusion import Objective, Sampling
from durian_jax.errors import InputError
from durian_jax.models.parameters import init_params, param_shapes, zero_at_start
from durian_jax.tensor_files import TensorFiles, check_paths, write_tensors
from tests.helpers.models import TINY, random_params
from tests.helpers.svdp import tiny as svdp_tiny

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
    old = replace(TINY, codec=replace(TINY.codec, decoder_norm="group", temporal_kernel=0))
    checkpoint = replace(checkpoint, config=old, params=random_params(old))
    save_checkpoint(tmp_path, checkpoint, dtype="float32")
    (tmp_path / "config.json").write_text(VERSION_0_1)
    loaded = load_checkpoint(tmp_path)
    assert (loaded.config, loaded.objective, loaded.sampling) == (old, checkpoint.objective, Sampling())
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
    for text in ("{", "[1]", "{" * 200_000, "[" * 200_000, '{"a":' * 200_000):
        (folder / "config.json").write_text(text)
        with pytest.raises(InputError, match="config.json is damaged: .{1,200}; copy or export the checkpoint again$"):
            load_checkpoint(folder)


def edit(folder, change):
    """Change the values of a checkpoint's config.json in place."""
    values = json.loads((folder / "config.json").read_text())
    change(values)
    (folder / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize(("change", "message"), [
    (lambda v: v["model"]["unet"].update(layers=10**9),
     "config.json: model.unet.layers: expected an integer from 1 to 256, found 1000000000; copy or export the"),
    (lambda v: v["model"]["unet"].update(layers=-1), "model.unet.layers: .* found -1"),
    (lambda v: v["model"]["unet"].update(layers=1.5), "model.unet.layers: .* found 1.5"),
    (lambda v: v["model"]["codec"].update(patch=0), "model.codec.patch: expected an integer from 1 to 64, found 0"),
    (lambda v: v["model"]["unet"].update(feedforward_multiplier=float("inf")), "feedforward_multiplier: .* found inf"),
    (lambda v: v["model"].update(max_frames="x"), "model.max_frames: expected an integer from 1 to 4096, found 'x'"),
    (lambda v: v["model"]["unet"].update(positions=-1), "model.unet.positions: expected true or false, found -1"),
    (lambda v: v["objective"].update(pixel_weight=float("nan")), "objective.pixel_weight: .* found nan"),
    (lambda v: v["sampling"].update(steps=0), "sampling.steps: .* found 0"),
    (lambda v: v["model"].pop("unet"), "config.json: model.unet: expected this field, found none"),
    (lambda v: v["model"].pop("codec"), "model.codec: expected this field"),
    (lambda v: v["model"]["unet"].pop("heads"), "model.unet.heads: expected this field"),
    (lambda v: v.pop("objective"), "config.json: objective: expected this field"),
    (lambda v: v.pop("sampling"), "config.json: sampling: expected this field"),
    (lambda v: v["model"].update(family=["durian"]), "model.family: unknown model family"),
    (lambda v: v.update(model=3), "model: expected an object of fields, found 3"),
    (lambda v: v["model"].update(image_sise=3), "model: unknown fields 'image_sise'; did you mean image_size.*newer"),
    (lambda v: v["model"].update(codec_kind="newest"), "model.codec_kind: expected one of small, .* found 'newest'"),
    (lambda v: v.update(version="0.9.0", extra={}), "unknown fields 'extra'.*written by durian-jax '0.9.0'.*update"),
    (lambda v: v.update(format=2), "format: expected 1, found 2; .* update durian-jax"),
])
def test_fields_of_config_json_are_checked_before_anything_is_built(checkpoint, tmp_path, change, message):
    edit(save_checkpoint(tmp_path, checkpoint), change)
    with pytest.raises(InputError, match=message) as error:
        load_checkpoint(tmp_path)
    assert len(str(error.value)) < 600 and "\n" not in str(error.value)
    assert not ("damaged" in str(error.value) and "newer" in message)


def test_a_config_of_a_larger_model_is_refused_before_it_is_built(checkpoint, tmp_path):
    """Building it would take minutes."""
    edit(save_checkpoint(tmp_path, checkpoint), lambda values: values["model"]["unet"].update(layers=200))
    with pytest.raises(InputError, match=r"config.json describes one of more than \d+ tensors, the weights hold \d+"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("config", [TINY, svdp_tiny(), svdp_tiny("joint", "canvas")], ids=["durian", "svdp", "canvas"])
def test_a_model_has_at_least_the_parameters_that_are_promised(config):
    count = len(param_shapes(config))
    assert count / 3 < config.least_parameters <= count


def changed_weights(folder, checkpoint, name, change, dtype="float32"):
    """Write a checkpoint, one of its tensors changed."""
    save_checkpoint(folder, checkpoint, dtype)
    write_tensors(folder, [(path, change(x) if path == name else x) for path, x in TensorFiles(folder).items()])
    return folder


KERNEL = "denoiser/conv_in/kernel"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_by_name(checkpoint, tmp_path, dtype, value):
    def damage(x):
        x = x.copy()
        x.reshape(-1)[-1] = value
        return x
    changed_weights(tmp_path, checkpoint, KERNEL, damage, dtype)
    with pytest.raises(InputError, match=f"model.safetensors: {KERNEL}: expected finite values, found NaN or infinity"):
        load_checkpoint(tmp_path)
    load_checkpoint(tmp_path, prefixes=("codec/",))  # only what is loaded is looked at


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_zero_weights_are_refused_but_where_training_starts_from_zero(checkpoint, tmp_path, dtype):
    changed_weights(tmp_path, checkpoint, KERNEL, np.zeros_like, dtype)
    with pytest.raises(InputError, match=f"{KERNEL}: expected weights, found only zeros"):
        load_checkpoint(tmp_path)
    for name in ("denoiser/conv_out/kernel", "denoiser/conv_in/bias"):
        changed_weights(tmp_path, checkpoint, name, np.zeros_like, dtype)
        assert not np.asarray(load_checkpoint(tmp_path).params[name]).any()


def test_a_fresh_model_of_every_kind_loads(tmp_path):
    """All of its zeros are where training starts from zero."""
    for number, config in enumerate((TINY, svdp_tiny(), replace(TINY, reference_mode="single"))):
        made = Checkpoint(config, Objective(), init_params(config, 0))
        loaded = load_checkpoint(save_checkpoint(tmp_path / str(number), made, "float32"))
        zeros = {path for path, x in loaded.params.items() if not np.asarray(x).any()}
        assert zeros and zeros <= zero_at_start(config)


@pytest.mark.parametrize(("change", "found"), [
    (lambda x: x.astype(np.int8), "I8"), (lambda x: x > 0, "BOOL"), (lambda x: x.astype(np.complex64), "C64"),
    (lambda x: x.astype(ml_dtypes.float8_e4m3fn), "F8_E4M3"), (lambda x: (9 * x).astype(np.int64), "I64")])
def test_other_types_of_weights_are_refused_by_name(checkpoint, tmp_path, change, found):
    save_checkpoint(tmp_path, checkpoint, "float32")
    tensors = {path: change(x) if path == KERNEL else x for path, x in TensorFiles(tmp_path).items()}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=rf"expected tensors of F16, BF16, F32, F64, found {KERNEL} \({found}\)"):
        load_checkpoint(tmp_path)


def test_messages_about_many_tensors_are_one_line(checkpoint, tmp_path):
    expected, found = ({f"{kind}/{i}/kernel": (i,) for i in range(1000)} for kind in ("a", "b"))
    with pytest.raises(InputError) as error:
        check_paths(expected, {**found, "a/3/kernel": (7,)}, "file")
    assert len(str(error.value)) < 600 and "2000 tensors" in str(error.value)
    assert "(999 in all)" in str(error.value) and "(1000 in all)" in str(error.value)
    save_checkpoint(tmp_path, checkpoint)
    index = {"weight_map": {f"t{i}": f"model-{i:06d}.safetensors" for i in range(100_000)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"model-000000.safetensors, .*\(100000 in all\), which are miss") as error:
        load_checkpoint(tmp_path)
    assert len(str(error.value)) < 500
    for values in ({"weight_map": 3}, {"weight_map": {"a": 3}}, {}):
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(values))
        with pytest.raises(InputError, match="index.json is damaged: expected the field weight_map"):
            load_checkpoint(tmp_path)
    with pytest.raises(InputError) as error:
        load_checkpoint("x" * 5000)
    assert len(str(error.value)) < 500
