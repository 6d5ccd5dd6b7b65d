"""Training: stages train what they should, and a killed run goes on as if nothing had happened."""

import functools
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tqdm import tqdm

from durian_jax.checkpoints.weights import Checkpoint, load_checkpoint, read_config
from durian_jax.configs.durian import get_config
from durian_jax.errors import InputError
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.parameters import param_shapes
from durian_jax.training import loop
from durian_jax.training.loop import check_finite, initial_params, train, validate
from durian_jax.training.metrics import bar_in_logs
from durian_jax.training.optimizer import make_learning_rate
from durian_jax.training.state import STAGES, split
from durian_jax.training.step import compiler_options
from tests.helpers.runs import STEPS, command, losses, small_config


def kill_after(process, workdir, lines, timeout=300):
    """SIGKILL a run as soon as it has logged so many steps."""
    metrics = workdir / "metrics.jsonl"
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.exists() and metrics.read_text().count("\n") >= lines:
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"


def mark_first_line(workdir, mark):
    """A sign in the metrics that only a run which goes on, not one which begins again, leaves in place."""
    first, *rest = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    values = json.loads(first)
    values["marks"] = [*values.get("marks", []), mark]
    (workdir / "metrics.jsonl").write_text(json.dumps(values) + "\n" + "".join(rest))


@pytest.fixture(scope="session")
def codec(records, tmp_path_factory):
    """A few steps of the codec: the decoder of a fresh one turns constant predictions into endless gradients."""
    workdir = tmp_path_factory.mktemp("codec")
    config = small_config(records, "codec")
    config.total_steps, config.decay_steps, config.learning_rate, config.warmup_steps = 10, 0, 1e-2, 1
    train(config, workdir)
    return workdir


@pytest.fixture(scope="session")
def stage_one(records, codec, tmp_path_factory):
    """An uninterrupted run of stage 1, which saves every fourth step and keeps every eighth."""
    workdir = tmp_path_factory.mktemp("stage1")
    subprocess.run(command(records, workdir, 1, f"--config.init_from={codec}", "--config.keep_last=1",
                           "--config.keep_every=8"), check=True)
    return workdir


@pytest.fixture(scope="session")
def stage_two(records, stage_one, tmp_path_factory):
    """An uninterrupted run of stage 2 on top of it."""
    workdir = tmp_path_factory.mktemp("stage2")
    subprocess.run(command(records, workdir, 2, f"--config.init_from={stage_one}"), check=True)
    return workdir


def test_recomputation_saves_memory():
    """XLA's CPU backend up to jax 0.10, left alone, merges what is recomputed with what was computed before."""
    block = lambda x, w: x + jnp.tanh(jax.nn.softmax(x @ x.T) @ x @ w)
    arguments = [jnp.ones((16, 16))] * 8, jnp.ones((512, 16))

    def temporary_bytes(block, remat):
        loss = lambda weights, x: jnp.mean(functools.reduce(block, weights, x) ** 2)
        compiled = jax.jit(jax.grad(loss), compiler_options=compiler_options(remat, "cpu")).lower(*arguments).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(jax.checkpoint(block), "full") < temporary_bytes(block, "none") / 2


@pytest.mark.parametrize("stage", ["1", "2"])
def test_a_killed_run_repeats_the_losses(stage, records, codec, stage_one, stage_two, tmp_path):
    start, whole = {"1": (codec, stage_one), "2": (stage_one, stage_two)}[stage]
    arguments = command(records, tmp_path, stage, f"--config.init_from={start}")
    kills = {"1": [10, STEPS - 4], "2": [10]}[stage]
    for lines in kills:
        kill_after(subprocess.Popen(arguments), tmp_path, lines)
        mark_first_line(tmp_path, lines)
    subprocess.run(arguments, check=True)
    assert losses(tmp_path) == losses(whole)
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert first["marks"] == kills, "the run began again instead of going on"
    assert sorted(losses(whole)) == list(range(1, STEPS + 1))
    a, b = (load_checkpoint(folder / "export").params for folder in (tmp_path, whole))
    assert all(np.array_equal(a[path], b[path]) for path in b)


def test_stage_two_trains_the_motion_modules_only(stage_one, stage_two):
    before, after = (load_checkpoint(folder / "export").params for folder in (stage_one, stage_two))
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert changed and all("motion_module" in path for path in changed)


def stopped_at(step, run, workdir):
    """A copy of a run as if it had been stopped there, right after a checkpoint."""
    shutil.copytree(run, workdir, dirs_exist_ok=True)
    for folder in (workdir / "checkpoints").iterdir():
        if int(folder.name) > step:
            shutil.rmtree(folder)
    lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (workdir / "metrics.jsonl").write_text("".join(lines[:step]))
    shutil.rmtree(workdir / "export")


def test_checkpoints_of_multiples_stay(stage_one):
    assert sorted(int(path.name) for path in (stage_one / "checkpoints").iterdir()) == [8, 16, STEPS]


