"""Suites: their cases ask what they say, and both families run them."""

import numpy as np
import pytest

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.diffusion import Objective
from durian_jax.errors import InputError
from durian_jax.evaluation import transfer
from durian_jax.evaluation.columns import SUITES, suite_names
from durian_jax.evaluation.suites.compositions import drops
from durian_jax.evaluation.suites.conditions import LIGHTS, MASKS, POSE_BINS, with_other_mask
from durian_jax.evaluation.suites.long_video import seam_and_drift
from durian_jax.evaluation.suites.question import PEOPLE, first_person
from durian_jax.evaluation.suites.removal import left_over, removal
from durian_jax.evaluation.suites.run import BUILDERS, run_suite
from durian_jax.evaluation.transfer import SUMMARY_KEYS, transfer_case
from durian_jax.faces.pose import head_pose
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from tests.helpers.exports import random_checkpoint
from tests.helpers.models import TINY, random_params
from tests.helpers.svdp import tiny

SIZE = 48


def questions(name, count=1, frames=1, size=SIZE):
    """Row -> questions of a suite."""
    rows = BUILDERS[name].rows(count, frames, size, "validation")
    return {row: [make() for make in makers] for row, makers in rows.items()}


def test_every_suite_has_a_table_and_names_are_checked():
    assert {*SUITES} == {*BUILDERS}
    assert suite_names("all") == tuple(SUITES) and suite_names(" triples,extent") == ("extent", "triples")
    for wrong in ("", "pose,", "poses", []):
        with pytest.raises(InputError, match="expected all, or some of extent, pose"):
            suite_names(wrong)


def test_no_two_cases_share_people():
    numbers = [first_person(name, index, row) for name in SUITES for index in (0, 1, 500) for row in (0, 1, 15)]
    gaps = np.diff(sorted(numbers))
    assert len({*numbers}) == len(numbers) and gaps.min() >= PEOPLE
    names = [case.portrait.identity for name in ("extent", "pose", "pairs", "triples", "long")
             for asked in questions(name, 2, size=16).values() for case in (question.case for question in asked)]
    assert len({*names}) == len(names)


def test_extents_differ_in_both_directions():
    for row, asked in questions("extent", 2).items():
        kind, direction = row.split()
        for question in asked:
            case = question.case
            ratio = question.measure(case.truth.frames, [])["extent"]
            assert ratio > 1.2 if direction == "larger" else ratio < 0.85, row
            ((given, _),) = case.attributes
            assert given == kind and case.portrait.mask(kind).any(), "the portrait wears its own"


def test_the_poses_of_a_row_differ_as_much_as_it_says():
    found = questions("pose", 4, frames=2)
    assert [*found] == [f"{low} to {high}°" for low, high in POSE_BINS]
    measured = []
    for (low, high), asked in zip(POSE_BINS, found.values(), strict=True):
        assert [question.case.attributes[0][0] for question in asked] == [*ATTRIBUTE_KINDS]
        for question in asked:
            assert low <= question.measure(question.case.truth.frames, [])["pose"] <= high
            clips = (question.case.portrait, question.case.attributes[0][1], question.case.driving)
            poses = [head_pose(clip.keypoints).mean(0) for clip in clips]
            measured.append(max(np.linalg.norm(a - b) for a in poses for b in poses))
    # Keypoints tell the same order.
    bins = np.reshape(measured, (len(POSE_BINS), -1)).mean(1)
    assert (np.diff(bins) > 5).all(), bins


def test_light_changes_the_attribute_photo_only():
    found = questions("light", 2)
    assert [*found] == [*LIGHTS]
    for index in range(2):
        first = found["as it is"][index].case
        for row in [*LIGHTS][1:]:
            question = found[row][index]
            for name in ("portrait", "driving", "truth"):
                np.testing.assert_array_equal(getattr(question.case, name).frames, getattr(first, name).frames)
            before, after = (case.attributes[0][1].frames.astype(int) for case in (first, question.case))
            assert np.abs(after - before).mean() > 3, row
            assert question.measure(first.truth.frames, [])["psnr_region_lit"] < 35, row
        red, _, blue = (found["warm"][index].case.attributes[0][1].frames.mean((0, 1, 2))
                        / first.attributes[0][1].frames.mean((0, 1, 2)))
        assert red > 1 > blue
        assert found["as it is"][index].measure(first.truth.frames, [])["psnr_region_lit"] == pytest.approx(100)


def test_masks_lose_and_gain_their_edge():
    found = questions("masks", 4, size=96)
    for index, kind in enumerate(ATTRIBUTE_KINDS):
        exact = found["exact"][index].case
        for row, (whose, share) in MASKS.items():
            case = found[row][index].case
            for name, now, before in (("attribute", case.attributes[0][1], exact.attributes[0][1]),
                                      ("portrait", case.portrait, exact.portrait)):
                a, b = now.mask(kind), before.mask(kind)
                expected = 1 + share * (whose == name)
                assert a.sum() == pytest.approx(expected * b.sum(), abs=1), row
                assert not (a & ~b).any() if expected < 1 else not (b & ~a).any()
                for other in ATTRIBUTE_KINDS:
                    if other != kind:
                        np.testing.assert_array_equal(now.mask(other), before.mask(other))


def test_a_mask_without_pixels_stays():
    photo = transfer_case("hair", 0, size=32).portrait
    assert not photo.mask("hat").any() and with_other_mask(photo, "hat", 0.15) is photo


