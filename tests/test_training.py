"""Training: stages train what they should, and a killed run goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from configs.durian import get_config
from durian_jax.data import synthesize
from durian_jax.errors import InputError
from durian_jax.training.loop import initial_params, train, validate
from durian_jax.weights import load_checkpoint

STEPS = 30
SMALL = [
    "--config.source.synthetic_clips=0", "--config.model.image_size=32", "--config.model.unet.channels=(16,32)",
    "--config.model.unet.attention=(False,True)", "--config.model.codec.encoder_channels=(8,8)",
    "--config.model.codec.decoder_channels=(8,8)", "--config.model.codec.latent_channels=4",
    "--config.model.keypoint_channels=(8,)", "--config.model.temporal_heads=2", "--config.batch_size=2",
    "--config.data.frames=2", "--config.log_every=1", "--config.checkpoint_every=4", "--config.sample_every=0",
    f"--config.total_steps={STEPS}", "--config.decay_steps=5", "--config.warmup_steps=5",
]


@pytest.fixture(scope="session")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    synthesize(folder, "train", 12, 4, 32, workers=0)
    return folder


def command(records, workdir, stage, *more):
    return [sys.executable, "-m", "durian_jax.cli", "train", f"--config=configs/durian.py:tiny,stage={stage}",
            f"--workdir={workdir}", f"--config.source.records={records}", *SMALL, *more]


def small_config(records, stage="1"):
    config = get_config(f"tiny,stage={stage}")
    for option in SMALL:
        name, value = option.removeprefix("--config.").split("=")
        *path, last = name.split(".")
        target = config
        for part in path:
            target = target[part]
        target[last] = json.loads(value.replace("(", "[").replace(",)", "]").replace(")", "]")
                                  .replace("False", "false").replace("True", "true"))
        if isinstance(target[last], list):
            target[last] = tuple(target[last])
    config.source.records = str(records)
    return config


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


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


@pytest.fixture(scope="session")
def stage_one(records, tmp_path_factory):
    """An uninterrupted run of stage 1."""
    workdir = tmp_path_factory.mktemp("stage1")
    subprocess.run(command(records, workdir, 1), check=True)
    return workdir


@pytest.fixture(scope="session")
def stage_two(records, stage_one, tmp_path_factory):
    """An uninterrupted run of stage 2 on top of it."""
    workdir = tmp_path_factory.mktemp("stage2")
    subprocess.run(command(records, workdir, 2, f"--config.init_from={stage_one}"), check=True)
    return workdir


@pytest.mark.parametrize("stage", ["1", "2"])
def test_a_killed_run_repeats_the_losses(stage, records, stage_one, stage_two, tmp_path):
    whole = {"1": stage_one, "2": stage_two}[stage]
    arguments = command(records, tmp_path, stage, *([f"--config.init_from={stage_one}"] if stage == "2" else []))
    kill_after(subprocess.Popen(arguments), tmp_path, lines=10)
    kill_after(subprocess.Popen(arguments), tmp_path, lines=STEPS - 8)
    subprocess.run(arguments, check=True)
    assert losses(tmp_path) == losses(whole)
    assert sorted(losses(whole)) == list(range(1, STEPS + 1))
    a, b = (load_checkpoint(folder / "export").params for folder in (tmp_path, whole))
    assert all(np.array_equal(a[path], b[path]) for path in b)


def test_stage_two_trains_the_motion_modules_only(stage_one, stage_two):
    before, after = (load_checkpoint(folder / "export").params for folder in (stage_one, stage_two))
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert changed and all("motion_module" in path for path in changed)


def test_a_larger_total_goes_on(records, tmp_path):
    config = small_config(records)
    config.total_steps, config.decay_steps = 3, 0
    train(config, tmp_path)
    first = losses(tmp_path)
    config.total_steps = 5
    train(config, tmp_path)
    assert sorted(losses(tmp_path)) == [1, 2, 3, 4, 5]
    assert {step: losses(tmp_path)[step] for step in first} == first


def test_the_codec_learns(records, tmp_path):
    config = small_config(records, "codec")
    config.total_steps, config.learning_rate, config.warmup_steps, config.checkpoint_every = 40, 1e-2, 1, 100
    train(config, tmp_path)
    values = list(losses(tmp_path).values())
    assert np.mean(values[-5:]) < 0.7 * np.mean(values[:5])


def test_bad_configs_are_refused_before_anything_is_built(records, tmp_path):
    config = small_config(records)
    config.stage = "3"
    with pytest.raises(InputError, match="unknown stage '3'"):
        validate(config)
    config = small_config(records)
    config.total_steps = 0
    with pytest.raises(InputError, match="total_steps must be at least 1"):
        validate(config)
    config = small_config(records, "2")
    config.data.frames = 99
    with pytest.raises(InputError, match="max_frames"):
        validate(config)
    config = small_config(records)
    config.source.records = ""
    with pytest.raises(InputError, match="no training clips"):
        train(config, tmp_path / "a")


def test_another_model_in_the_same_workdir_is_refused(records, stage_one):
    config = small_config(records)
    config.model.unet.channels = (16, 48)
    with pytest.raises(InputError, match="another model"):
        train(config, stage_one)


def test_weights_that_do_not_fit_are_listed(records, stage_one):
    config = small_config(records)
    config.model.unet.channels = (24, 32)
    config.init_from = str(stage_one)
    with pytest.raises(InputError, match="denoiser/conv_in/kernel has shape"):
        initial_params(config, validate(config)[0])
