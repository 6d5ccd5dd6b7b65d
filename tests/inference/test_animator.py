"""The animator, with a backend that draws nothing: what it asks for, and what it refuses."""

import re
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import numpy as np
import pytest

from durian_jax.checkpoints import weights as weights_module
from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.diffusion import Objective, Sampling
from durian_jax.errors import InputError
from durian_jax.faces.retarget import retarget
from durian_jax.inference import durian as family
from durian_jax.inference import generate as generate_module
from durian_jax.inference.animator import Animator
from durian_jax.inference.backend import Segment
from durian_jax.inference.references import make_references
from durian_jax.models.durian.config import DurianConfig
from durian_jax.prepare import annotate
from durian_jax.synthetic import render, sample_motion, sample_person, still
from tests.helpers.inference import SIZE, RecordingBackend, photo


@pytest.fixture
def backend():
    return RecordingBackend()


@pytest.fixture
def animator(backend):
    return Animator(backend)


def test_a_long_video_is_made_in_windows_of_equal_length(animator, backend):
    driving = render(sample_person("validation", 7), sample_motion("validation", 7, 21), size=SIZE)
    portrait, attributes = photo(0), [("hair", photo(1, "hair"))]
    frames = animator.animate(portrait, attributes, driving, sampling=Sampling(steps=3, seed=5))
    assert frames.shape == (21, SIZE, SIZE, 3) and set(frames[:, 0, 0, 0]) == {101, 102, 103, 104}
    expected = retarget(driving.keypoints, portrait.keypoints[0])
    for (batch, options), start in zip(backend.calls, (0, 6, 12, 13), strict=True):
        np.testing.assert_array_equal(batch["keypoints"][0], expected[start:start + 8])
        for name, value in make_references(portrait, attributes).items():
            np.testing.assert_array_equal(batch[name][0], value)
        assert options == {"sampling": Sampling(steps=3, seed=5), "first_frame": start, "temporal": None,
                           "references": "references of call 0"}
    (shared,) = backend.shared
    assert shared.keys() == backend.calls[0][0].keys() - {"keypoints"}


def test_one_window_computes_its_own_references(animator, backend):
    animator.animate(photo(0), [], render(sample_person("validation", 7), sample_motion("validation", 7, 8),
                                          size=SIZE))
    ((_, options),) = backend.calls
    assert options["references"] is None and not backend.shared


def test_the_defaults_of_the_sampling_are_the_backends(animator, backend):
    animator.animate(photo(0), [], photo(0).keypoints)
    ((_, options),) = backend.calls
    assert options["sampling"] == backend.sampling == Sampling(steps=7)


def test_the_job_decides_the_batch_the_segments_and_the_join(animator, backend, monkeypatch):
    """Every segment gets the job's batch and the latents of the last two segments before it."""
    previous, given = [], []

    def segment(number, before):
        previous.append(before)
        return {"keypoints": np.full((1, 2 + number, 3), number)}
    job = SimpleNamespace(batch={"portrait": "shared"}, starts=[0, 4, 9], segment=segment,
                          join=lambda segments: ([len(clip)] for clip in segments))

    def make_job(*arguments, **options):
        given.append((arguments, options))
        return job
    monkeypatch.setattr(family, "make_job", make_job)
    portrait, attributes, driving = photo(0), [("hair", photo(1, "hair"))], photo(2)
    assert animator.animate(portrait, attributes, driving, interpolate=0.5).tolist() == [2, 3, 4]
    assert given == [((backend, portrait, attributes, driving), {"interpolate": 0.5})]
    assert backend.shared == [{"portrait": "shared"}]
    for number, (batch, options) in enumerate(backend.calls):
        assert batch["portrait"] == "shared" and (batch["keypoints"] == number).all()
        assert options["first_frame"] == job.starts[number]
    assert [[len(latents) for latents in before] for before in previous] == [[], [2], [2, 3]]
    assert [[latents[0, 0, 0, 0] for latents in before] for before in previous] == [[], [1], [1, 2]]


