"""Training on meshes: what is sharded, and that the result does not depend on it."""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from durian_jax.checkpoints.weights import load_checkpoint, read_description
from durian_jax.configs.durian import get_config
from durian_jax.errors import InputError
from durian_jax.models.parameters import init_params, param_axes, param_shapes
from durian_jax.training.config import RunConfig
from durian_jax.training.optimizer import make_optimizer
from durian_jax.training.recipes.durian import STAGES
from durian_jax.training.sharding import MESH_AXES, Layout, arrange, check_batch, make_mesh
from durian_jax.training.state import split, state_shapes
from tests.helpers.runs import losses, train_on


def layout_of(sizes, model, whole=frozenset()):
    """Return the layout of a model on a mesh without devices."""
    mesh = AbstractMesh(sizes, MESH_AXES, axis_types=(AxisType.Auto,) * 4)
    return Layout(mesh, param_axes(model), whole)


@pytest.fixture(scope="module")
def on_one(records, tmp_path_factory):
    """Runs of both stages on one device."""
    folder = tmp_path_factory.mktemp("one")
    train_on("1x1x1x1", records, folder / "1", "1", "--config.checkpoint_every=10")
    train_on("1x1x1x1", records, folder / "2", "2", f"--config.init_from={folder / '1'}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "mesh"), [("1", "8x1x1x1"), ("1", "1x8x1x1"), ("1", "2x2x2x1"),
                                             ("2", "1x2x2x2")])
def test_losses_do_not_depend_on_the_mesh(stage, mesh, records, on_one, tmp_path):
    more = ["--config.frozen_whole=True", "--config.sample_every=20", f"--config.init_from={on_one / '1'}"] \
        if stage == "2" else []
    found = train_on(mesh, records, tmp_path, stage, *more)
    np.testing.assert_allclose(found, list(losses(on_one / stage).values()), rtol=2e-4)
    assert (tmp_path / "samples" / "0000020.png").is_file() == (stage == "2")


@pytest.mark.slow
def test_stages_train_what_they_should(on_one):
    """With all networks: stage 1 trains everything but codec and motion modules, stage 2 the motion modules."""
    model = read_description(on_one / "1" / "export").config
    before = {path: np.float16(x) for path, x in init_params(model, get_config("tiny").seed).items()}
    # Most of a fresh motion module gets no gradient while its last projection is zero.
    for stage, share in (("1", 0.9), ("2", 0)):
        after = load_checkpoint(on_one / stage / "export", "stored").params
        changed = {path for path, x in before.items() if not np.array_equal(x, after[path])}
        expected = set(split(before, STAGES[stage].trains)[0])
        assert changed <= expected and len(changed) > share * len(expected), stage
        assert {path.split("/")[0] for path in changed} == {path.split("/")[0] for path in expected}, stage
        before = after
    trained = {path.split("/")[0] for path in split(before, STAGES["1"].trains)[0]}
    assert {"portrait_reference", "attribute_reference"} < trained


@pytest.mark.slow
def test_a_run_resumes_on_another_mesh(records, on_one, tmp_path):
    shutil.copytree(on_one / "1", tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / "20")
    found = train_on("1x2x2x2", records, tmp_path, "1")  # another test has compiled the step for this mesh
    expected = losses(on_one / "1")
    np.testing.assert_allclose(found, list(expected.values()), rtol=2e-4)
    assert list(found[:10]) == [expected[step] for step in range(1, 11)], "the run restarted from step 0"


def test_parameters_and_optimiser_state_are_sharded():
    """At the paper's size each of 16 chips holds little more than a 16th. Heads are sharded over the tensor axis.

    Parameters in `whole` are replicated.
    """
    run = RunConfig.read(get_config("sd15,stage=1"))
    model, trains = run.model, run.recipe.trains
    shapes = state_shapes(model, trains, make_optimizer(run), "bfloat16")
    size = lambda shape: np.prod(shape, dtype=np.int64)
    whole = sum(size(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes))

    def on_chip(layout):
        places = layout.state(shapes)
        return sum(size(place.shard_shape(x.shape)) * x.dtype.itemsize
                   for x, place in zip(jax.tree.leaves(shapes), jax.tree.leaves(places), strict=True))
    assert on_chip(layout_of((1, 16, 1, 1), model)) < 1.02 * whole / 16
    assert on_chip(layout_of((4, 4, 1, 1), model)) < 1.02 * whole / 4
    frozen = split(param_shapes(model), trains)[1]
    whole = layout_of((1, 16, 1, 1), model, frozenset(frozen))
    assert on_chip(whole) - on_chip(layout_of((1, 16, 1, 1), model)) == pytest.approx(
        15 / 16 * sum(2 * size(x.shape) for x in frozen.values()), rel=0.01)
    layout = layout_of((1, 2, 1, 4), model)
    spec = lambda path: layout.param(path, param_shapes(model)[path].shape).spec
    attention = "denoiser/down_attentions_0/attn1"
    assert spec(f"{attention}/to_q/kernel") == P("fsdp", "tensor")
    assert spec(f"{attention}/to_out/kernel") == P("tensor", "fsdp")
    assert spec("denoiser/conv_in/kernel") == P(None, None, None, None), "small parameters are replicated"


