"""The synthetic benchmark: its cases, baselines and summary."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from durian_jax.evaluation import demo, transfer
from durian_jax.evaluation.transfer import score, summarize, transfer_case
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.synthetic import sample_person
from tests.helpers.evaluation import SIZE


@pytest.mark.parametrize("kind", ATTRIBUTE_KINDS)
def test_the_truth_is_the_portrait_wearing_the_attribute(kind):
    case = transfer_case(kind, 3, frames=2, size=SIZE)
    assert [k for k, _ in case.attributes] == [kind]
    donor = case.attributes[0][1]
    assert case.truth.mask(kind).any() and donor.mask(kind).any()
    # Three different people; the truth shows the person of the portrait.
    names = {case.portrait.identity, donor.identity, case.driving.identity}
    assert len(names) == 3 and case.truth.identity == case.portrait.identity
    # The attribute has the donor's colours.
    worn = np.median(case.truth.frames[case.truth.mask(kind)], 0)
    assert np.abs(worn - np.median(donor.frames[donor.mask(kind)], 0)).max() < 30
    if kind in ("hair", "hat"):
        assert not case.portrait.mask("hat").any()
    if kind == "hair":
        assert not case.truth.mask("hat").any()
    again = transfer_case(kind, 3, frames=2, size=SIZE)
    np.testing.assert_array_equal(case.truth.frames, again.truth.frames)


def test_no_person_appears_in_two_cases():
    cases = [transfer_case(kinds, i, size=16) for i in range(3)
             for kinds in (*ATTRIBUTE_KINDS, *demo.COMPOSITIONS)]
    names = [clip.identity for case in cases
             for clip in (case.portrait, case.driving, *(photo for _, photo in case.attributes))]
    assert len(names) == len(set(names))
    train = {sample_person("train", i).identity for i in range(50)}
    assert not train & {sample_person("benchmark", i).identity for i in range(50)}


def test_a_composition_takes_each_attribute_from_another_person():
    case = transfer_case(("hair", "glasses"), 0, size=SIZE)
    assert [kind for kind, _ in case.attributes] == ["hair", "glasses"]
    assert case.truth.mask("hair").any() and case.truth.mask("glasses").any()
    np.testing.assert_array_equal(case.attribute_region(), case.truth.mask("hair") | case.truth.mask("glasses"))


def test_scores_of_the_truth_and_of_the_baselines():
    for kind in ATTRIBUTE_KINDS:
        case = transfer_case(kind, 0, frames=2, size=SIZE)
        best = score(case, case.truth.frames)
        assert set(best) == set(transfer.SUMMARY_KEYS)
        assert best["psnr"] == best["psnr_region"] == pytest.approx(100)
        assert best["ssim"] == best["sharpness"] == best["edge_gradient"] == pytest.approx(1)
        assert best["still"] < 0.5 and best["tde"] == 0
        assert best["paste_moving_psnr_region"] > best["unchanged_psnr_region"], kind
        still = score(case, np.repeat(case.portrait.frames, 2, 0))
        assert still["psnr"] == still["unchanged_psnr"]
        assert still["psnr_region"] == still["unchanged_psnr_region"]
        pasted = score(case, np.repeat(transfer.paste(case)[None], 2, 0))
        assert pasted["psnr_region"] == pasted["paste_psnr_region"]
        moved = score(case, transfer.moving_paste(case))
        assert moved["psnr_region"] == moved["paste_moving_psnr_region"]


def test_the_place_of_the_old_attribute_is_measured():
    """A result that keeps the old hair where the new hair ends scores low there, and only there."""
    case = next(case for case in (transfer_case("hair", i, frames=2, size=SIZE) for i in range(20))
                if case.removed.sum() > 40)
    assert not (case.removed & case.truth.mask("hair")).any()
    result = case.truth.frames.copy()
    result[case.removed] = 255 - result[case.removed]
    scores = score(case, result)
    assert scores["psnr_removed"] < 20 and scores["psnr_region"] == pytest.approx(100)
    assert not transfer_case("hat", 0, size=SIZE).removed.any(), "nobody wears two hats"


def test_the_moving_paste_follows_the_truth():
    """In its own pose and with its own attribute, the paste is nearly the portrait."""
    case = transfer_case("glasses", 1, size=SIZE)
    same = transfer.TransferCase(case.truth, (("glasses", case.truth),), case.driving, case.truth)
    assert np.abs(transfer.moving_paste(same)[0].astype(int) - case.truth.frames[0]).mean() < 3
    # Inpainting hides the old attribute.
    bare = transfer.TransferCase(case.truth, (("glasses", replace(case.truth, masks=case.truth.masks * 0)),),
                                 case.driving, case.truth)
    region = case.truth.mask("glasses")[0]
    assert np.abs(transfer.moving_paste(bare)[0].astype(int) - case.truth.frames[0])[region].mean() > 20


def test_splits_have_other_people():
    assert transfer_case("hair", 0, size=16).portrait.identity != transfer_case(
        "hair", 0, size=16, split="validation").portrait.identity


def test_paste_onto_the_same_pose_is_nearly_exact():
    # Portrait and donor are the same picture, so the paste leaves it unchanged up to rounding.
    case = transfer_case("glasses", 1, size=SIZE)
    same = transfer.TransferCase(case.portrait, (("glasses", case.truth),), case.driving, case.truth)
    region = case.attribute_region()[0]
    pasted = transfer.paste(transfer.TransferCase(case.truth, same.attributes, case.driving, case.truth))
    assert np.abs(pasted.astype(int) - case.truth.frames[0])[region].max() <= 1


def test_summary_keys_and_confidence_intervals():
    one = dict.fromkeys(transfer.SUMMARY_KEYS, 20.0)
    two = {**one, "psnr": 24.0}
    summary = summarize({kind: [one, two] for kind in ATTRIBUTE_KINDS})
    assert list(summary) == [*ATTRIBUTE_KINDS, "mean"]
    keys = {"cases", "l1", "psnr", "ssim", "psnr_region", "ssim_region", "sharpness", "unchanged_psnr",
            "unchanged_psnr_region", "paste_psnr", "paste_psnr_region", "paste_moving_psnr",
            "paste_moving_psnr_region", "psnr_removed", "edge_gradient", "still", "still_far", "tde"}
    assert keys == {key for key in summary["hair"] if not key.endswith("_ci95")}
    assert summary["hair"]["psnr"] == 22 and summary["hair"]["cases"] == 2 and summary["mean"]["cases"] == 8
    low, high = summary["hair"]["psnr_ci95"]
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 1) * 2.0)
    low, high = summary["mean"]["psnr_ci95"]
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 1) * 2.0 / 2)  # the four kinds are independent
