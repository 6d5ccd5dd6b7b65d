"""Facts of a run on TPUs that this machine does not have, before anything is compiled."""

import json
import math
import subprocess
import sys

import jax
import pytest

from durian_jax.configs.durian import get_config
from durian_jax.data.pipeline import make_loader
from durian_jax.planning.ahead import batch_shapes
from durian_jax.planning.tpu_compiler import compiler_environment
from durian_jax.training.config import RunConfig
from durian_jax.training.layout import run_layout
from durian_jax.training.training_clips import make_source
from tests.helpers.runs import changed, small_config

# The TPU compiler needs a process of its own. One process prepares all runs, because starting it takes seconds.
PREPARE = """
import json, sys
from durian_jax.planning import ahead
from durian_jax.training.config import RunConfig
for values in json.load(open(sys.argv[1])):
    _, facts = ahead.prepare(RunConfig.read(values), "v5e:2x2")
    print("facts", json.dumps(facts))
"""


def facts_of(configs, tmp_path):
    """Return the facts of runs on v5e:2x2."""
    path = tmp_path / "configs.json"
    path.write_text(json.dumps([json.loads(config.to_json()) for config in configs]))
    done = subprocess.run([sys.executable, "-c", PREPARE, str(path)], env=compiler_environment(), capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line.removeprefix("facts ")) for line in done.stdout.splitlines() if line.startswith("facts ")]


def test_facts_of_a_run_follow_from_its_mesh(compiler, tmp_path):
    """Each of four chips holds a quarter of the state. Frozen parameters are replicated where the config says so."""
    config = changed(get_config("tiny,stage=2"), {
        "batch_size": 4, "data.frames": 2, "model.max_frames": 16, "model.unet.channels": (256,),
        "model.unet.heads": (2,), "model.unet.attention": (True,), "model.keypoint_channels": (64,),
        "model.image_size": 32})
    sharded = changed(config.copy_and_resolve_references(), {"mesh.data": 1, "mesh.fsdp": 4})
    replicated = changed(sharded.copy_and_resolve_references(), {"frozen_whole": True})
    alone, divided, whole = facts_of([config, sharded, replicated], tmp_path)
    assert divided["bytes"]["params"] == pytest.approx(alone["bytes"]["params"] / 4, rel=0.1)
    assert divided["bytes"]["optimizer"] == pytest.approx(alone["bytes"]["optimizer"] / 4, rel=0.1)
    assert divided["bytes"]["frozen"] < 0.5 * alone["bytes"]["frozen"]
    assert whole["bytes"]["frozen"] == alone["bytes"]["frozen"]
    assert whole["bytes"]["params"] == divided["bytes"]["params"]
    assert len({facts["flops_per_step"] for facts in (alone, divided, whole)}) == 1
    assert alone["mesh"]["data"] == 4 and math.prod(divided["mesh"].values()) == 4
    assert sorted(divided["coordinates"]) == [[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]]


def test_batches_have_the_shapes_and_shardings_of_real_ones(records):
    run = RunConfig.read(small_config(records))
    layout = run_layout(run, jax.devices()[:1])
    loader = make_loader(make_source(run), run.data, seed=0, batch_size=run.batch_size)
    real = layout.assemble(next(iter(loader)), (0,), run.batch_spec)
    expected = {name: (x.shape, x.dtype, x.sharding) for name, x in real.items()}
    assert {name: (x.shape, x.dtype, x.sharding) for name, x in batch_shapes(run, layout).items()} == expected


MESHES = """
import numpy as np
from jax.experimental import topologies
from durian_jax.training.sharding import arrange
of = lambda topology, slices=1: topologies.get_topology_desc(topology, "tpu", num_slices=slices).devices
print(arrange((2, 8, 1, 1), of("v6e:4x4")).shape)
print(np.vectorize(lambda chip: chip.slice_index)(arrange((2, 4, 1, 1), of("v6e:2x2", 2))).squeeze().tolist())
"""


def test_an_axis_of_the_torus_is_split_if_necessary_and_slices_stay_together(compiler):
    done = subprocess.run([sys.executable, "-c", MESHES], env=compiler_environment(), capture_output=True, text=True)
    assert done.stdout.splitlines() == ["(2, 8, 1, 1)", "[[0, 0, 0, 0], [1, 1, 1, 1]]"], done.stderr
