"""Initial parameters of a run: fresh, or from a run or a checkpoint, and what does not fit."""

import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from durian_jax.checkpoints.weights import Checkpoint, save_checkpoint
from durian_jax.errors import InputError
from durian_jax.models.parameters import init_params, param_axes, param_shapes
from durian_jax.training import run_checkpoints
from durian_jax.training.config import RunConfig
from durian_jax.training.initialization import check_start, initial_params
from durian_jax.training.optimizer import make_optimizer
from durian_jax.training.run_checkpoints import RunCheckpoints, load_params, placed
from durian_jax.training.sharding import MESH_AXES, Layout, make_mesh
from durian_jax.training.state import create_state, split
from tests.helpers.runs import small_config, small_paper_config
from tests.helpers.svdp import small_config as driven_config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """The folder of a run of stage 1 with a single checkpoint. It is not trained: parameters are those of seed 5."""
    folder, run = tmp_path_factory.mktemp("run"), RunConfig.read(small_config("clips"))
    state = create_state(init_params(run.model, 5), run.recipe.trains, make_optimizer(run))
    with RunCheckpoints(folder) as checkpoints:
        checkpoints.save(state.replace(step=state.step + 4), {"next": 0})
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint whose model attends to no identity embedding."""
    run = RunConfig.read(small_paper_config())
    params = {path: np.ones(x.shape, np.float32) for path, x in param_shapes(run.model).items()}
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"), Checkpoint(run.model, run.objective, params))


def test_a_stage_loads_shards_without_the_optimiser(workdir, monkeypatch):
    """Frozen weights are replicated after they are cast: in float32 the paper's size would not fit a small chip."""
    asked = []
    monkeypatch.setattr(run_checkpoints, "placed", lambda shapes, layout: asked.append((set(shapes), layout.whole)) or
                        placed(shapes, layout))
    run = RunConfig.read(small_config("clips", "2", init_from=str(workdir)))
    frozen = frozenset(split(param_shapes(run.model), run.recipe.trains)[1])
    layout = Layout(make_mesh(dict.fromkeys(MESH_AXES, 1), jax.devices()[:1]), param_axes(run.model), frozen)
    params = initial_params(run, layout=layout)
    assert asked == [({"frozen", "average"}, frozenset())]
    expected = init_params(run.model, 5)
    assert params.keys() == expected.keys()
    assert all(np.array_equal(params[path], x) for path, x in expected.items())
    state = create_state(params, run.recipe.trains, make_optimizer(run), "bfloat16", layout)
    assert state.frozen.keys() == frozen and {x.dtype.name for x in state.frozen.values()} == {"bfloat16"}


def test_weights_that_do_not_fit_are_listed(workdir):
    run = RunConfig.read(small_config("clips", init_from=str(workdir), **{"model.unet.channels": (24,)}))
    with pytest.raises(InputError, match="denoiser/conv_in/kernel has shape"):
        initial_params(run)


def test_a_checkpoint_of_another_model_names_the_fields(checkpoint):
    run = RunConfig.read(small_paper_config("no_mask_channel", init_from=str(checkpoint)))
    with pytest.raises(InputError, match="another model than the config: mask_channel is True, the config has False"):
        initial_params(run)


def test_parameters_that_a_checkpoint_lacks_start_fresh_if_the_config_says_so(checkpoint):
    run = RunConfig.read(small_paper_config(init_from=str(checkpoint), **{"model.identity_dim": 8}))
    with pytest.raises(InputError, match="identity_dim is None, the config has 8"):
        initial_params(run)
    params = initial_params(replace(run, init_fresh="identity_projection/"))
    fresh = {path: x for path, x in params.items() if path.startswith("identity_projection/")}
    assert params.keys() == param_shapes(run.model).keys() and fresh
    expected = init_params(run.model, run.seed, frozenset(fresh))
    assert all(np.array_equal(x, expected[path]) for path, x in fresh.items())
    assert all((params[path] == 1).all() for path in params.keys() - fresh.keys())


def test_only_some_parameters_are_loaded(checkpoint):
    run = RunConfig.read(small_paper_config(init_from=str(checkpoint)))
    assert {path.split("/")[0] for path in initial_params(run, run.model.encoders)} == {"codec", "image_encoder"}


def test_another_familys_codec_can_be_taken(workdir):
    """`init_only` takes what its pattern matches, from a checkpoint or a run, and all else starts fresh."""
    codec = {name: getattr(RunConfig.read(small_config("clips")).model.codec, name) for name in (
        "patch", "encoder_channels", "decoder_channels", "layers", "latent_channels", "norm_groups")}
    run = RunConfig.read(driven_config("clips", "video", init_from=str(workdir), init_only="codec/", **{
        "model.codec": codec}))
    params, theirs = initial_params(run), load_params(workdir)
    fresh = init_params(run.model, run.seed)
    assert params.keys() == fresh.keys()
    for path, x in params.items():
        np.testing.assert_array_equal(x, theirs[path] if path.startswith("codec/") else fresh[path])
    with pytest.raises(InputError, match="no parameter of this pattern"):
        initial_params(replace(run, init_only="nothing/"))
    with pytest.raises(InputError, match="init_only"):
        replace(run, init_only="(")


def test_a_start_is_checked_before_anything_is_built(checkpoint, tmp_path):
    """A folder that does not exist, a file that was cut off, and a model of another family without `init_only`."""
    run = RunConfig.read(small_paper_config(init_from=str(checkpoint)))
    check_start(run)
    check_start(replace(run, init_from="", init_fresh="codec/"))
    with pytest.raises(InputError, match="needs a trained autoencoder"):
        check_start(replace(run, init_from=""))
    with pytest.raises(InputError, match="no checkpoint 'nowhere'"):
        check_start(replace(run, init_from="nowhere"))
    other = RunConfig.read(driven_config("clips", "video", init_from=str(checkpoint)))
    with pytest.raises(InputError, match="expected a model of the family svdp, found one of durian; name another, or"):
        check_start(other)
    with pytest.raises(InputError, match="is of another model than the config: .*codec.channels is 8"):
        check_start(replace(other, init_only="codec/"))  # its autoencoder is of another kind
    damaged = Path(shutil.copytree(checkpoint, tmp_path / "damaged"))
    weights = next(damaged.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="is damaged"):
        check_start(replace(run, init_from=str(damaged)))


def test_a_run_without_a_checkpoint_is_refused(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="no complete checkpoint yet"):
        initial_params(RunConfig.read(small_config("clips", init_from=str(tmp_path))))
