"""Looks at files: how a long video is sampled, and the measures of a face, which come from `faces`."""

import cv2
import numpy as np
import pytest

from durian_jax.faces import quality
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.pose import head_pose
from durian_jax.faces.topology import POSITION
from durian_jax.prepare import look as look_module
from durian_jax.prepare.check import check_files
from durian_jax.prepare.look import find_cuts, look_at_video
from durian_jax.synthetic import render, sample_motion, sample_person
from durian_jax.video import VideoInfo, write_video
from tests.helpers.prepare import FPS, SIZE, calm_talk, draw


@pytest.fixture(scope="module")
def talk():
    return calm_talk()


@pytest.mark.parametrize("declared", [300, 0])
def test_a_long_video_is_sampled(annotator, tmp_path, talk, monkeypatch, declared):
    frames = np.concatenate([talk, talk[::-1]] * 5)
    frames[200:260] = 128
    write_video(tmp_path / "long.mp4", frames, FPS)
    monkeypatch.setattr(look_module, "probe_video", lambda _: VideoInfo(FPS, declared, False))
    seen = look_at_video(tmp_path / "long.mp4", annotator)
    assert len(seen) == 300 and len(seen.index) <= 120
    assert seen.index[:8].tolist() == list(range(8)) and seen.index[-1] == 299
    assert np.flatnonzero(find_cuts(seen)).tolist() == [200, 260]
    report = check_files([tmp_path / "long.mp4"], annotator)[0]
    finding = report.findings[0]
    assert finding.code == "faceless-frames" and finding.frames[0][0] == 200 and 260 <= finding.frames[0][1] <= 264


# --- measures -----------------------------------------------------------------------------------------

def test_sharpness_falls_with_blur_and_not_with_size():
    large, larger = draw(size=384), draw(size=640)
    sharp = quality.sharpness(large.frames, large.keypoints)
    assert sharp.shape == (1,) and sharp[0] > 0.5
    assert quality.sharpness(larger.frames, larger.keypoints)[0] == pytest.approx(sharp[0], rel=0.15)
    blurred = [quality.sharpness(cv2.GaussianBlur(large.frames[0], (0, 0), share * 165)[None], large.keypoints)[0]
               for share in (0.005, 0.01, 0.02, 0.03)]
    assert np.all(np.diff([sharp[0], *blurred]) < -0.02)
    dim = quality.sharpness((large.frames * 0.4).astype(np.uint8), large.keypoints)[0]
    assert dim == pytest.approx(sharp[0], rel=0.15)


def test_openness_follows_the_face():
    levels = np.linspace(0, 1, 5)
    points = draw(frames=5, blink=levels).keypoints
    eyes = quality.eye_openness(points)
    assert eyes.shape == (5, 2) and (np.diff(eyes, axis=0) < 0).all() and eyes[0].min() > 0.25 and eyes[-1].max() < 0.15
    mouths = quality.mouth_openness(draw(frames=5, mouth=levels).keypoints)
    assert mouths.shape == (5,) and (np.diff(mouths) > 0).all() and mouths[0] < 0.1 and mouths[-1] > 0.4
    # Roll and size of the face do not matter.
    turned = quality.eye_openness(draw(roll=25, scale=0.8).keypoints)[0]
    assert turned == pytest.approx(eyes[0], rel=0.05)


def test_exposure_separates_light_from_skin_tone():
    clips = [draw(person, size=192) for person in range(40, 52)]
    light = [quality.exposure(clip.frames, clip.keypoints)[0, 0] for clip in clips]
    assert min(light) > 0.3
    dark = [quality.exposure((clip.frames * 0.2).astype(np.uint8), clip.keypoints)[0, 0] for clip in clips]
    assert max(dark) < 0.25


def test_occlusion_ignores_attributes():
    for person in (0, 3, 17, 33, 37):  # glasses, beards and hats
        clip = draw(person)
        assert quality.occlusion(clip.frames, clip.keypoints, clip.masks)[0] < 0.05, person
    beard = draw(37)
    assert quality.occlusion(beard.frames, beard.keypoints)[0] > 0.2
    # Bits of other layers (the person, face regions) do not count as occlusion.
    others = beard.masks | np.uint8(255 - sum(map(attribute_bit, ("hair", "glasses", "beard", "hat"))))
    assert quality.occlusion(beard.frames, beard.keypoints, others)[0] < 0.05


def test_occlusion_counts_what_covers_the_face():
    clip = draw()
    y, x = np.mgrid[:SIZE, :SIZE]
    chin, nose = (clip.keypoints[0, POSITION[index], :2] * SIZE for index in (152, 4))
    below = (y > nose[1]) & (np.abs(x - nose[0]) < SIZE / 4)
    shares = []
    for colour in ((25, 25, 25), (120, 170, 215), (230, 230, 230)):
        frames = clip.frames.copy()
        frames[0, below] = colour
        shares.append(quality.occlusion(frames, clip.keypoints)[0])
    assert quality.occlusion(clip.frames, clip.keypoints)[0] < 0.02 and min(shares) > 0.5


def test_head_pose_follows_the_drawn_head():
    """The angles of procedural heads are known exactly."""
    motion = sample_motion("train", 5, 24, 6.0)
    clip = render(sample_person("train", 5), motion, 64)
    for column, angle in enumerate((motion.yaw, motion.pitch)):
        found = head_pose(clip.keypoints)[:, column]
        assert np.corrcoef(found, angle)[0, 1] > 0.95
        assert np.abs(found - angle - np.median(found - angle)).mean() < 4
    upright = [np.abs(motion.yaw) + np.abs(motion.pitch) < 15]
    assert np.corrcoef(head_pose(clip.keypoints)[:, 2][tuple(upright)], motion.roll[tuple(upright)])[0, 1] > 0.9
