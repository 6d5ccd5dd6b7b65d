"""Annotated photos and videos, most of them of real people."""

from dataclasses import replace

import numpy as np
import pytest

from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip
from durian_jax.faces.topology import GROUPS
from durian_jax.prepare import annotate
from durian_jax.prepare.attributes import Evidence
from durian_jax.prepare.crop import Box
from durian_jax.synthetic import render, sample_motion, sample_person
from durian_jax.video import read_image, read_video, write_image, write_video


def test_photo(portraits, annotator):
    clip = annotate.annotate_image(portraits / "images" / "lp_d8.jpg", size=128, annotator=annotator)
    assert clip.frames.shape == (1, 128, 128, 3) and clip.identity == "lp_d8"
    contour = clip.keypoints[0, GROUPS["contour"]]
    assert 0.42 < np.ptp(contour[:, 1]) < 0.56 and abs(contour[:, 0].mean() - 0.5) < 0.06
    assert clip.mask("hair").mean() > 0.05 and clip.mask("glasses").mean() > 0.02
    assert not clip.mask("beard").any() and not clip.mask("hat").any()
    # The nose's tip is nearer to the camera than the contour.
    assert clip.keypoints[0, GROUPS["nose_bridge"], 2][-1] < contour[:, 2].mean()


def test_a_clip_knows_which_part_of_the_picture_it_shows(annotator, tmp_path):
    person = sample_person("validation", 1).without("glasses", "hat")
    frames = np.pad(render(person, sample_motion("validation", 1, 12), 300).frames,
                    ((0, 0), (40, 60), (90, 10), (0, 0)), mode="edge")
    write_image(tmp_path / "photo.png", frames[0])
    clip = annotate.annotate_image(tmp_path / "photo.png", 128, annotator=annotator)
    box = Box(clip.box[:, :2].astype(float), clip.box[:, 2].astype(float))
    assert np.abs(box.crop(frames[0], 0, 128).astype(int) - clip.frames[0]).mean() < 1.5
    assert clip.box[0, 2] == pytest.approx(300, abs=60) and clip[:1].box.shape == (1, 3)
    bordered = replace(clip, margin=16, frames=np.pad(clip.frames, ((0, 0), (16, 16), (16, 16), (0, 0))),
                       masks=np.pad(clip.masks, ((0, 0), (16, 16), (16, 16))), box=clip.box * (1, 1, 160 / 128))
    np.testing.assert_allclose(bordered.view().box, clip.box, rtol=1e-6)
    with pytest.raises(ValueError, match=r"Clip.box: expected shape \(1, 3\)"):
        replace(clip, box=clip.box[0])
    write_video(tmp_path / "talk.mp4", frames, 24)
    video, skipped = annotate.annotate_video(tmp_path / "talk.mp4", 64, annotator=annotator, fps=12)
    assert (len(video), video.fps, skipped) == (6, 12, [])
    assert len(annotate.annotate_video(tmp_path / "talk.mp4", 64, 4, annotator=annotator, fps=48)[0]) == 4


def test_weak_evidence_of_a_known_attribute_warns(annotator, tmp_path):
    bare = sample_person("validation", 0).without("glasses", "hat")
    write_image(tmp_path / "bare.png", render(bare, sample_motion("validation", 0, 1), 512).frames[0])
    with pytest.warns(annotate.UnsureAttribute, match="little evidence of beard"):
        annotate.annotate_image(tmp_path / "bare.png", known=("beard",), annotator=annotator)
    with pytest.raises(InputError, match=r"bare.png: no glasses found on the person \(found: hair"):
        annotate.annotate_image(tmp_path / "bare.png", known=("glasses",), annotator=annotator)

    def nothing(frames, keypoints, person, known):
        return np.zeros(frames.shape[:3], np.uint8), Evidence(1.4, 0.0, 0.0, 0.0)
    with pytest.raises(InputError, match=r"bare.png: no glasses found on the person \(found: hair\); choose a photo"):
        annotate.annotate_image(tmp_path / "bare.png", known=("glasses",), annotator=annotator, masker=nothing)


def test_photo_without_a_face(portraits, annotator, tmp_path):
    write_image(tmp_path / "grass.png", np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8))
    for path in (tmp_path / "grass.png", portraits / "images" / "lp_s23.jpg"):
        with pytest.raises(InputError, match="no face found in .*; expected one frontal face"):
            annotate.annotate_image(path, annotator=annotator)
    face = read_image(portraits / "images" / "lp_s0.jpg")[::4, ::4]
    write_image(tmp_path / "tiny.png", face)
    with pytest.raises(InputError, match="tiny.png"):
        annotate.annotate_image(tmp_path / "tiny.png", annotator=annotator)


