"""Training in several processes on this machine: equal losses, a lost process stops all, and the run resumes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from click.testing import CliRunner

from durian_jax.commands.main import main
from tests.helpers.runs import ON_MESHES, command, losses, mesh_flags, train_on

# The model does not matter here, and a single network compiles in a third of the time.
ONE_NETWORK = "--config.model.reference_mode=tokens"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(records, workdir, mesh, processes, *more):
    """Start `processes` processes with two virtual devices each. Process N writes its output to workdir/log-N."""
    port, running = free_port(), []
    workdir.mkdir(exist_ok=True)
    for number in range(processes):
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2",
                       "DURIAN_COORDINATOR": f"127.0.0.1:{port}", "DURIAN_PROCESSES": str(processes),
                       "DURIAN_PROCESS": str(number)}
        with (workdir / f"log-{number}").open("w") as log:
            running.append(subprocess.Popen(
                command(records, workdir, "1", *ON_MESHES, ONE_NETWORK, *mesh_flags(mesh),
                        "--config.checkpoint_every=4", "--config.total_steps=12", "--config.silence_seconds=12", *more),
                env=environment, stdout=log, stderr=subprocess.STDOUT))
    return running


def logs(workdir):
    return "\n".join(path.read_text() for path in sorted(workdir.glob("log-*")))


def wait_for_steps(workdir, steps, running, timeout=400):
    """Wait until `steps` steps are logged and, from the fourth step on, the checkpoint of step 4 is complete."""
    deadline = time.monotonic() + timeout
    metrics = workdir / "metrics.jsonl"
    saved = workdir / "checkpoints" / "4"
    while not (metrics.exists() and metrics.read_text().count("\n") >= steps and (steps < 4 or saved.is_dir())):
        assert time.monotonic() < deadline and all(process.poll() is None for process in running), logs(workdir)
        time.sleep(0.05)


@pytest.fixture(scope="module")
def alone(records, tmp_path_factory):
    """Folder of a run in one process on one device, with a trace of two steps."""
    workdir = tmp_path_factory.mktemp("alone")
    train_on("1x1x1x1", records, workdir, "1", ONE_NETWORK, "--profile=18:19")
    return workdir


@pytest.fixture
def on_one(alone):
    return list(losses(alone).values())


def lose_one(records, workdir, mesh, processes):
    """Start a run, kill its last process and return the losses until then."""
    running = start(records, workdir, mesh, processes)
    wait_for_steps(workdir, 6, running)
    os.kill(running[-1].pid, signal.SIGKILL)
    for process in running[:-1]:
        assert process.wait(timeout=120) != 0
    assert f"process {processes - 1} of {processes} has exited" in (workdir / "log-0").read_text(), logs(workdir)
    assert "resumes from step 4" in logs(workdir)
    return losses(workdir)


def check_resumed(found, before, on_one):
    assert sorted(found)[:12] == list(range(1, 13))
    np.testing.assert_allclose([found[step] for step in range(1, 13)], on_one[:12], rtol=2e-4)
    assert all(found[step] == before[step] for step in range(1, 5)), "the run restarted from step 0"


@pytest.mark.slow
def test_a_lost_process_stops_all_and_fewer_processes_resume(records, on_one, tmp_path):
    before = lose_one(records, tmp_path, "2x2x2x1", 4)
    running = start(records, tmp_path, "2x2x1x1", 2, "--config.sample_every=12")
    assert [process.wait(timeout=400) for process in running] == [0, 0], logs(tmp_path)
    check_resumed(losses(tmp_path), before, on_one)
    assert (tmp_path / "export" / "model.safetensors").is_file()
    assert (tmp_path / "samples" / "0000012.png").is_file()


@pytest.mark.slow
def test_a_run_resumes_on_another_mesh_and_sigterm_to_one_process_saves_and_stops_all(records, on_one, tmp_path):
    before = lose_one(records, tmp_path, "2x2x1x1", 2)
    running = start(records, tmp_path, "1x2x1x2", 2, "--config.total_steps=5000", "--config.checkpoint_every=4000")
    wait_for_steps(tmp_path, 12, running)
    running[1].terminate()
    assert [process.wait(timeout=120) for process in running] == [0, 0], logs(tmp_path)
    found = losses(tmp_path)
    check_resumed(found, before, on_one)
    assert (tmp_path / "checkpoints" / str(max(found))).is_dir(), "no checkpoint of the last step"
    assert "asked to stop" in (tmp_path / "log-0").read_text() and not (tmp_path / "export").exists()


JOIN = """
from durian_jax.training import cluster
from durian_jax.errors import InputError
try:
    cluster.join(timeout=5)
except InputError as error:
    print(error)
"""


def join_with(**environment):
    return subprocess.run([sys.executable, "-c", JOIN], env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
                          capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_the_join_times_out_and_names_missing_processes():
    port = free_port()
    done = join_with(DURIAN_COORDINATOR=f"127.0.0.1:{port}", DURIAN_PROCESSES="3", DURIAN_PROCESS="0")
    assert done.returncode != 0
    assert "not all processes joined within 5 s" in done.stderr and f"can reach 127.0.0.1:{port}" in done.stderr
    missing = re.search(r"timed out task names:\n((?:\d\n)+)", done.stderr)
    assert sorted(missing[1].split()) == ["1", "2"]  # JAX lists them in random order


def test_a_failed_join_exits_with_status_1(monkeypatch, tmp_path):
    """Launchers retry after status 1, but not after status 2 (wrong flags)."""
    def unavailable(**_):
        raise RuntimeError("DEADLINE_EXCEEDED: no answer")
    monkeypatch.setattr(jax.distributed, "initialize", unavailable)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    for name, value in {"COORDINATOR": "host:1", "PROCESSES": "2", "PROCESS": "1"}.items():
        monkeypatch.setenv(f"DURIAN_{name}", value)
    done = CliRunner().invoke(main, ["train", "--config=configs/durian.py:tiny,stage=codec", f"--workdir={tmp_path}"])
    assert done.exit_code == 1 and "did not find each other: DEADLINE_EXCEEDED" in done.stderr


@pytest.mark.parametrize("environment", [
    {"DURIAN_PROCESSES": "2"}, {"DURIAN_COORDINATOR": "host:1", "DURIAN_PROCESSES": "two", "DURIAN_PROCESS": "0"},
    {"DURIAN_COORDINATOR": "host:1", "DURIAN_PROCESSES": "2", "DURIAN_PROCESS": "2"},
    {"DURIAN_COORDINATOR": "host", "DURIAN_PROCESSES": "2", "DURIAN_PROCESS": "0"}])
def test_contradictory_variables_are_refused(environment):
    assert "DURIAN_PROCESSES" in join_with(**environment).stdout


def test_metrics_measure_how_time_is_spent(alone):
    lines = [json.loads(line) for line in (alone / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert line["tflops_per_second"] > 0 and 0 <= line["goodput"] <= 1
        assert line["data_seconds_per_step"] <= line["seconds_per_step"]
    assert lines[-1]["goodput"] > lines[0]["goodput"] == 0
    assert list((alone / "profile").rglob("*.xplane.pb"))
