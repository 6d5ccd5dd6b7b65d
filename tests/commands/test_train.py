"""`durian train`."""

import pytest

from durian_jax.training import loop
from tests.commands.runner import durian


@pytest.fixture
def given(monkeypatch):
    """The arguments of every call of `train`, which does nothing."""
    calls = []
    monkeypatch.setattr(loop, "train", lambda *arguments: calls.append(arguments) or True)
    return calls


@pytest.mark.parametrize("config", ["tiny,stage=1", "durian:tiny,stage=1", "configs/durian.py:tiny,stage=1"])
def test_options_and_overrides_are_passed_on(given, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = durian("train", f"--config={config}", "--workdir=runs/a", "--config.total_steps=8", "--profile=2:3",
                    "--config.init_fresh=codec/")
    assert result.exit_code == 0, result.output
    ((settings, workdir, profile),) = given
    assert (settings.stage, settings.total_steps, workdir, profile) == ("1", 8, "runs/a", (2, 3))
    assert "runs/a/export holds the averaged weights" in result.output


def test_a_run_that_was_stopped_says_so(monkeypatch):
    monkeypatch.setattr(loop, "train", lambda *_: False)
    assert "asked to stop (SIGTERM): saved" in durian("train", "--config=tiny,stage=codec", "--workdir=runs/a").output


def test_it_explains_itself_without_arguments(given):
    assert "metrics.jsonl" in durian("train").output and not given


@pytest.mark.parametrize(("arguments", "message"), [
    (["--config=configs/nope.py:tiny"], "configs/nope.py"),
    (["--config=tinny,stage=1"],
     "no such preset; the presets are durian: tiny, sd15; svdp: tiny, sd35m; did you mean tiny?"),
    (["--config=tiny,stage=1", "--config.totl_steps=8"],
     "the config has no field totl_steps; did you mean total_steps?"),
    (["--config=tiny,stage=1", "--profile=10"], "--profile=10: expected the first and the last step to trace"),
    (["--config=tiny,stage=1", "--profile=5:2"], "--profile=5:2: expected the first and the last step to trace"),
    (["--config=tiny,stage=1"], "stage 1 needs a trained autoencoder (codec), found a fresh one"),
    (["--config=svdp:tiny,stage=video"], "stage video needs a trained autoencoder (codec), found a fresh one"),
    ([], "--config: expected a training config, found none"),
])
def test_mistakes_are_named(given, arguments, message, tmp_path):
    result = durian("train", *arguments, f"--workdir={tmp_path}/run")
    assert result.exit_code == 2 and message in result.stderr and not given
    assert result.stderr.startswith("durian: error: ") and result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