def test_meshes_that_do_not_fit_are_refused():
    devices = jax.devices()[:1]
    sizes = dict.fromkeys(MESH_AXES, 1)
    assert make_mesh({**sizes, "data": -1}, devices).size == 1
    with pytest.raises(InputError, match="whose product is the 1 devices"):
        make_mesh({**sizes, "fsdp": 3}, devices)
    for bad in ({"data": 0}, {"data": -1, "fsdp": -1}):
        with pytest.raises(InputError, match="expected sizes of at least 1"):
            make_mesh({**sizes, **bad}, devices)


def test_slices_take_the_first_axes():
    """The first mesh axes, which communicate least, cross slices of TPUs and machines with GPUs."""
    device = lambda number, size: SimpleNamespace(id=number, slice_index=number // size, process_index=number // size,
                                                  platform="gpu", device_kind="GPU")
    slices = lambda shape, size: np.vectorize(lambda device: device.slice_index)(
        arrange(shape, [device(number, size) for number in range(16)])).squeeze().tolist()
    assert slices((2, 8, 1, 1), 8) == [[0] * 8, [1] * 8]
    assert slices((1, 16, 1, 1), 8) == [0] * 8 + [1] * 8
    assert slices((2, 4, 1, 2), 4) == [[[0, 0], [0, 0], [1, 1], [1, 1]], [[2, 2], [2, 2], [3, 3], [3, 3]]]
    with pytest.raises(InputError, match=r"slices .* of one size, found some of \[1, 3\] devices"):
        arrange((4, 4, 1, 1), [device(number, 3) for number in range(16)])


def test_a_host_loads_the_clips_of_its_chips():
    """If a host's chips are a square of the torus, its parts of a batch are not neighbours."""
    hosts = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])
    mesh = SimpleNamespace(shape=dict(zip(MESH_AXES, (4, 2, 1, 2), strict=True)),
                           devices=np.vectorize(lambda host: SimpleNamespace(process_index=host))(hosts))
    assert Layout(mesh, {}).host_parts() == (0, 2)
    with pytest.raises(InputError, match="data.frames=3 cannot be divided among mesh.frames=2"):
        check_batch({**mesh.shape, "frames": 2}, 16, 3)


DIVIDED = """
import jax, numpy as np
from durian_jax.models.attention import AttentionMethod, reference_attention, self_attention
from durian_jax.training.sharding import MESH_AXES, Layout, make_mesh
from tests.helpers.models import attention_inputs
frames, references, selection = attention_inputs(b=4)
expected = reference_attention(*frames, references, selection)
alone = self_attention(*(x[:, 0] for x in frames))
for sizes in ((2, 1, 2, 2), (1, 2, 2, 2), (2, 2, 2, 1)):
    mesh = make_mesh(dict(zip(MESH_AXES, sizes)))
    method = AttentionMethod("splash", Layout(mesh, {}).attention_partition, interpret=True)
    spread = jax.device_put(frames, jax.NamedSharding(mesh, jax.P(("data", "fsdp"), "frames", None, "tensor")))
    run = jax.jit(lambda *x: reference_attention(*x, references, selection, method))
    np.testing.assert_allclose(run(*spread), expected, atol=1e-5)
    assert "all-gather" not in run.lower(*spread).compile().as_text()
    run = jax.jit(lambda *x: self_attention(*(y[:, 0] for y in x), None, method))
    np.testing.assert_allclose(run(*spread), alone, atol=1e-5)
"""


def test_splash_attention_gathers_nothing_on_a_mesh():
    done = subprocess.run([sys.executable, "-c", DIVIDED], env={**os.environ, "JAX_NUM_CPU_DEVICES": "8"},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