def test_a_damaged_checkpoint_is_ignored_and_the_one_before_is_used(records, codec, stage_one, tmp_path):
    """One was cut while it was written, another lost a part of its data: the run goes on from step 8."""
    stopped_at(16, stage_one, tmp_path)
    folder = tmp_path / "checkpoints"
    (folder / "20.orbax-checkpoint-tmp-1").mkdir()
    for path in (folder / "16" / "state").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:100])
    done = subprocess.run(command(records, tmp_path, 1, f"--config.init_from={codec}"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "20.orbax-checkpoint-tmp-1 was cut while it was written and is ignored" in done.stderr
    assert "the checkpoint of step 16 cannot be read and is ignored" in done.stderr
    assert losses(tmp_path) == losses(stage_one)
    assert sorted(path.name for path in folder.iterdir()) == ["16", "20"]


def test_sigterm_saves_once_and_ends_well(records, codec, tmp_path):
    process = subprocess.Popen(command(records, tmp_path, 1, f"--config.init_from={codec}", "--config.total_steps=9000",
                                       "--config.checkpoint_every=8000"), stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    metrics = tmp_path / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") >= 6) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "asked to stop (SIGTERM): saved" in output
    assert [int(path.name) for path in (tmp_path / "checkpoints").iterdir()] == [max(losses(tmp_path))]
    assert not (tmp_path / "export").exists()


FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from durian_jax.commands.main import main
main(sys.argv[2:])
"""


def test_a_full_disk_leaves_the_checkpoint_before(records, codec, stage_one, tmp_path):
    """Files may not grow beyond a limit that checkpoints exceed."""
    stopped_at(8, stage_one, tmp_path)
    size = max(path.stat().st_size for path in (tmp_path / "checkpoints").rglob("*") if path.is_file())
    again = command(records, tmp_path, 1, f"--config.init_from={codec}")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(size // 2), *again[3:]], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "the checkpoint of step 12 could not be written" in done.stderr and "that of step 8 is whole" in done.stderr
    subprocess.run(again, check=True)
    assert losses(tmp_path) == losses(stage_one)


def test_a_larger_total_goes_on(records, codec, stage_one, tmp_path):
    stopped_at(STEPS, stage_one, tmp_path)
    config = small_config(records)
    config.init_from, config.total_steps = str(codec), STEPS + 2
    train(config, tmp_path)
    assert sorted(losses(tmp_path)) == list(range(1, STEPS + 3))
    assert {step: losses(tmp_path)[step] for step in losses(stage_one)} == losses(stage_one)


def test_the_codec_learns(records, tmp_path):
    config = small_config(records, "codec")
    config.total_steps, config.learning_rate, config.warmup_steps, config.checkpoint_every = 40, 1e-2, 1, 100
    train(config, tmp_path)
    values = list(losses(tmp_path).values())
    assert np.mean(values[-5:]) < 0.7 * np.mean(values[:5])


def test_stages_train_what_they_should(records, codec, stage_one, tmp_path):
    """The decoder learns through the pixels' loss in stage joint only, which is refused without that loss."""
    config = small_config(records, "joint")
    config.init_from, config.total_steps, config.decay_steps, config.checkpoint_every = str(codec), 4, 0, 100
    config.objective.pixel_weight = 30.0
    train(config, tmp_path)
    before = load_checkpoint(codec / "export").params
    for stage, run in (("1", stage_one), ("joint", tmp_path)):
        after = load_checkpoint(run / "export").params
        changed = {path for path in before if not np.array_equal(before[path], after[path])}
        expected = set(split(before, stage)[0])
        assert changed <= expected and len(changed) > 0.9 * len(expected), stage
        assert {path.split("/")[0] for path in changed} == {path.split("/")[0] for path in expected}, stage
    config.objective.pixel_weight = 0.0
    with pytest.raises(InputError, match="pixel_weight must not be 0"):
        validate(config)


def test_the_stages_share_out_the_parameters():
    """The codec stage, 1 and 2 train every parameter once between them; "decoder" is a part of the codec."""
    config = get_config("tiny")
    paths = param_shapes(DurianConfig.from_dict(config.model.to_dict()))
    trained = {stage: set(split(paths, stage)[0]) for stage in STAGES}
    assert sum(len(trained[stage]) for stage in ("codec", "1", "2")) == len(paths)
    assert trained["codec"] | trained["1"] | trained["2"] == set(paths)
    assert set() < trained["decoder"] < trained["codec"]
    assert trained["joint"] == trained["1"] | trained["decoder"]


def test_learning_rate_warms_up_and_decays():
    config = get_config("tiny")
    config.total_steps, config.decay_steps, config.warmup_steps = 100, 50, 10
    rate = make_learning_rate(config)
    values = [float(rate(step)) / config.learning_rate for step in range(100)]
    np.testing.assert_allclose(values[0], 0.1, rtol=1e-5)
    np.testing.assert_allclose(values[9:51], 1.0, rtol=1e-5)
    assert (np.diff(values[50:]) < 0).all()
    assert config.final_fraction < values[-1] < config.final_fraction + 0.01


METRICS = """
import sys, numpy as np
from pathlib import Path
from durian_jax.training.metrics import MetricsWriter
writer = MetricsWriter(Path(sys.argv[1]), 0)
writer.scalars(1, {"loss": 0.5})
writer.image(1, "samples", np.zeros((4, 4, 3), np.uint8))
writer.close()
assert "torch" not in sys.modules
import torch
"""


def test_metrics_are_written_without_pytorch(tmp_path):
    """Which stays to be imported by who needs it."""
    subprocess.run([sys.executable, "-c", METRICS, str(tmp_path)], check=True)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": 0.5}
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss" in events.read_bytes() and b"PNG" in events.read_bytes()


def test_a_bar_is_whole_lines_in_a_log(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    assert bar_in_logs() == {}, "of a notebook"
    monkeypatch.setattr(sys, "__stderr__", log)
    with tqdm(total=2, desc="stage 1", **{**bar_in_logs(), "mininterval": 0}) as bar:
        bar.update()
        bar.update()
    lines = log.getvalue().split("\n")
    assert len(lines) >= 3 and lines.pop() == "" and "\r" not in log.getvalue()
    assert all(line.startswith("stage 1: ") for line in lines) and "2/2" in lines[-1]


def test_a_loss_that_is_not_finite_stops_the_run():
    with pytest.raises(InputError, match="steps 11 and 20.*step 10"):
        check_finite("loss", float("nan"), 10, 20, 10)


@pytest.mark.parametrize(("outcome", "advice"), [
    (np.nan, "loss is nan between steps 1 and 1; there is no checkpoint yet"),
    ("RESOURCE_EXHAUSTED: Out of memory", "more memory than a device has.*Out of memory.*fewer clips")])
def test_a_step_that_goes_wrong_ends_the_run(outcome, advice, records, tmp_path, monkeypatch):
    class Step:
        def lower(self, *_):
            return self

        def compile(self):
            return self

        def __call__(self, state, batch):
            if isinstance(outcome, str):
                raise jax.errors.JaxRuntimeError(outcome)
            return state, {"loss": jnp.float32(outcome), "gradient_norm": jnp.float32(1)}

    monkeypatch.setattr(loop, "make_train_step", lambda *_: Step())
    monkeypatch.setattr(loop, "step_flops", lambda *_: 0)
    with pytest.raises(InputError, match=advice):
        train(small_config(records), tmp_path)
    assert not list((tmp_path / "checkpoints").glob("*")) and not (tmp_path / "export").exists()


def test_samples_that_need_too_much_memory_are_left_out(tmp_path, monkeypatch, capsys):
    def exhausted(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating")
    model, objective, _ = read_config("tiny")
    draw = lambda params: loop._draw_samples(tmp_path, 500, Checkpoint(model, objective, params), {}, "1", metrics=None)
    draw({"x": SimpleNamespace(astype=exhausted)})
    monkeypatch.setattr(loop, "sample_sheet", exhausted)
    draw({})
    line = "no samples at step 500, training goes on: RESOURCE_EXHAUSTED: Out of memory\n"
    assert capsys.readouterr().err.count(line) == 2
    assert not (tmp_path / "samples").exists()


def test_bad_configs_are_refused_before_anything_is_built(records, tmp_path):
    config = small_config(records)
    config.stage = "3"
    with pytest.raises(InputError, match="unknown stage '3'"):
        validate(config)
    config = small_config(records)
    config.total_steps = 0
    with pytest.raises(InputError, match="total_steps must be at least 1"):
        validate(config)
    for field, value in (("optimizer", "adam"), ("guidance_dropout", 1.5), ("init_fresh", "(")):
        config = small_config(records)
        config[field] = value
        with pytest.raises(InputError, match=field):
            validate(config)
    config = small_config(records, "2")
    config.data.frames = 99
    with pytest.raises(InputError, match="max_frames"):
        validate(config)
    config = small_config(records)
    config.source.clips = ""
    with pytest.raises(InputError, match="no training clips"):
        train(config, tmp_path / "a")
    # A run that never began leaves nothing that the corrected command would have to agree with.
    config = small_config(records)
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    config.init_from = str(tmp_path / "empty")
    with pytest.raises(InputError, match="no whole checkpoint yet"):
        train(config, tmp_path / "b")
    assert not (tmp_path / "b" / "config.json").exists()


def test_another_model_in_the_same_workdir_is_refused(records, stage_one):
    config = small_config(records)
    config.model.unet.channels = (48,)
    with pytest.raises(InputError, match="another model"):
        train(config, stage_one)


def test_weights_that_do_not_fit_are_listed(records, stage_one):
    config = small_config(records)
    config.model.unet.channels = (24,)
    config.init_from = str(stage_one)
    with pytest.raises(InputError, match="denoiser/conv_in/kernel has shape"):
        initial_params(config, validate(config)[0])
