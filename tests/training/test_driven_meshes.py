"""A model driven by pixels trains to the same losses on any mesh and in several processes, also from another's mesh."""

import os
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

from durian_jax.data.dataset_writer import write_clips
from durian_jax.data.sources import SyntheticClips
from tests.helpers.runs import losses

# Clips of four frames with history, kernels large enough to be sharded.
TRAIN = """
import sys
from durian_jax.training import cluster
cluster.join()
from durian_jax.training.loop import train
from durian_jax.training.sharding import MESH_AXES
from tests.helpers.svdp import PIXELS, SIZES, small_config
records, workdir, mesh, steps = sys.argv[1:]
sizes = {f"mesh.{axis}": int(size) for axis, size in zip(MESH_AXES, mesh.split("x"))}
cluster.check_joined()
with cluster.leaving_at_once():
    train(small_config(records, "history", **{
        **sizes, "model.mmdit": {**SIZES, **PIXELS, "width": 128, "layers": 1, "patch": 2, "positions": "rotary",
                                 "video": "full"},
        "batch_size": 4, "data.frames": 4, "total_steps": int(steps), "learning_rate": 1e-3,
        "disturbance.own_share": 0.5}), workdir)
"""


def start(records, workdir, mesh, steps, devices, **environment):
    """Start a run with `devices` virtual devices per process."""
    return subprocess.Popen([sys.executable, "-c", TRAIN, str(records), str(workdir), mesh, str(steps)],
                            env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu",
                                 **environment})


@pytest.fixture(scope="module")
def driven(tmp_path_factory):
    """Records with drivers, and a run of four steps on one device."""
    folder = tmp_path_factory.mktemp("driven")
    source = SyntheticClips("train", 8, 8, 32, drivers=True)
    write_clips(folder / "records", (source[index] for index in range(len(source))))
    assert start(folder / "records", folder / "one", "1x1x1x1", 4, 1).wait() == 0
    return folder


@pytest.mark.slow
def test_another_mesh_and_a_resumed_run_give_the_same_losses(driven, tmp_path):
    expected = losses(driven / "one")
    assert start(driven / "records", tmp_path / "mesh", "1x2x2x2", 4, 8).wait() == 0
    np.testing.assert_allclose(list(losses(tmp_path / "mesh").values()), list(expected.values()), rtol=2e-4)
    shutil.copytree(driven / "one", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "4")
    assert start(driven / "records", tmp_path / "resumed", "1x2x2x2", 4, 8).wait() == 0
    found = losses(tmp_path / "resumed")
    assert [found[1], found[2]] == [expected[1], expected[2]], "the run restarted from step 0"
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=2e-4)


@pytest.mark.slow
def test_several_processes_give_the_same_losses(driven, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = [start(driven / "records", tmp_path, "2x1x2x1", 4, 2, DURIAN_COORDINATOR=f"127.0.0.1:{port}",
                     DURIAN_PROCESSES="2", DURIAN_PROCESS=str(number)) for number in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    np.testing.assert_allclose(list(losses(tmp_path).values()), list(losses(driven / "one").values()), rtol=2e-4)
