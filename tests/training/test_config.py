"""The typed config of a run: what it refuses, its defaults and the batches that it promises."""

import json
from dataclasses import FrozenInstanceError, asdict, is_dataclass

import pytest
from click.testing import CliRunner
from ml_collections import ConfigDict

from durian_jax.commands.main import main
from durian_jax.configs import load_config
from durian_jax.data.pipeline import make_loader
from durian_jax.diffusion import Sampling
from durian_jax.errors import InputError
from durian_jax.faces.arcface import IdentityEncoder, embed_faces
from durian_jax.training.config import RunConfig, Source, defaults
from durian_jax.training.training_clips import make_source
from tests.helpers.arcface import WIDTH, write_network
from tests.helpers.runs import changed, small_config, small_paper_config


def test_it_is_frozen():
    config = small_config("clips")
    run = RunConfig.read(config)
    for part in (run, run.model, run.data, run.objective, run.sampling, run.source):
        with pytest.raises(FrozenInstanceError):
            part.seed = 1
    config.mesh.data, config.model.unet.channels, config.source.clips = 8, (64,), "others"
    assert run == RunConfig.read(small_config("clips")), "a later change of the ConfigDict changed the run"


def _plain(value):
    """A part of a config as plain values."""
    return asdict(value) if is_dataclass(value) else value.to_dict() if isinstance(value, ConfigDict) else value


@pytest.mark.parametrize("name", [
    "tiny,stage=codec", "tiny,stage=decoder", "tiny,stage=1", "tiny,stage=joint", "tiny,stage=2", "tiny,stage=joint2",
    "sd15,stage=1", "sd15,stage=2", "sd15,stage=1,codec=autoencoder_tiny", "svdp:tiny,stage=image",
    "svdp:tiny,stage=video",
    "svdp:tiny,stage=history,ablation=joint", "svdp:sd35m,stage=video", "svdp:sd35m,stage=history,ablation=no_text"])
def test_presets_are_read_without_loss(name):
    """Every value of a preset is in the typed config. The same values as plain JSON give the same config."""
    config = load_config(name)
    run = RunConfig.read(config)
    for field in defaults().keys() - {"source"}:
        assert _plain(getattr(run, field)) == _plain(config[field]), field
    assert run == RunConfig.read(json.loads(config.to_json()))
    assert run.recipe.name == run.stage == config.stage and run.sampling == Sampling(**config.sampling)


def test_fields_that_are_left_out_take_their_defaults():
    values = small_config("clips").to_dict()
    minimal = {name: values[name] for name in ("stage", "model", "data")}
    run = RunConfig.read({**minimal, "objective": {}, "source": {}})
    assert run.family == "durian" and run.sampling == Sampling() and run.source == Source()
    assert {name: _plain(getattr(run, name)) for name in defaults() if name != "source"} == {
        name: value for name, value in defaults().items() if name != "source"}


@pytest.mark.parametrize(("changes", "message"), [
    ({"stage": "3"}, "stage: expected one of codec, decoder, 1, joint, 2, joint2, found '3'"),
    ({"objective.change_weight": 1.0}, "objective.change_weight: expected 0, because stage 1 trains on frames"),
    ({"total_steps": 0}, "total_steps: expected an integer from 1 to 1000000000, found 0"),
    ({"optimizer": "adam"}, "optimizer"),
    ({"guidance_dropout": 1.5}, "guidance_dropout"),
    ({"init_fresh": "("}, "init_fresh"),
    ({"remat": "some"}, "remat: expected a text that is one of none, dots, full, found 'some'"),
    ({"attention": "flash"}, "attention: .* found 'flash'"),
    ({"frozen_dtype": "int8"}, "frozen_dtype: expected a text that is one of float32, bfloat16, found 'int8'"),
    ({"guidance_dropout": ("a", 0.1)}, r"guidance_dropout\[0\]: expected a finite number from 0 to 1, found 'a'"),
    ({"guidance_dropout": float("nan")}, "guidance_dropout: expected a finite number"),
    ({"learning_rate": float("nan")}, "learning_rate: expected a finite number above 0 .* found nan"),
    ({"learning_rate": -1.0}, "learning_rate: .* above 0 .* found -1.0"), ({"warmup_steps": -5}, "warmup_steps"),
    ({"average_decay": 2.0}, "average_decay: expected a finite number from 0 to 1, found 2.0"),
    ({"objective.time_power": float("nan")}, "objective.time_power: expected a finite number"),
    ({"source.synthetic_fps": float("nan")}, "source.synthetic_fps: expected a finite number"),
    ({"data.portrait_shift": float("inf")}, "data.portrait_shift: expected a finite number"),
    ({"model.codec.latent_channels": 0}, "model.codec.latent_channels: expected an integer from 1 to 1024, found 0"),
    ({"model.codec.norm_groups": 7}, "model.codec.norm_groups: expected a divisor of all channels"),
    ({"keep_every": -1}, "keep_every"), ({"silence_seconds": 0.0}, "silence_seconds"),
    ({"identity_model": "face.onnx"}, "attends to no identity embedding"),
    ({"stage": "2", "data.frames": 99}, "max_frames"),
    ({"data.frame_masks": False}, "data.frame_masks must be true"),
    ({"model.reference_mode": "triple"}, "model.reference_mode: .* found 'triple'")])
