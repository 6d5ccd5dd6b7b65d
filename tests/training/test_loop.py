"""The training loop: stages train what they should, and a killed run resumes with the same losses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.checkpoints.weights import Checkpoint, load_checkpoint
from durian_jax.configs.durian import get_config
from durian_jax.errors import InputError
from durian_jax.training import loop
from durian_jax.training.config import RunConfig
from durian_jax.training.loop import check_finite, check_same_run, train
from durian_jax.training.state import split
from tests.helpers.runs import STEPS, changed, command, losses, small_config


def kill_after(process, workdir, lines, timeout=300):
    """Kill a run (SIGKILL) as soon as it has logged this number of steps."""
    metrics = workdir / "metrics.jsonl"
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.exists() and metrics.read_text().count("\n") >= lines:
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"


def mark_first_line(workdir, mark):
    """Mark the first line of the metrics. A run that resumes keeps the mark, a run that restarts removes it."""
    first, *rest = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    values = json.loads(first)
    values["marks"] = [*values.get("marks", []), mark]
    (workdir / "metrics.jsonl").write_text(json.dumps(values) + "\n" + "".join(rest))


def stopped_at(step, run, workdir):
    """Copy a run as if it had been stopped right after the checkpoint of this step."""
    shutil.copytree(run, workdir, dirs_exist_ok=True)
    for folder in (workdir / "checkpoints").iterdir():
        if int(folder.name) > step:
            shutil.rmtree(folder)
    lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (workdir / "metrics.jsonl").write_text("".join(lines[:step]))
    shutil.rmtree(workdir / "export")


@pytest.fixture(scope="module")
def codec(records, tmp_path_factory):
    """A run of stage codec. The decoder of a fresh codec turns constant predictions into infinite gradients."""
    workdir = tmp_path_factory.mktemp("codec")
    train(small_config(records, "codec", total_steps=40, learning_rate=1e-2, warmup_steps=1, checkpoint_every=100),
          workdir)
    return workdir


@pytest.fixture(scope="module")
def stage_one(records, codec, tmp_path_factory):
    """An uninterrupted run of stage 1. It saves every fourth step and keeps every eighth."""
    workdir = tmp_path_factory.mktemp("stage1")
    subprocess.run(command(records, workdir, 1, f"--config.init_from={codec}", "--config.keep_last=1",
                           "--config.keep_every=8"), check=True)
    return workdir


@pytest.fixture(scope="module")
def stage_two(records, stage_one, tmp_path_factory):
    """An uninterrupted run of stage 2 that starts from `stage_one`."""
    workdir = tmp_path_factory.mktemp("stage2")
    subprocess.run(command(records, workdir, 2, f"--config.init_from={stage_one}"), check=True)
    return workdir


@pytest.mark.parametrize("stage", ["1", pytest.param("2", marks=pytest.mark.slow)])
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
    assert first["marks"] == kills, "the run restarted from step 0"
    assert sorted(losses(whole)) == list(range(1, STEPS + 1))
    a, b = (load_checkpoint(folder / "export").params for folder in (tmp_path, whole))
    assert all(np.array_equal(a[path], b[path]) for path in b)


@pytest.mark.slow
def test_stage_two_trains_the_motion_modules_only(stage_one, stage_two):
    before, after = (load_checkpoint(folder / "export").params for folder in (stage_one, stage_two))
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    assert moved and all("motion_module" in path for path in moved)


def test_checkpoints_of_multiples_are_kept(stage_one):
    assert sorted(int(path.name) for path in (stage_one / "checkpoints").iterdir()) == [8, 16, STEPS]


@pytest.mark.slow
def test_a_damaged_checkpoint_is_ignored_and_the_one_before_is_used(records, codec, stage_one, tmp_path):
    """One checkpoint is incomplete and another one lost data: the run resumes from step 8."""
    stopped_at(16, stage_one, tmp_path)
    folder = tmp_path / "checkpoints"
    (folder / "20.orbax-checkpoint-tmp-1").mkdir()
    for path in (folder / "16" / "state").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:100])
    done = subprocess.run(command(records, tmp_path, 1, f"--config.init_from={codec}"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "20.orbax-checkpoint-tmp-1 is incomplete (the run was killed while saving) and is ignored" in done.stderr
    assert "the checkpoint of step 16 cannot be read and is ignored" in done.stderr
    assert losses(tmp_path) == losses(stage_one)
    assert sorted(path.name for path in folder.iterdir()) == ["16", "20"]


FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from durian_jax.commands.main import main
main(sys.argv[2:])
"""


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before(records, codec, stage_one, tmp_path):
    """A limit on the size of files, which checkpoints exceed, stands for the full disk."""
    stopped_at(8, stage_one, tmp_path)
    size = max(path.stat().st_size for path in (tmp_path / "checkpoints").rglob("*") if path.is_file())
    again = command(records, tmp_path, 1, f"--config.init_from={codec}")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(size // 2), *again[3:]], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    progress = ("stage 1:", "compiling ", "durian: compiled ", "durian: found ")
    *others, last = [line for line in done.stderr.splitlines() if not line.startswith(progress)]
    assert last == ("durian: error: the checkpoint of step 12 could not be written: the disk is full, or a quota is "
                    "used up; free some space. The checkpoint of step 8 is complete, and the same command resumes from "
                    "it")
    assert all(line.startswith("durian: warning: ") for line in others) and len(others) < 10, others
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["8"]
    subprocess.run(again, check=True)
    assert losses(tmp_path) == losses(stage_one)


def test_a_larger_total_continues_the_run(records, stage_one, tmp_path):
    stopped_at(STEPS, stage_one, tmp_path)
    # A run that goes on does not need what it started from.
    train(small_config(records, init_from=str(tmp_path / "deleted"), total_steps=STEPS + 2), tmp_path)
    assert sorted(losses(tmp_path)) == list(range(1, STEPS + 3))
    assert {step: losses(tmp_path)[step] for step in losses(stage_one)} == losses(stage_one)


def test_the_codec_learns(codec):
    values = list(losses(codec).values())
    assert np.mean(values[-5:]) < 0.7 * np.mean(values[:5])


def test_stages_train_what_they_should(records, codec, stage_one, tmp_path):
    """The decoder learns from the pixel loss in stage joint only. The stage is refused without that loss."""
    config = small_config(records, "joint", init_from=str(codec), total_steps=4, decay_steps=0, checkpoint_every=100,
                          **{"objective.pixel_weight": 30.0})
    train(config, tmp_path)
    run = RunConfig.read(config)
    before = load_checkpoint(codec / "export").params
    for stage, folder in (("1", stage_one), ("joint", tmp_path)):
        after = load_checkpoint(folder / "export").params
        moved = {path for path in before if not np.array_equal(before[path], after[path])}
        expected = set(split(before, run.stages[stage].trains)[0])
        assert moved <= expected and len(moved) > 0.9 * len(expected), stage
        assert {path.split("/")[0] for path in moved} == {path.split("/")[0] for path in expected}, stage
    config.objective.pixel_weight = 0.0
    with pytest.raises(InputError, match="pixel_weight must not be 0"):
        RunConfig.read(config)


def test_stage_joint2_trains_the_decoder_on_clips(records, codec, tmp_path):
    """A model whose decoder has temporal convolutions starts from one without."""
    config = small_config(records, "joint2", init_from=str(codec), init_fresh="_temporal_", total_steps=4,
                          decay_steps=0, checkpoint_every=100, **{
                              "objective.pixel_weight": 30.0, "objective.change_weight": 10.0,
                              "model.codec.temporal_kernel": 3, "sampling.noise": "clip"})
    train(config, tmp_path)
    before, after = load_checkpoint(codec / "export").params, load_checkpoint(tmp_path / "export").params
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    assert moved and all("motion_module" in path or path.startswith("codec/decoder/") for path in moved)
    assert {path.split("/")[0] for path in moved} == {"denoiser", "codec"}
    fresh = {path: x for path, x in after.items() if path not in before}
    assert fresh and all("_temporal_" in path for path in fresh)
    assert all(np.abs(x).max() > 0 for path, x in fresh.items() if path.endswith("conv/kernel")), "they start at zero"
    assert load_checkpoint(tmp_path / "export").sampling.noise == "clip"
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines and all(line["change"] > 0 for line in lines)


def test_a_loss_that_is_not_finite_stops_the_run():
    with pytest.raises(InputError, match="steps 11 and 20.*step 10"):
        check_finite("loss", float("nan"), 10, 20, 10)


@pytest.mark.parametrize(("outcome", "advice"), [
    (np.nan, "loss is nan between steps 1 and 1; there is no checkpoint yet"),
    ("RESOURCE_EXHAUSTED: Out of memory", "more memory than a device has.*Out of memory.*fewer clips")])
def test_a_failed_step_ends_the_run(outcome, advice, records, tmp_path, monkeypatch):
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


def test_samples_that_need_too_much_memory_are_skipped(records, tmp_path, monkeypatch, capsys):
    def exhausted(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating")
    run = RunConfig.read(small_config(records))
    draw = lambda params: loop._draw_samples(tmp_path, 500, run, Checkpoint(run.model, run.objective, params), {},
                                             metrics=None)
    draw({"x": SimpleNamespace(astype=exhausted)})
    monkeypatch.setattr(loop, "sample_sheet", exhausted)
    draw({})
    line = "no samples at step 500, training continues: RESOURCE_EXHAUSTED: Out of memory\n"
    assert capsys.readouterr().err.count(line) == 2
    assert not (tmp_path / "samples").exists()


def test_a_run_that_never_started_leaves_nothing(records, tmp_path):
    """A corrected command may use the same workdir with another model."""
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    for config, message in [
            (small_config(""), "no training clips"),
            (small_config(records, init_from=str(tmp_path / "empty")), "no complete checkpoint yet"),
            (small_config(records, init_from="tiny"), "tiny is of another model than the config"),
            (small_config(records, init_fresh=""), "stage 1 needs a trained autoencoder"),
            (small_config(records, **{"mesh.data": 3}), "mesh: expected sizes whose product")]:
        with pytest.raises(InputError, match=message):
            train(config, tmp_path / "run" / "one")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_another_model_in_the_same_workdir_is_refused(records, stage_one):
    with pytest.raises(InputError, match=r"holds a run with another model: unet.channels \(32,\) instead of \(48,\); "):
        train(small_config(records, **{"model.unet.channels": (48,)}), stage_one)
    message = "another model, seed: model.mask_channel True instead of False; seed 0 instead"
    with pytest.raises(InputError, match=message):
        train(small_config(records, seed=3, **{"model.mask_channel": False}), stage_one)


@pytest.fixture
def old_workdir(tmp_path):
    """The folder of a run of stage 1 of preset tiny, with the config.json that version 0.1 wrote."""
    shutil.copyfile(Path(__file__).with_name("config-0.1.json"), tmp_path / "config.json")
    return tmp_path


def test_a_run_of_version_0_1_resumes(old_workdir):
    """Its config.json has no family, no sampling, and fewer fields of the objective."""
    values = json.loads((old_workdir / "config.json").read_text())
    assert not {"family", "sampling"} & set(values) and "min_snr" not in values["objective"]
    check_same_run(old_workdir, RunConfig.read(get_config("tiny,stage=1")))


@pytest.mark.parametrize(("changes", "message"), [
    ({"seed": 3}, "another seed: 0 instead of 3"), ({"objective.min_snr": 5.0}, "another objective"),
    ({"objective.time_shift": 2.0}, "another objective"), ({"model.mask_channel": False}, "another model"),
    ({"batch_size": 4}, "another batch_size")])
def test_a_changed_run_of_version_0_1_is_refused(changes, message, old_workdir):
    with pytest.raises(InputError, match=message):
        check_same_run(old_workdir, RunConfig.read(changed(get_config("tiny,stage=1"), changes)))
    check_same_run(old_workdir, RunConfig.read(changed(get_config("tiny,stage=1"), {"total_steps": 99})))


@pytest.mark.parametrize(("text", "message"), [
    ("{", "config.json is damaged"), ("[]", "config.json is damaged"),
    ('{"model": {}}', "config.json: stage: expected this field, found none"),
    ('{"family": "unknown"}', "config.json: model: expected this field, found none")])
def test_a_damaged_config_of_a_run_is_refused(text, message, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=message):
        check_same_run(tmp_path, RunConfig.read(get_config("tiny,stage=1")))