def test_keypoints_drive_as_they_are(animator, backend):
    keypoints = render(sample_person("validation", 0), sample_motion("validation", 0, 3), size=SIZE).keypoints
    assert animator.animate(photo(0), [], keypoints).shape == (3, SIZE, SIZE, 3)
    np.testing.assert_array_equal(backend.calls[0][0]["keypoints"][0], keypoints)


def test_interpolation_becomes_weights(animator, backend):
    pair = [("hair", photo(1, "hair")), ("hair", photo(2, "hair"))]
    keypoints = photo(0).keypoints
    animator.animate(photo(0), pair, keypoints, interpolate=0.25)
    np.testing.assert_allclose(backend.calls[0][0]["attribute_weights"], [[[0.75, 0.25]]])
    animator.animate(photo(0), pair, keypoints, interpolate=(0.5, 0.5))
    np.testing.assert_allclose(backend.calls[1][0]["attribute_weights"], [[[0.5, 0.5]]])
    animator.animate(photo(0), pair, keypoints)
    assert "attribute_weights" not in backend.calls[2][0]
    animator.animate(photo(0), pair, np.repeat(keypoints, 3, 0), interpolate=[[1, 0], [0.5, 0.5], [0, 1]])
    np.testing.assert_allclose(backend.calls[3][0]["attribute_weights"], [[[1, 0], [0.5, 0.5], [0, 1]]])
    with pytest.raises(InputError, match="expected weights for 1 frames, found 2"):
        animator.animate(photo(0), pair, keypoints, interpolate=[[1, 0], [0, 1]])
    for wrong in (1.5, (0.5, 0.6), (1.0, 0.0, 0.0), [[[1, 0]]], [[1, None], [None, 1]]):
        with pytest.raises(InputError, match="interpolate"):
            animator.animate(photo(0), pair, keypoints, interpolate=wrong)
    with pytest.raises(InputError, match="with 1 attributes"):
        animator.animate(photo(0), pair[:1], keypoints, interpolate=0.5)


def test_sizes_must_fit_the_checkpoint(animator, backend):
    small = render(sample_person("validation", 0), still(), size=32)
    with pytest.raises(InputError, match="portrait photo: the checkpoint needs 64 x 64 pixels, found 32"):
        animator.animate(small, [], small.keypoints)
    with pytest.raises(InputError, match="hair photo: the checkpoint needs 64 x 64 pixels, found 32"):
        animator.animate(photo(0), [("hair", small)], small.keypoints)
    with pytest.raises(InputError, match=r"driving keypoints: expected \(T, \d+, 3\)"):
        animator.animate(photo(0), [], np.zeros((3, 5, 3)))
    assert not backend.calls


def test_the_example_of_the_readme_runs(monkeypatch):
    person = render(sample_person("validation", 1, require=("hair",)).without("hat"),
                    sample_motion("validation", 1, 3), size=128)
    annotate_image = create_autospec(annotate.annotate_image, return_value=person[:1])
    monkeypatch.setattr(annotate, "annotate_image", annotate_image)
    monkeypatch.setattr(annotate, "annotate_video", create_autospec(annotate.annotate_video,
                                                                    return_value=(person, [])))
    checkpoint = Checkpoint(DurianConfig(max_frames=8), Objective(), {})
    monkeypatch.setattr(weights_module, "load_checkpoint", lambda name: {"tiny": checkpoint}[name])
    made = Segment(np.full((1, 3, 128, 128, 3), 100, np.uint8), np.zeros((1, 3, 16, 16, 16), np.float32))
    generate = create_autospec(generate_module.generate_segment, return_value=made)
    monkeypatch.setattr(generate_module, "generate_segment", generate)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    names = {}
    exec(example, names)
    assert names["frames"].shape == (3, 128, 128, 3)
    (used, batch, sampling), _ = generate.call_args
    assert used is checkpoint and sampling.seed == 1 and batch["attribute_valid"].all()
    assert [call.args[0] for call in annotate_image.call_args_list] == ["friend.png", "me.png"]