def test_bad_configs_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        RunConfig.read(changed(small_config("clips"), changes))


@pytest.mark.parametrize(("ablation", "changes", "message"), [
    ("none", {"model.unet.context_dim": None}, "image_encoder.projection: expected unet.context_dim=None, found 24"),
    ("single_reference", {"model.identity_dim": 512}, "model.identity_dim: expected None without PRNet"),
    ("none", {"stage": "codec"}, "stage codec trains the small autoencoder"),
    ("none", {"source.samples": "encoded", "objective.pixel_weight": 1.0}, "encoded samples hold no pixels"),
    ("none", {"source.samples": "encoded", "stage": "decoder"}, "encoded samples hold no pixels"),
    ("none", {"source.samples": "encoded", "stage": "joint"}, "encoded samples hold no pixels")])
def test_contradictions_are_refused(ablation, changes, message):
    with pytest.raises(InputError, match=message):
        RunConfig.read(small_paper_config(ablation, **changes))


@pytest.mark.parametrize("part", ["", "model.", "model.unet.", "data.", "objective.", "sampling.", "source."])
def test_unknown_fields_are_refused(part):
    where = f"{part[:-1]}: " if part else ""
    with pytest.raises(InputError, match=f"^{where}unknown fields 'wheel'; expected some of"):
        RunConfig.read(small_config("clips", **{f"{part}wheel": 1}))


def test_missing_sections_are_refused():
    values = small_config("clips").to_dict()
    for name in ("unet", "codec"):
        model = {field: x for field, x in values["model"].items() if field != name}
        with pytest.raises(InputError, match=f"^model.{name}: expected this field, found none"):
            RunConfig.read({**values, "model": model})
    with pytest.raises(InputError, match="^model: expected this field, found none"):
        RunConfig.read({name: x for name, x in values.items() if name != "model"})


@pytest.mark.parametrize(("name", "value"), [
    ("model", 3), ("data", [1]), ("objective", None), ("source", "x"), ("mesh", 1), ("stage", 7), ("mesh", 7),
    ("mesh", {"data": "all"}), ("total_steps", "many"), ("frozen_whole", 1), ("seed", 1.5)])
def test_other_types_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=f"{name}.*found"):
        RunConfig.read({**small_config("clips").to_dict(), name: value})


def test_data_fields_that_follow_from_the_model_are_refused():
    with pytest.raises(InputError, match="unknown fields.*'image_size'"):
        RunConfig.read(small_config("clips", **{"data.image_size": 64}))


def test_an_unknown_family_is_an_error_of_one_line(tmp_path):
    with pytest.raises(InputError) as error:
        RunConfig.read(small_config("clips", family="durain"))
    message = "unknown model family 'durain'; expected one of durian"
    assert str(error.value).startswith(message) and "did you mean durian?" in str(error.value)
    result = CliRunner().invoke(main, ["train", "--config=tiny", "--config.family=durain",
                                       f"--workdir={tmp_path / 'run'}"])
    assert result.exit_code == 2 and not (tmp_path / "run").exists()
    (line,) = result.output.splitlines()
    assert message in line


def shapes_of(batch):
    return {name: (x.shape, str(x.dtype)) for name, x in batch.items()}


@pytest.mark.parametrize("identity", [False, True])
@pytest.mark.parametrize("attributes", [1, 2])
def test_batches_of_clips_have_the_promised_shapes(identity, attributes, records, tmp_path):
    changes = {"data.frames": 3, "data.attributes": attributes, "source.clips": str(records), "batch_size": 2}
    if identity:
        changes |= {"model.identity_dim": WIDTH, "identity_model": write_network(tmp_path / "identity.onnx")}
    run = RunConfig.read(small_paper_config(**changes))
    loader = make_loader(make_source(run), run.data, seed=run.seed, batch_size=2)
    batch = embed_faces(next(iter(loader)), IdentityEncoder(run.identity_model) if identity else None)
    assert run.batch_shapes() == shapes_of(batch)
    assert ("identity" in batch) == identity
