"""The reenactment benchmark measures what it says, on results whose scores are known."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.model_card import with_figures
from durian_jax.checkpoints import SHIPPED
from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.diffusion import Objective, Sampling
from durian_jax.errors import InputError
from durian_jax.evaluation import reenactment
from durian_jax.evaluation.reenactment import (
    LONG_KEYS,
    SUMMARY_KEYS,
    jittered,
    measure,
    occluded,
    reenactment_case,
    robustness_systems,
    score,
    score_long,
    unchanged,
)
from durian_jax.evaluation.reenactment_report import evaluate_reenactment, table
from durian_jax.inference.animator import Animator
from durian_jax.synthetic import render, sample_motion, sample_person, still
from durian_jax.synthetic.readout import read_curve
from tests.helpers.models import random_params
from tests.helpers.svdp import tiny as tiny_svdp

SIZE = 64


@pytest.fixture(scope="module")
def case():
    """A case with open eyes whose driver wears glasses that the person does not wear."""
    found = next(case for case in (reenactment_case(index, 4, SIZE) for index in range(1, 60, 2))
                 if "leak_glasses" in case.leaks and case.motion.blink.max() < 0.3)
    assert "glasses" in found.driver_person.attributes and "glasses" not in found.person.attributes
    return found


def test_the_truth_is_the_person_in_the_drivers_motion(case):
    np.testing.assert_array_equal(case.truth.frames, render(case.person, case.motion, SIZE).frames)
    np.testing.assert_array_equal(case.driver.frames, render(case.driver_person, case.motion, SIZE).frames)
    assert len(case.source) == 1 and (case.source.frames[0] != case.truth.frames[0]).any()


def test_the_truth_is_perfect(case):
    scores = score(case, case.truth.frames)
    assert scores["psnr"] == scores["psnr_eyes"] == scores["psnr_mouth"] == 100
    assert all(scores[curve] < 0.05 for curve in ("gaze_x", "gaze_y", "blink", "mouth"))
    assert scores["leak_colour"] == scores["leak_shape"] == scores["leak_glasses"] == 0


@pytest.mark.parametrize("leak", ["leak_colour", "leak_shape", "leak_glasses"])
def test_a_full_leak_is_100_percent(case, leak):
    leaked = case.leaks[leak].astype(np.float32)
    assert score(case, case.leaks[leak])[leak] == pytest.approx(100)
    half = np.rint((leaked + case.truth.frames) / 2).astype(np.uint8)
    assert score(case, half)[leak] == pytest.approx(50, abs=2)


def test_leaks_of_cases_are_pooled_as_one_projection():
    """A driver who differs little makes the leak of a single case noise; it must not decide the mean."""
    rows = [{"leak_colour": 10.0, "leak_colour_weight": 5.0}, {"leak_colour": -300.0, "leak_colour_weight": 0.001},
            {"leak_colour": float("nan"), "leak_colour_weight": 0.0}]
    assert reenactment.summarize(rows, 3)["leak_colour"] == pytest.approx(10, abs=0.1)


def test_leaks_are_those_of_the_driver_and_of_a_stranger(case):
    driver, stranger = case.leaks["leak_colour"], case.leaks["leak_colour_stranger"]
    assert (driver != stranger).any()


@pytest.mark.parametrize("curve, value", [("gaze_x", 0.4), ("gaze_x", -0.7), ("blink", 0.6), ("mouth", 0.35)])
def test_curves_are_read_off_pictures(curve, value):
    """Between two values of the grid, to a tenth of its step."""
    person = sample_person("validation", 3).without("glasses", "hat", "hair", "beard")
    shown, neutral = still(**{curve: value}), still()
    picture = render(person, shown, 128)
    mask = np.ones((128, 128), bool)
    assert read_curve(person, neutral, curve, picture.frames[0], mask) == pytest.approx(value, abs=0.03)


def test_eyes_behind_glasses_are_also_left_out(case):
    dressed = replace(case, person=case.person.wear(glasses=case.driver_person))
    scores, bare = score(dressed, case.truth.frames), score(case, case.truth.frames)
    assert np.isnan([scores[name] for name in reenactment.BARE_KEYS]).all() and not np.isnan(scores["gaze_x"])
    assert all(bare[name] == bare[curve] for name, curve in reenactment.BARE_KEYS.items())


def test_long_videos_are_measured_at_joins_and_over_time():
    case = reenactment_case(2, 120, SIZE)
    truth = case.truth.frames
    perfect = score_long(case, truth, [16, 32])
    assert perfect["seam"] == pytest.approx(1) and perfect["drift_brightness"] == 0 and perfect["flicker"] == 0
    assert perfect["drift_psnr"] == 0
    darker = (truth * np.linspace(1, 0.8, len(truth))[:, None, None, None]).astype(np.uint8)
    assert 8 < score_long(case, darker, [16])["drift_brightness"] < 14
    assert score_long(case, darker, [16])["drift_psnr"] < -3
    jump = truth.copy()
    jump[16:] = np.clip(jump[16:].astype(int) + 20, 0, 255)
    assert score_long(case, jump, [16])["seam"] > 2
    noisy = np.clip(truth + np.random.default_rng(0).integers(-8, 9, truth.shape), 0, 255).astype(np.uint8)
    assert 4 < score_long(case, noisy, [16])["flicker"] < 7
    assert np.isnan(score_long(replace(case, truth=case.truth[:20]), truth[:20], [])["seam"])


def test_a_summary_has_every_key_with_its_interval():
    cases = [reenactment_case(index, 2, SIZE) for index in range(2)]
    measured = measure(unchanged, cases, [reenactment_case(2, 20, SIZE)], segment=16, keep=1)
    assert measured.summary["cases"] == 2 and len(measured.scores) == 3 and len(measured.examples) == 1
    for key in SUMMARY_KEYS:
        assert key in measured.summary and len(measured.summary[f"{key}_ci95"]) == 2
    low, high = measured.summary["psnr_ci95"]
    assert low < measured.summary["psnr"] < high < 40
    assert measured.summary["flicker"] == 0  # it stands still
    assert not set(LONG_KEYS) & set(measured.scores[0])
    text = table({"unchanged": measured.summary})
    assert len(text.splitlines()) == 2 and f"{measured.summary['psnr']:.2f}" in text


def test_robustness_is_measured_with_other_regions_and_scales():
    model = tiny_svdp()
    animator = Animator(Checkpoint(model, Objective(schedule="flow", prediction="sample"), random_params(model)))
    systems = robustness_systems(animator, Sampling())
    assert {"all regions", "only eyes", "only nose and mouth", "mouth hidden", "regions shifted by up to 2 px",
            "source scale 2", "driving scale 0.5"} <= systems.keys() and not any("history" in name for name in systems)
    case = reenactment_case(0, 3, 32)
    whole = systems["all regions"](case)
    for name in ("only mouth", "eyes hidden", "regions shifted by up to 4 px", "source scale 1.5"):
        assert (systems[name](case) != whole).any(), name


def test_robustness_of_a_model_without_regions_is_refused_at_once(monkeypatch):
    monkeypatch.setattr(reenactment, "reenactment_case", None)
    with pytest.raises(InputError, match="--robustness: expected a model driven by pixels of the video, found one "
                                         "driven by keypoints"):
        evaluate_reenactment("tiny", cases=1, frames=2, robustness=True)


def test_disturbed_cases_change_what_the_model_sees(case):
    moved = jittered(case, 4)
    shift = (moved.driver.keypoints - case.driver.keypoints)[..., :2] * SIZE
    assert 1 < np.abs(shift).max() <= 4
    np.testing.assert_allclose(shift, np.broadcast_to(shift[:, :1], shift.shape), atol=1e-4)
    np.testing.assert_array_equal(moved.driver.frames, case.driver.frames)
    hidden = occluded(case, "mouth")
    changed = (hidden.driver.frames != case.driver.frames).any(-1)
    assert changed.any() and (hidden.truth.frames == case.truth.frames).all()


def test_motions_of_photos_are_no_motions_of_cases():
    photo = sample_motion(reenactment.SPLIT, reenactment._PHOTO_MOTIONS, 1)
    assert all(photo.yaw[0] != sample_motion(reenactment.SPLIT, index, 1).yaw[0] for index in range(50))


# --- the shipped checkpoint -----------------------------------------------------------------------------------

def shipped_figures() -> dict:
    return json.loads((SHIPPED / "svdp-tiny" / "figures.json").read_text())


def test_the_shipped_summary_follows_from_its_cases():
    figures = shipped_figures()
    recomputed = reenactment.summarize(figures["scores"], figures["settings"]["cases"])
    assert figures["summary"]["cases"] >= 20 and figures["settings"]["checkpoint"] == "svdp-tiny"
    for key in SUMMARY_KEYS:
        assert figures["summary"][key] == pytest.approx(recomputed[key], nan_ok=True), key


def test_the_model_card_shows_the_shipped_figures():
    card = (SHIPPED / "svdp-tiny" / "README.md").read_text()
    assert with_figures(card, shipped_figures()) == card
    short = with_figures("# Card\n\n## Figures\n\nold\n\n## Limits\n\n- few\n", shipped_figures())
    assert short.startswith("# Card\n\n## Figures\n\n`durian evaluate") and "old" not in short
    assert short.endswith("\n\n## Limits\n\n- few\n") and f"| {shipped_figures()['summary']['psnr']:.2f} ±" in short


def test_the_shipped_checkpoint_follows_the_driver():
    """Better than the shipped model that is driven by keypoints; seams and drift are at their targets."""
    summary, other = shipped_figures()["summary"], shipped_figures()["baselines"]["keypoints"]
    assert summary["seam"] <= 1.1 and summary["drift_brightness"] <= 1 and summary["drift_psnr"] >= -0.3
    for key in ("psnr", "psnr_eyes", "psnr_mouth"):
        assert summary[key] > other[key] + 3, key
    for key in ("gaze_x", "gaze_y", "blink", "mouth"):
        assert summary[key] < other[key], key


def test_the_shipped_checkpoint_is_small():
    sizes = {path.name: path.stat().st_size for path in (SHIPPED / "svdp-tiny").iterdir()}
    assert {"config.json", "model.safetensors", "README.md", "figures.json"} == set(sizes)
    assert sum(sizes.values()) <= 24_000_000


@pytest.mark.slow
def test_the_shipped_checkpoint_reproduces_its_scores(tmp_path):
    """The first cases of the model card keep their scores. Long videos are cut to 24 frames to save time."""
    then = shipped_figures()
    # The other tests compile with few optimizations; the recorded scores come from full optimization.
    environment = {key: value for key, value in os.environ.items() if key != "JAX_DISABLE_MOST_OPTIMIZATIONS"}
    code = ("import sys; from durian_jax.evaluation import reenactment, reenactment_report; "
            "reenactment.LONG_FRAMES = 24; "
            "reenactment_report.evaluate_reenactment('svdp-tiny', cases=2, frames=8, json_path=sys.argv[1])")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "now.json")], check=True, env=environment)
    now = json.loads((tmp_path / "now.json").read_text())
    assert len(now["scores"]) >= 2
    for ours, theirs in zip(now["scores"][:2], then["scores"], strict=False):
        for key in ("psnr", "psnr_eyes", "psnr_mouth"):
            assert ours[key] == pytest.approx(theirs[key], abs=0.1), key