def test_turned_photos_are_made_upright(portraits, annotator):
    upright = annotate.annotate_image(portraits / "cases" / "portrait.jpg", size=64, annotator=annotator)
    with pytest.warns(annotate.PictureTurned, match="not upright; turned by 180 degrees"):
        turned = annotate.annotate_image(portraits / "cases" / "upsidedown.jpg", size=64, annotator=annotator)
    assert np.abs(turned.keypoints - upright.keypoints)[..., :2].mean() < 0.03  # The same photo, in another size.


def test_one_of_several_faces_is_chosen(portraits, annotator):
    path = portraits / "cases" / "sixfaces.jpg"
    with pytest.warns(annotate.FaceChosen, match="6 faces; used: the largest one"):
        largest = annotate.annotate_image(path, size=64, annotator=annotator)
    with pytest.warns(annotate.FaceChosen, match="used: the leftmost one"):
        left = annotate.annotate_image(path, size=64, annotator=annotator, face="left")
    with pytest.warns(annotate.FaceChosen, match="used: number 1 from the left"):
        first = annotate.annotate_image(path, size=64, annotator=annotator, face="1")
    np.testing.assert_array_equal(left.frames, first.frames)
    assert (largest.frames != left.frames).any()
    with pytest.raises(InputError, match="face 7: expected a number from 1 to 6"):
        annotate.annotate_image(path, annotator=annotator, face="7")


def test_hdr_is_said(portraits, annotator):
    with pytest.warns(annotate.ColoursReduced, match=r"HDR colours \(HLG\); shown as ordinary ones"):
        annotate.annotate_video(portraits / "cases" / "hdr_hlg.mov", 64, 2, annotator=annotator)


@pytest.mark.parametrize("gaps", ["bridge", "hold"])
def test_frames_without_a_face_are_bridged(annotator, tmp_path, gaps):
    """Drawn frames, some of them black."""
    clip = render(sample_person("validation", 2), sample_motion("validation", 2, 40), size=256)
    frames, covered = clip.frames.copy(), slice(10, 16) if gaps == "bridge" else slice(10, 30)
    frames[covered] = 0
    write_video(tmp_path / "drive.mp4", frames, 25)
    with pytest.warns(annotate.FramesBridged, match=f"no face in frames 10-{covered.stop - 1} of 40"):
        found, missing = annotate.annotate_video(tmp_path / "drive.mp4", 128, annotator=annotator, gaps=gaps)
    assert len(found) == 40 and missing == [(10, covered.stop)]
    assert found.frames[covered].mean(axis=(1, 2, 3)).min() > 0.5 * found.frames[9].mean(), "no black frame is left"
    if gaps == "bridge":
        truth = clip.keypoints[covered][..., :2] - clip.keypoints[covered.start - 1, ..., :2]
        moved = found.keypoints[covered][..., :2] - found.keypoints[covered.start - 1, ..., :2]
        assert np.abs(moved.mean(1)).max() < np.abs(truth.mean(1)).max() * 2 + 0.05
    else:
        with pytest.raises(InputError, match="frames 10-29; expected one in every frame, .* --gaps hold"):
            annotate.annotate_video(tmp_path / "drive.mp4", 128, annotator=annotator, gaps="bridge")
    with pytest.raises(InputError, match="gaps: expected one of skip, bridge, hold"):
        annotate.annotate_video(tmp_path / "drive.mp4", annotator=annotator, gaps="jump")


def test_lost_faces_are_named(portraits, annotator, tmp_path):
    frames, fps = read_video(portraits / "clips" / "moore_1.mp4")  # ends with a title card
    frames = frames[:, ::2, ::2]
    write_video(tmp_path / "card.mp4", frames[230:], fps)
    with pytest.warns(UserWarning, match="no face in frames 39-6"):
        clip, skipped = annotate.annotate_video(tmp_path / "card.mp4", size=64, annotator=annotator)
    assert len(skipped) == 1 and abs(skipped[0][0] - 39) <= 1 and skipped[0][1] == len(frames) - 230
    assert isinstance(clip, Clip) and len(clip) == skipped[0][0]
    write_video(tmp_path / "only.mp4", frames[275:], fps)
    with pytest.raises(InputError, match="no face found in any of the"):
        annotate.annotate_video(tmp_path / "only.mp4", annotator=annotator)