def test_a_composition_is_compared_with_its_single_transfers():
    found = questions("pairs", size=64) | questions("triples", size=64)
    assert len(found) == 6 + 4
    for row, (question,) in found.items():
        case, alone = question.case, question.alone
        kinds = [kind for kind, _ in case.attributes]
        assert row == " + ".join(kinds) and [single.attributes[0][0] for single in alone] == kinds
        for (_, photo), single in zip(case.attributes, alone, strict=True):
            np.testing.assert_array_equal(single.attributes[0][1].frames, photo.frames)
            np.testing.assert_array_equal(single.portrait.frames, case.portrait.frames)
        perfect = question.measure(case.truth.frames, [single.truth.frames for single in alone])
        assert perfect["drop"] == 0 and perfect["together_1"] == perfect["alone_2"] == pytest.approx(100)
    # An error in the region of one attribute of the composition is its drop alone.
    (question,) = found["glasses + beard"]
    result = question.case.truth.frames.copy()
    result[question.case.truth.mask("beard")] ^= 64
    scores = drops(question.case, question.alone, result, [single.truth.frames for single in question.alone])
    assert scores["drop_1"] == 0 and scores["drop_2"] > 50 and scores["drop"] == pytest.approx(scores["drop_2"] / 2)


def test_removal_takes_the_own_attribute_away():
    for kind in ATTRIBUTE_KINDS:
        question = removal(kind, 0, 2, 64, "validation")
        case = question.case
        assert case.attributes == ((kind, None),) and case.portrait.mask(kind).any() and case.removed.any()
        assert not case.truth.mask(kind).any()
        np.testing.assert_array_equal(case.attribute_region(), case.removed)
        assert question.measure(case.truth.frames, ())["left"] == 0
        assert transfer.moving_paste(case).shape == case.truth.frames.shape
        np.testing.assert_array_equal(transfer.paste(case), case.portrait.frames[0])


def test_left_over_counts_what_tells_old_and_new_apart():
    before, truth = np.zeros((1, 2, 4, 3), np.uint8), np.full((1, 2, 4, 3), 100, np.uint8)
    truth[0, 1] = 5  # hardly another colour
    everywhere = np.ones((1, 2, 4), bool)
    result = truth.copy()
    assert left_over(result, before, truth, everywhere) == 0
    result[0, 0, :1], result[0, 1] = 40, 0
    assert left_over(result, before, truth, everywhere) == 0.25
    assert left_over(before, before, truth, everywhere) == 1
    assert np.isnan(left_over(result, before, before, everywhere))


def test_seams_and_drift():
    rng = np.random.default_rng(0)
    truth = rng.integers(60, 190, (1, 8, 8, 3)).repeat(20, 0).astype(np.uint8)
    jump = truth.copy()
    jump[8:] += 12  # the second window is brighter
    for starts in ([0, 8, 12], [0, 6, 12]):  # windows of 8 frames: next to each other, or overlapping
        joins = sum(np.logical_or.reduce([(np.arange(1, 20) >= b) & (np.arange(1, 20) <= a + 8)
                                          for a, b in zip(starts, starts[1:], strict=False)]))
        found = seam_and_drift(jump, truth, starts)
        assert found["seam"] == pytest.approx(12 / joins) and found["drift"] < -60
    assert seam_and_drift(truth, truth, [0, 8, 12]) == {"seam": 0, "drift": 0}
    assert np.isnan([*seam_and_drift(truth, truth, [0]).values()]).all()


@pytest.mark.parametrize("name", [*SUITES])
def test_a_model_runs_every_suite(name):
    checkpoint = Checkpoint(TINY, Objective(), random_params())
    found = run_suite(checkpoint, name, 2, 2, "validation", keep=1, extremes=1, batch_size=4, progress=False)
    keys = {*SUMMARY_KEYS, *(column.key for column in SUITES[name].columns)}
    assert [*found.summary] == [*found.scores, "mean"] and {*found.scores} == {*found.extremes} == {*found.examples}
    for row, cases in found.scores.items():
        assert len(cases) == found.summary[row]["cases"] == 2 and all({*case} == keys for case in cases)
        assert len(found.examples[row]) == 1 and [kept.index for kept in found.extremes[row]] == [0, 1]
        for key in ("psnr", "psnr_region", *(column.key for column in SUITES[name].columns)):
            values = [case[key] for case in cases]
            if key == "drop" and row == BUILDERS[name].reference:
                assert np.isnan(values).all()
            elif not np.isnan(values).all():
                assert found.summary[row][key] == pytest.approx(np.nanmean(values))
    if (reference := BUILDERS[name].reference) is not None:
        for row, cases in found.scores.items():
            for exact, here in zip(found.scores[reference], cases, strict=True):
                assert row == reference or here["drop"] == exact["psnr_region"] - here["psnr_region"]
        mean, rows = found.summary["mean"], [*found.scores.values()]
        each = [np.mean([cases[n]["psnr"] for cases in rows]) for n in range(2)]
        half = (mean["psnr_ci95"][1] - mean["psnr_ci95"][0]) / 2
        assert mean["psnr"] == pytest.approx(np.mean(each))
        assert half == pytest.approx(12.706 * abs(each[1] - each[0]) / 2, rel=1e-3)  # Student's t, 1 degree of freedom
    if name == "long":
        (case, result), = found.examples["video"]
        assert len(result) == len(case.truth) == 16 and np.isfinite(found.scores["video"][0]["seam"])


@pytest.mark.parametrize("name", ["pairs", "long"])
def test_a_model_driven_by_pixels_runs_suites(name):
    found = run_suite(random_checkpoint(tiny(), Objective()), name, 1, 2, "validation", progress=False)
    own = [column.key for column in SUITES[name].columns]
    assert all(np.isfinite(case[key]) for cases in found.scores.values() for case in cases for key in own)
