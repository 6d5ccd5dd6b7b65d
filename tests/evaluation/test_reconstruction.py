"""Reconstruction cases from recorded clips."""

import numpy as np
import pytest

from durian_jax.data import RecordedClips
from durian_jax.errors import InputError
from durian_jax.evaluation import report
from durian_jax.evaluation.reconstruction import reconstruction_cases
from tests.helpers.evaluation import SIZE, record_clips


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    record_clips(folder)
    return folder


def test_reconstruction_cases_hold_frames_of_one_clip(recorded):
    cases = reconstruction_cases(recorded, 2, 3, SIZE)
    clips = RecordedClips(recorded)
    assert all(1 <= len(makers) <= 2 for makers in cases.values())
    for kind, makers in cases.items():
        case = makers[0]()
        clip = next(clip for clip in clips if clip.identity == case.truth.identity)
        np.testing.assert_array_equal(case.truth.frames, clip.frames[1:4])
        np.testing.assert_array_equal(case.portrait.frames, clip.frames[:1])
        people = [maker().truth.identity for maker in makers]
        assert len(set(people)) == len(people)
        [(worn, photo)] = case.attributes
        assert worn == kind and photo.mask(kind).any()
        np.testing.assert_array_equal(photo.frames, clip.frames[4:])


def test_reconstruction_refuses_unfit_clips_and_settings(recorded):
    with pytest.raises(InputError, match="at least 6 frames"):
        reconstruction_cases(recorded, 2, 4, SIZE)
    with pytest.raises(InputError, match="prepare the clips with --size 128"):
        reconstruction_cases(recorded, 2, 3, 128)
    for wrong in ({"benchmark": "reconstruction"}, {"clips": recorded}):
        with pytest.raises(InputError, match="the benchmark reconstruction needs a folder of records"):
            report.evaluate_checkpoint("tiny", **wrong)
    with pytest.raises(InputError, match="at most 16 frames"):
        report.evaluate_checkpoint("tiny", frames=17)
    for wrong in ({"split": "train"}, {"split": "validation", "benchmark": "reenactment"}):
        with pytest.raises(InputError, match="--split .*: expected benchmark, or validation with --benchmark synth"):
            report.evaluate_checkpoint("tiny", **wrong)
