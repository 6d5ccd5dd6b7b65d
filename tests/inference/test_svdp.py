"""SVDP's jobs: the driver's regions, alignment, history as latents, and what is refused."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from durian_jax.diffusion import Sampling
from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip
from durian_jax.faces.moved_references import driver_on_face
from durian_jax.faces.regions import driven_region
from durian_jax.faces.topology import RIGID
from durian_jax.inference.animator import Animator
from durian_jax.inference.backend import Segment
from durian_jax.inference.svdp import aligned, make_job, most_similar_frame, moved_references
from durian_jax.models.svdp.config import SVDPConfig
from durian_jax.synthetic import render, sample_motion, sample_person
from tests.helpers.inference import SIZE, photo


@dataclass
class PixelBackend:
    """A backend of the family that records its calls; frame n of the video has latents n and grey n."""

    config: SVDPConfig = SVDPConfig(image_size=SIZE, max_frames=6, history=2)
    sampling: Sampling = Sampling()
    identity_encoder: None = None
    calls: list[dict] = field(default_factory=list)

    def references(self, batch):
        return "shared"

    def generate_segment(self, batch, sampling, *, first_frame=0, references=None, temporal=None):
        self.calls.append({**batch, "first_frame": first_frame, "references": references})
        frames = np.arange(first_frame, first_frame + batch["driving_regions"].shape[1])
        grey = np.broadcast_to(frames[None, :, None, None, None], (1, len(frames), SIZE, SIZE, 3)).astype(np.uint8)
        return Segment(grey, grey[:, :, :2, :2, :].astype(np.float32))


@pytest.fixture(scope="module")
def driving():
    """Fifteen frames of another person."""
    return render(sample_person("validation", 7).without("hat"), sample_motion("validation", 7, 15), size=SIZE)


def test_long_videos_continue_with_latents(driving):
    backend = PixelBackend()
    video = Animator(backend).animate(photo(0), [], driving)
    np.testing.assert_array_equal(video[:, 0, 0, 0], np.arange(15))
    assert [call["first_frame"] for call in backend.calls] == [0, 6, 9]
    assert "history_latents" not in backend.calls[0]
    for call in backend.calls[1:]:
        start = call["first_frame"]
        np.testing.assert_array_equal(call["history_latents"][0, :, 0, 0, 0], [start - 2, start - 1])
        np.testing.assert_array_equal(call["history_valid"], [1])
        assert call["references"] == "shared"


def test_the_model_sees_the_regions_alone(driving):
    job = make_job(PixelBackend(), photo(0), [], driving, absolute=True, regions=("mouth",))
    fields = job.segment(0, [])
    mask = np.stack([driven_region(keypoints, SIZE, SIZE, ("mouth",)) for keypoints in driving.keypoints[:6]])
    np.testing.assert_array_equal(fields["driving_masks"][0, ..., 0] > 0, mask)
    assert (fields["driving_regions"][0][~mask] == 0).all()
    expected = driving.frames[:6][mask] / np.float32(127.5) - 1
    np.testing.assert_allclose(fields["driving_regions"][0][mask], expected, atol=1e-6)


def test_references_lie_on_the_drivers_face(driving):
    """The fields of each segment are the photos, moved onto the driver's faces of that segment."""
    backend = PixelBackend(replace(PixelBackend.config, aligned_pictures=True))
    attributes = [("hair", photo(1, "hair")), ("glasses", photo(2, "glasses"))]
    job = make_job(backend, photo(0), attributes, driving, absolute=True)
    fields = job.segment(1, [np.zeros((6, 2, 2, 3))])
    one = {name: x[0] for name, x in job.batch.items()}
    expected = moved_references(photo(0), attributes, one, driving.keypoints[6:12])
    assert {*expected} == {"moved_source", "moved_attributes", "moved_source_masks", "moved_attributes_masks"}
    for name, value in expected.items():
        np.testing.assert_array_equal(fields[name][0], value)
    moved, known = driver_on_face(driving.frames[6:12], job.masks[6:12], driving.keypoints[6:12], photo(0).keypoints[0])
    np.testing.assert_array_equal(fields["driving_masks"][0, ..., 0], known)
    np.testing.assert_allclose(fields["driving_regions"][0][known], moved[known] / np.float32(127.5) - 1, atol=1e-6)
    eyes = make_job(backend, photo(0), attributes, driving, absolute=True, regions=("eyes",)).segment(0, [])
    both = make_job(backend, photo(0), attributes, driving, absolute=True).segment(0, [])
    lips = np.stack([driven_region(keypoints, SIZE, SIZE, ("mouth",)) for keypoints in driving.keypoints[:6]])
    change = np.abs(eyes["moved_source"] - both["moved_source"])[0].max(-1)
    assert change[lips].mean() > 0.01, "without the mouth's pixels no mouth is moved"
    assert change[lips].mean() > 10 * change[:, :SIZE // 4].mean()
    blended = make_job(backend, photo(0), [attributes[0], ("hair", photo(3, "hair"))], driving, interpolate=0.25)
    shares = np.unique(blended.segment(0, [])["moved_attributes_masks"])
    np.testing.assert_allclose(shares, [0, 0.25, 0.75, 1])


def test_one_similarity_moves_the_driver_onto_the_portrait(driving):
    portrait = photo(0, yaw=10.0, shift_x=0.05)
    frame = most_similar_frame(driving.keypoints, portrait.keypoints[0])
    moved = aligned(driving, portrait)
    target = portrait.keypoints[0]
    distance = lambda keypoints: np.linalg.norm((keypoints - target)[RIGID, :2], axis=-1).mean()
    assert distance(moved.keypoints[frame]) < 0.5 * distance(driving.keypoints[frame])
    # The same similarity for all frames: distances between frames keep their proportions.
    lengths = [np.linalg.norm(np.diff(clip.keypoints[:, RIGID, :2], axis=0), axis=-1) for clip in (driving, moved)]
    ratio = lengths[1] / lengths[0]
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-3)
    other = aligned(driving, portrait, (frame + 1) % len(driving))
    assert np.abs(other.keypoints - moved.keypoints).max() > 1e-4


