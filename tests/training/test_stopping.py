"""A run stops when it is asked to, and only one run writes to a workdir."""

import os
import signal
import socket
import subprocess
import time

import pytest

from tests.helpers.runs import command, losses

pytestmark = pytest.mark.slow


def start(records, workdir, *more, **environment):
    """Start a run of stage codec that would take hours."""
    return subprocess.Popen(command(records, workdir, "codec", "--config.total_steps=900000", *more), text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment})


def wait_for_steps(process, workdir, steps, timeout=400):
    """Wait until this number of steps is logged."""
    metrics, deadline = workdir / "metrics.jsonl", time.monotonic() + timeout
    while not (metrics.exists() and metrics.read_text().count("\n") >= steps):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "line"), [
    (signal.SIGINT, "durian: stopped (Ctrl-C): {workdir} keeps the checkpoint of step {step}; repeat the command "
                    "to resume"),
    (signal.SIGTERM, "asked to stop (SIGTERM): saved; {workdir} keeps the checkpoint of step {step}; repeat the "
                     "command")])
def test_a_run_finishes_its_step_and_saves(number, line, records, tmp_path):
    process = start(records, tmp_path, "--config.checkpoint_every=800000")
    wait_for_steps(process, tmp_path, 6)
    process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors
    (saved,) = (tmp_path / "checkpoints").iterdir()
    assert int(saved.name) == max(losses(tmp_path)) >= 6
    assert line.format(workdir=tmp_path, step=saved.name) in output + errors
    assert "Traceback" not in errors and not (tmp_path / "export").exists()
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".") or path.suffix == ".lock"]


def test_a_run_stops_while_it_compiles(records, tmp_path):
    """XLA compiles outside of Python; there is nothing to save yet."""
    process = start(records, tmp_path / "run", "--config.total_steps=3",
                    JAX_COMPILATION_CACHE_DIR=str(tmp_path / "cache"))
    for line in process.stderr:
        if "compiling the training step" in line:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == (f"durian: stopped (Ctrl-C): {tmp_path / 'run'} has no checkpoint yet; repeat "
                                       "the command to start again")


def test_a_second_run_in_the_workdir_is_refused_until_the_first_is_dead(records, tmp_path):
    first = start(records, tmp_path, "--config.checkpoint_every=5")
    wait_for_steps(first, tmp_path, 12)
    second = start(records, tmp_path)
    _, errors = second.communicate(timeout=400)
    assert second.returncode == 2
    assert errors.splitlines()[-1] == (
        f"durian: error: {tmp_path}: process {first.pid} on {socket.gethostname()} uses this folder (durian train); "
        "wait for it, stop it, or choose another --workdir")
    first.kill()
    first.communicate()
    before = max(losses(tmp_path))
    third = start(records, tmp_path)
    wait_for_steps(third, tmp_path, before + 1)
    third.terminate()
    output, errors = third.communicate(timeout=120)
    assert third.returncode == 143 and "waiting" not in errors
    assert sorted(losses(tmp_path)) == list(range(1, max(losses(tmp_path)) + 1)), "it resumed from a checkpoint"
