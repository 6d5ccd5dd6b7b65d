"""`durian evaluate` with a stand-in model, and the recorded scores of the shipped checkpoint."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest

from durian_jax.checkpoints import SHIPPED
from durian_jax.diffusion.sampling import Sampling
from durian_jax.errors import InputError
from durian_jax.evaluation import report, transfer
from durian_jax.evaluation.transfer import summarize
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.video import read_image
from tests.helpers.evaluation import SIZE, record_clips, use_blank_model


@pytest.fixture
def batches(monkeypatch):
    return use_blank_model(monkeypatch, report)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    record_clips(folder)
    return folder


def test_evaluate_writes_summary_and_sheet(batches, tmp_path):
    text = report.evaluate_checkpoint("blank", cases=3, frames=2, json_path=tmp_path / "x.json",
                                      sampling=Sampling(steps=5, seed=4), sheet_path=tmp_path / "x.png", sheet_cases=1)
    content = json.loads((tmp_path / "x.json").read_text())
    assert asdict(Sampling(steps=5, seed=4)).items() <= content["settings"].items()
    assert content["summary"]["hat"]["cases"] == 3 and len(content["scores"]["hat"]) == 3
    assert content["summary"]["hat"]["psnr"] == pytest.approx(
        np.mean([case["psnr"] for case in content["scores"]["hat"]]))
    assert content["summary"]["mean"]["psnr_region"] < content["summary"]["mean"]["paste_psnr_region"]
    lines = text.splitlines()
    assert len(lines) == 3 * 6 + 2 and all(lines[5 + 7 * i].startswith("mean") for i in range(3))
    # Nobody wears two hats, so a new hat replaces none.
    assert content["summary"]["hat"]["psnr_removed"] is None and content["summary"]["mean"]["psnr_removed"] > 0
    # The blank model does not move, but the truth does.
    assert content["summary"]["mean"]["still"] == 0 < content["summary"]["mean"]["tde"]
    assert (tmp_path / "x.png").exists()
    assert all(shapes["keypoints"][0] == 12 for shapes in batches)


def test_evaluate_runs_suites_and_keeps_examples(batches, tmp_path):
    text = report.evaluate_checkpoint("blank", suites="pairs,light", cases=2, frames=2, json_path=tmp_path / "x.json",
                                      sheet_path=tmp_path / "x.png", sheet_cases=1, examples=tmp_path / "pictures",
                                      example_cases=1)
    content = json.loads((tmp_path / "x.json").read_text())
    assert content["settings"]["benchmark"] == "suites" and content["settings"]["suites"] == ["light", "pairs"]
    assert [*content["suites"]] == ["light", "pairs"] and "scores" not in content
    assert "light: the attribute photo is lit" in text and "hair + glasses" in text and "1: alone" in text
    # One batch shape per suite. A pair is sampled together and alone.
    assert {shapes["attributes"][:2] for shapes in batches} == {(14, 1), (16, 2)}
    kept = content["examples"]["cases"]
    assert content["examples"]["folder"] == "pictures" and sorted(kept["light"]["darker"]) == [0, 1]
    assert len([*(tmp_path / "pictures").iterdir()]) == 3 * 2 * (7 + 6)
    assert read_image(tmp_path / "pictures" / "pairs_hair_glasses_0001_result.png").shape == (2 * SIZE, 2 * SIZE, 3)
    assert read_image(tmp_path / "pictures" / "pairs_hair_glasses_0001_inputs.png").shape == (SIZE, 4 * SIZE, 3)


@pytest.mark.parametrize(("options", "message"), [
    ({"suites": "pose,nothing"}, "--suite nothing: expected all, or some of extent"),
    ({"suites": "pose", "benchmark": "reenactment"}, "--suite: expected no --benchmark reenactment"),
    ({"examples": "x"}, "--examples: expected also --json"),
    ({"suites": "long", "frames": 7}, "--frames 7: expected at most 6 frames"),
])
def test_settings_that_do_not_fit_are_refused(batches, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        report.evaluate_checkpoint("blank", **options)
    assert not batches


def test_evaluate_reconstructs_recorded_clips(batches, recorded, tmp_path):
    report.evaluate_checkpoint("blank", benchmark="reconstruction", clips=recorded, cases=2, frames=3,
                               json_path=tmp_path / "x.json", sheet_path=tmp_path / "x.png")
    content = json.loads((tmp_path / "x.json").read_text())
    assert content["settings"]["clips"] == str(recorded)
    assert 0 < content["summary"]["hair"]["l1"] < content["summary"]["hair"]["psnr"] and (tmp_path / "x.png").exists()


@pytest.mark.slow
def test_the_shipped_checkpoint_reproduces_its_scores(tmp_path):
    """Recompute the first cases of the model card with the command line."""
    then = json.loads((SHIPPED / "tiny" / "figures.json").read_text())
    # The other tests compile with few optimizations; the recorded scores come from full optimization.
    environment = {key: value for key, value in os.environ.items() if key != "JAX_DISABLE_MOST_OPTIMIZATIONS"}
    subprocess.run([sys.executable, "-m", "durian_jax", "evaluate", "--checkpoint", "tiny", "--cases", "4",
                    "--json", str(tmp_path / "now.json")], check=True, env=environment)
    now = json.loads((tmp_path / "now.json").read_text())
    for key in ("benchmark", "frames", "size", *asdict(Sampling())):
        assert now["settings"][key] == then["settings"][key], key
    for kind in ATTRIBUTE_KINDS:
        assert len(now["scores"][kind]) == 4
        for case, (ours, theirs) in enumerate(zip(now["scores"][kind], then["scores"][kind], strict=False)):
            for key in transfer.SUMMARY_KEYS:
                # Rounding differs between processors, and sampling amplifies the difference.
                tolerance = 0.1 if "psnr" in key else 0.01
                assert ours[key] == pytest.approx(theirs[key], abs=tolerance), (kind, case, key)


def test_the_shipped_summary_follows_from_its_cases():
    figures = json.loads((SHIPPED / "tiny" / "figures.json").read_text())
    summary = figures["summary"]
    assert all(summary[kind]["cases"] >= 64 for kind in ATTRIBUTE_KINDS) and figures["settings"]["steps"] <= 20
    recomputed = summarize(figures["scores"])
    for kind in summary:
        for key in transfer.SUMMARY_KEYS:
            stored = np.nan if summary[kind][key] is None else summary[kind][key]
            assert stored == pytest.approx(recomputed[kind][key], nan_ok=True), (kind, key)


def test_the_shipped_checkpoint_is_sharp_and_beats_pasting():
    summary = json.loads((SHIPPED / "tiny" / "figures.json").read_text())["summary"]
    assert summary["mean"]["ssim"] >= 0.75 and 0.7 <= summary["mean"]["sharpness"] <= 1.2
    for kind in ATTRIBUTE_KINDS:
        assert summary[kind]["psnr_region"] >= summary[kind]["paste_psnr_region"] + 2, kind
        assert summary[kind]["psnr_region"] >= summary[kind]["paste_moving_psnr_region"], kind


def test_the_shipped_checkpoint_reaches_the_targets():
    mean = json.loads((SHIPPED / "tiny" / "figures.json").read_text())["summary"]["mean"]
    assert mean["psnr"] >= 22 and mean["psnr_region"] >= 19


def test_the_shipped_checkpoint_is_small():
    sizes = {path.name: path.stat().st_size for path in (SHIPPED / "tiny").rglob("*") if path.is_file()}
    assert {"config.json", "model.safetensors", "README.md", "figures.json"} <= set(sizes)
    assert sum(sizes.values()) <= 24_000_000