def test_the_driver_may_stay_where_it_is(driving):
    stays, moves = (make_job(PixelBackend(), photo(0), [], driving, absolute=absolute) for absolute in (True, False))
    np.testing.assert_array_equal(stays.regions, driving.frames)
    assert (stays.masks != moves.masks).any()


def test_attributes_are_references(driving):
    job = make_job(PixelBackend(), photo(0), [("hair", photo(1, "hair"))], driving)
    assert job.batch["attributes"].shape == (1, 1, SIZE, SIZE, 3) and job.batch["portrait_mask"].any()
    bare = make_job(PixelBackend(), photo(0), [], driving)
    assert bare.batch["attributes"].shape[1] == 0 and not bare.batch["portrait_mask"].any()


@pytest.mark.parametrize("options, words", [
    ({"regions": ()}, "found none"), ({"regions": ("ears",)}, "ears"), ({"align_frame": 99}, "0..14, found 99"),
    ({"regions": "eyes"}, "expected a list"), ({"align_frame": 1.5}, "the number of a frame, found 1.5"),
    ({"align_frame": True}, "the number of a frame"),
    ({"align_frame": 1, "absolute": True}, "choose one"), ({"interpolate": 0.5}, "interpolate")])
def test_bad_options_are_refused(driving, options, words):
    with pytest.raises(InputError, match=words):
        make_job(PixelBackend(), photo(0), [], driving, **options)


def test_options_of_another_family_are_refused(driving):
    with pytest.raises(InputError, match="align_attributes: .* family svdp take interpolate, order, absolute"):
        Animator(PixelBackend()).animate(photo(0), [], driving, align_attributes=True)


