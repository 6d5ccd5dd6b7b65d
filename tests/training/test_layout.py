"""The layout of a run: batches that its mesh cannot divide."""

import os
import subprocess

import jax
import pytest

from durian_jax.errors import InputError
from durian_jax.training.config import RunConfig
from durian_jax.training.layout import run_layout
from durian_jax.training.state import split
from tests.helpers.runs import ON_MESHES, command, mesh_flags, small_config


def test_batches_that_cannot_be_divided_are_refused(records, tmp_path):
    done = subprocess.run(command(records, tmp_path, "1", *ON_MESHES, *mesh_flags("4x1x1x1"), "--config.batch_size=6"),
                          env={**os.environ, "JAX_NUM_CPU_DEVICES": "4"}, capture_output=True, text=True)
    assert done.returncode == 2
    assert "batch_size=6 cannot be divided among data x fsdp = 4 groups" in done.stderr
    assert not (tmp_path / "config.json").exists()


def test_a_mesh_that_does_not_fit_the_devices_is_refused():
    with pytest.raises(InputError, match="whose product is the 1 devices"):
        run_layout(RunConfig.read(small_config("clips", **{"mesh.data": 2})), jax.devices()[:1])


@pytest.mark.parametrize("stage", ["1", "2"])
def test_frozen_parameters_are_replicated_if_the_config_says_so(stage):
    run = RunConfig.read(small_config("clips", stage, frozen_whole=True))
    layout = run_layout(run, jax.devices()[:1])
    assert layout.whole == split(layout.axes, run.recipe.trains)[1].keys() and layout.whole
    run = RunConfig.read(small_config("clips", stage))
    assert not run_layout(run, jax.devices()[:1]).whole