@pytest.mark.parametrize("frames, longest, history", [(5, 4, 2), (6, 5, 3), (7, 5, 3), (17, 16, 3), (18, 16, 8)])
def test_every_segment_after_the_first_has_its_history(driving, frames, longest, history):
    """Also where the video is a little longer than a segment, with the longest history that a config allows."""
    config = SVDPConfig(image_size=SIZE, max_frames=longest, history=history)
    filled = driving[np.arange(frames) % len(driving)]
    backend = PixelBackend(config)
    video = Animator(backend).animate(photo(0), [], filled)
    np.testing.assert_array_equal(video[:, 0, 0, 0], np.arange(frames))
    for call in backend.calls[1:]:
        start = call["first_frame"]
        np.testing.assert_array_equal(call["history_latents"][0, :, 0, 0, 0], np.arange(start - history, start))


def test_history_that_a_short_segment_may_lack_is_refused():
    with pytest.raises(InputError, match="history: expected 1 to 2 frames, half of a segment of max_frames=4, found 3"):
        SVDPConfig(image_size=SIZE, max_frames=4, history=3)


def test_drivers_that_cannot_drive_are_refused(driving):
    with pytest.raises(InputError, match="keypoints alone"):
        make_job(PixelBackend(), photo(0), [], driving.keypoints)
    with pytest.raises(InputError, match="about 25 frames per second, as in training, found 60"):
        make_job(PixelBackend(), photo(0), [], replace(driving, fps=60.0))
    outside = driving.keypoints + np.float32([2, 0, 0])
    with pytest.raises(InputError, match="both eyes in the picture, found them in 0 of 15"):
        make_job(PixelBackend(), photo(0), [], replace(driving, keypoints=outside), absolute=True)
    covered = driving.frames.copy()
    covered[3:, :SIZE * 3 // 4] = 60
    with pytest.raises(InputError, match="expected visible eyes, found something plain over them in 12 of 15 frames"):
        make_job(PixelBackend(), photo(0), [], replace(driving, frames=covered), absolute=True)
    make_job(PixelBackend(), photo(0), [], replace(driving, frames=covered), absolute=True, regions=("mouth",))
    wide = Clip(driving.frames[:, :40], driving.keypoints, driving.masks[:, :40], driving.fps)
    with pytest.raises(InputError, match="expected square pictures, found 64 x 40"):
        make_job(PixelBackend(), photo(0), [], wide)


def test_the_number_of_a_frame_may_come_from_numpy(driving):
    chosen, same = (make_job(PixelBackend(), photo(0), [], driving, align_frame=frame) for frame in (np.int64(3), 3))
    np.testing.assert_array_equal(chosen.regions, same.regions)


@pytest.mark.parametrize("fps", [0, float("nan"), "25", -1.0])
def test_a_model_without_a_frame_rate_is_refused(fps):
    with pytest.raises(InputError, match="fps: expected a finite number above 0 and at most 1000"):
        SVDPConfig(image_size=SIZE, fps=fps)


def test_output_that_is_not_finite_is_an_error(driving):
    class Broken(PixelBackend):
        def generate_segment(self, *arguments, **options):
            made = super().generate_segment(*arguments, **options)
            return replace(made, latents=np.full_like(made.latents, np.nan))

    with pytest.raises(InputError, match="output is not finite, from frame 0 on: guidance is too strong"):
        Animator(Broken()).animate(photo(0), [], driving)


def test_things_that_are_no_clips_are_refused(driving):
    animator = Animator(PixelBackend())
    with pytest.raises(InputError, match="portrait photo: expected a clip, as `annotate_image` makes it, found str"):
        animator.animate("me.png", [], driving)
    with pytest.raises(InputError, match="driving clip: expected a clip, as `annotate_video` makes it, .* found str"):
        animator.animate(photo(0), [], "talk.mp4")
    lost = driving.keypoints.copy()
    lost[4] = np.nan
    for clip in (replace(driving, keypoints=lost), driving[np.zeros(0, int)]):
        with pytest.raises(InputError, match="driving clip: expected keypoints of at least one frame, all finite"):
            animator.animate(photo(0), [], clip)
