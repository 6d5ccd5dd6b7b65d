"""From ordinary files to annotated clips: crop, runs and masks in numbers, then real portraits."""

import sys

import numpy as np
import pytest

from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip, attribute_bit, layer_bit
from durian_jax.faces.pose import head_pose
from durian_jax.faces.regions import expression_regions, landing_region
from durian_jax.faces.topology import ATTRIBUTE_KINDS, GROUPS, MEDIAPIPE_INDICES
from durian_jax.prepare import annotate, crop, track
from durian_jax.prepare.attributes import attribute_masks
from durian_jax.prepare.client import Annotator
from durian_jax.prepare.clips import agreed_masks, split_run
from durian_jax.prepare.environment import find_annotator
from durian_jax.synthetic import render, sample_motion, sample_person
from durian_jax.video import read_image, read_video, write_image, write_video


def face_mesh(centre=(300.0, 260.0), height=200.0, frames=20):
    """(T, 478, 3) a mesh whose contour is an ellipse of the given height in pixels."""
    points = np.zeros((frames, 478, 3), np.float32)
    angle = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    contour = MEDIAPIPE_INDICES[GROUPS["contour"]]
    points[:] = (*centre, 0)
    points[:, contour, 0] = centre[0] + 0.4 * height * np.sin(angle)
    points[:, contour, 1] = centre[1] - 0.5 * height * np.cos(angle)
    return points


# --- crop and time ------------------------------------------------------------------------------------

def test_crop_and_keypoints_agree():
    image = np.zeros((480, 640, 3), np.uint8)
    image[299:302, 249:252] = 255  # centre of the spot: pixel (250, 300), at 250.5, 300.5
    points = np.array([[[250.5, 300.5, 10.0]]])
    for side in (150.0, 777.0):
        box = crop.Box(np.array([[270.0, 280.0]]), np.array([side]))
        where = box.keypoints(points)[0, 0]
        small = box.crop(image, 0, 128)[..., 0].astype(float)
        y, x = np.mgrid[:128, :128] + 0.5
        assert (x * small).sum() / small.sum() == pytest.approx(where[0] * 128, abs=0.3)
        assert (y * small).sum() / small.sum() == pytest.approx(where[1] * 128, abs=0.3)
        assert where[2] == pytest.approx(10 / side)


def test_box_gives_the_face_its_share_and_stands_still():
    points = face_mesh()
    points += np.random.default_rng(0).normal(0, 2, (20, 1, 3)).astype(np.float32)  # a shaking camera
    box = crop.head_box(points, 25, 720, 1280)
    assert np.ptp(box.centre, axis=0).max() == 0 and np.ptp(box.side) == 0
    contour = box.keypoints(points)[:, MEDIAPIPE_INDICES[GROUPS["contour"]]]
    assert np.ptp(contour[..., 1], axis=1) == pytest.approx(crop.FACE_HEIGHT, abs=0.01)
    assert contour[..., 1].mean() == pytest.approx(crop.FACE_CENTRE, abs=0.01)


def test_box_follows_a_walking_face_smoothly():
    points = face_mesh(frames=100)
    points[..., 0] += np.linspace(0, 500, 100)[:, None]
    box = crop.head_box(points, 25, 720, 1280)
    middle = crop.face_centre(box.keypoints(points))
    assert np.abs(middle[10:-10, 0] - 0.5).max() < 0.1
    assert np.abs(np.diff(box.centre[:, 0], n=2)).max() < 0.5


def test_box_stays_in_the_picture_and_gives_up_margin_in_close_ups():
    box = crop.head_box(face_mesh((150, 130), 200), 25, 512, 512)
    assert (box.centre - box.side[:, None] / 2 >= -0.15 * box.side[:, None]).all()
    close = crop.head_box(face_mesh((256, 256), 280), 25, 512, 512)
    assert close.side[0] == pytest.approx(512)


def test_smoothing_has_no_lag():
    time = np.arange(30.0)
    parabola = np.broadcast_to((0.3 * time ** 2 - 4 * time)[:, None, None], (30, 4, 3)).astype(np.float32)
    smooth = crop.smooth_track(parabola)
    assert smooth[2:-2] == pytest.approx(parabola[2:-2], abs=1e-3)
    noise = np.random.default_rng(0).normal(0, 1, (200, 4, 3)).astype(np.float32)
    assert crop.smooth_track(noise)[5:-5].std() < 0.75


def test_runs_and_segments():
    usable = np.array([1, 1, 0, 1, 1, 1, 1, 0], bool)
    cuts = np.zeros(8, bool)
    cuts[5] = True
    assert crop.runs(usable, cuts) == [(0, 2), (3, 5), (5, 7)]
    assert split_run(10, 110, 2, 48, 8) == [(10, 60), (60, 110)]
    assert split_run(0, 15, 2, 48, 9) == []
    for last in range(17, 400, 13):
        parts = split_run(0, last, 2, 48, 8)
        assert parts[0][0] == 0 and parts[-1][1] == last
        assert all(a[1] == b[0] for a, b in zip(parts[:-1], parts[1:], strict=True))
        assert all(8 <= -(-(b - a) // 2) <= 48 for a, b in parts)
    assert track.describe_ranges([(0, 4), (7, 8)]) == "0-3, 7"


def test_shot_cut_is_found_and_motion_is_not():
    wave = 120 + 60 * np.sin(np.arange(32) / 5)[None, :, None].repeat(32, 0).repeat(3, 2)
    # The camera pans through both shots; the second is the first turned by a quarter.
    thumbnails = np.stack([np.roll(wave if t < 12 else wave.transpose(1, 0, 2), t, 1) for t in range(24)])
    still = np.zeros((24, 2)), np.full(24, 100.0)
    assert np.flatnonzero(crop.shot_cuts(thumbnails.astype(np.uint8), 25, *still)).tolist() == [12]
    jump = np.where(np.arange(24) < 7, 0.0, 80.0)[:, None].repeat(2, 1)
    same = np.zeros((24, 32, 32, 3), np.uint8)
    flash = thumbnails[:10].astype(np.uint8).copy()
    flash[5] = 255
    assert not crop.scene_cuts(flash, 25).any()
    assert np.flatnonzero(crop.shot_cuts(same, 25, jump, still[1])).tolist() == [7]


# --- regions ------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def people():
    """Procedural people, one a kind, whose masks are exact."""
    found = {kind: sample_person("validation", 3, require=(kind,)) for kind in ATTRIBUTE_KINDS}
    return {kind: render(person, sample_motion("validation", i, 1), size=128)
            for i, (kind, person) in enumerate(found.items())}


def test_regions_hold_what_they_are_for(people):
    for kind, least in (("glasses", 0.6), ("beard", 0.6), ("hair", 0.6)):
        clip = people[kind]
        truth, where = clip.mask(kind)[0], landing_region(kind, clip.keypoints[0], 128, 128)
        assert (truth & where).sum() >= least * truth.sum(), kind
    for clip in people.values():
        points = clip.keypoints[0]
        pixel = np.clip((points[:, :2] * 128).astype(int), 0, 127)
        at = {kind: landing_region(kind, points, 128, 128)[pixel[:, 1], pixel[:, 0]] for kind in ATTRIBUTE_KINDS}
        assert at["glasses"][GROUPS["right_eye"]].all() and at["glasses"][GROUPS["left_iris"]].all()
        assert not at["glasses"][GROUPS["outer_lips"]].any()
        assert not at["beard"][GROUPS["inner_lips"]].any() and not at["beard"][GROUPS["left_eye"]].any()
        assert not at["hair"][GROUPS["nose_bridge"]].any() and not at["hat"][GROUPS["nose_base"]].any()


def test_regions_scale_with_the_picture(people):
    points = people["glasses"].keypoints[0]
    for kind in ATTRIBUTE_KINDS:
        small, large = (landing_region(kind, points, n, n).mean() for n in (64, 256))
        assert small == pytest.approx(large, rel=0.08), kind


def test_unknown_kind_is_refused(people):
    with pytest.raises(InputError, match="unknown attribute kind 'ears'"):
        landing_region("ears", people["hair"].keypoints[0], 64, 64)


def test_masks_of_a_drawn_head(people):
    """Grey picture, face of one colour, hair of another: the mask is the hair."""
    points = people["hair"].keypoints
    y, x = np.mgrid[:128, :128] + 0.5
    contour = points[0, GROUPS["contour"], :2] * 128
    middle, half = contour.mean(0), np.ptp(contour, axis=0) / 2
    distance = ((x - middle[0]) / half[0]) ** 2 + ((y - middle[1]) / half[1]) ** 2
    hair = (distance > 1.1) & (distance < 2.2) & (y < middle[1])
    frame = np.full((128, 128, 3), 128, np.uint8)
    frame[distance <= 1.1] = (220, 170, 140)
    frame[hair] = (60, 35, 20)
    person = (((distance <= 1.1) | hair) * 255).astype(np.uint8)
    masks, evidence = attribute_masks(frame[None], points, person[None])
    assert evidence.present() == ("hair",)
    found = masks[0] == 1
    assert (found & hair).sum() / (found | hair).sum() > 0.8


def test_one_person_has_one_set_of_attributes(people):
    clip = people["glasses"]
    both = attribute_bit("hair") | attribute_bit("hat") | layer_bit("person")
    masks = np.full_like(clip.masks, both)
    agreed = agreed_masks(masks, clip.keypoints, ["hair", "glasses"])
    glasses = landing_region("glasses", clip.keypoints[0], 128, 128)
    assert np.array_equal((agreed[0] & attribute_bit("glasses")) > 0, glasses)
    assert np.array_equal((agreed[0] & attribute_bit("hair")) > 0, ~glasses)
    assert not (agreed & attribute_bit("hat")).any() and (agreed & layer_bit("person")).all()
    supplied = agreed_masks(masks, clip.keypoints, ["glasses"], supplied=("glasses", "hat"))
    assert (supplied & attribute_bit("hat")).all() and not (supplied & attribute_bit("glasses")).any()


def test_expression_regions_hold_their_features(people):
    for clip in people.values():
        points = clip.keypoints[0]
        field = expression_regions(points, 128, 128)
        pixel = np.clip((points[:, :2] * 128).astype(int), 0, 127)
        at = field[pixel[:, 1], pixel[:, 0]]
        for region, groups in (("eyes", ("right_eye", "left_iris", "left_brow")), ("nose", ("nose_bridge",)),
                               ("mouth", ("outer_lips", "inner_lips"))):
            bit = layer_bit(region)
            assert all((at[GROUPS[group]] & bit).all() for group in groups), region
            assert 0.002 < ((field & bit) > 0).mean() < 0.12
        assert not (at[GROUPS["contour"]] & layer_bit("nose")).any() and not (field & 0b11111).any()


# --- head pose ----------------------------------------------------------------------------------------

def test_head_pose_follows_the_drawn_head():
    """Exactly known angles: the procedural world turns its heads by them."""
    motion = sample_motion("train", 5, 24, 6.0)
    clip = render(sample_person("train", 5), motion, 64)
    for column, angle in enumerate((motion.yaw, motion.pitch)):
        found = head_pose(clip.keypoints)[:, column]
        assert np.corrcoef(found, angle)[0, 1] > 0.95
        assert np.abs(found - angle - np.median(found - angle)).mean() < 4
    upright = [np.abs(motion.yaw) + np.abs(motion.pitch) < 15]
    assert np.corrcoef(head_pose(clip.keypoints)[:, 2][tuple(upright)], motion.roll[tuple(upright)])[0, 1] > 0.9


# --- runs of faces ------------------------------------------------------------------------------------

class FakeAnnotator:
    """Gives the meshes of a list, frame after frame."""

    def __init__(self, frames):
        self._frames = iter(frames)

    def reset(self):
        pass

    def meshes(self, image):
        return next(self._frames)

    def mesh(self, image, tracked):
        return max(next(self._frames), key=crop.face_height, default=None)


def faces_of(frames, several=True, cut=None):
    """Faces of meshes frame by frame, over grey pictures that change at `cut`."""
    pictures = [np.full((480, 640, 3), 200 if cut is not None and t >= cut else 50, np.uint8)
                for t in range(len(frames))]
    return track.find_faces(pictures, 25.0, FakeAnnotator(frames), several)


def test_two_faces_make_two_runs_whatever_their_order():
    left, right = face_mesh((150, 240), 120, 30), face_mesh((450, 240), 160, 30)
    left[:, :, 0] += np.arange(30)[:, None] * 3
    faces = faces_of([[a, b] if t % 2 else [b, a] for t, (a, b) in enumerate(zip(left, right, strict=True))])
    assert len(faces.runs) == 2 and {run.person for run in faces.runs} == {0, 1} and faces.faceless() == []
    for run in faces.runs:
        np.testing.assert_array_equal(run.points, left if crop.face_height(run.points)[0] < 140 else right)
    largest, = track.choose_faces(faces.runs, "largest")
    np.testing.assert_array_equal(largest.points, right)
    leftmost, = track.choose_faces(faces.runs, "left")
    np.testing.assert_array_equal(leftmost.points, left)
    assert track.choose_faces(faces.runs, "all") == faces.runs


def test_runs_end_at_cuts_and_where_the_face_is_lost():
    mesh = face_mesh(frames=40)
    faces = faces_of([[] if 10 <= t < 13 else [m] for t, m in enumerate(mesh)], cut=25)
    assert [(run.first, run.last) for run in faces.runs] == [(0, 10), (13, 25), (25, 40)]
    assert faces.faceless() == [(10, 13)] and np.flatnonzero(faces.cuts).tolist() == [25]
    assert {run.person for run in faces.runs} == {0}, "never two at once: one person"
    small = face_mesh(height=track.MIN_FACE_HEIGHT - 2, frames=3)
    assert not faces_of([[m] for m in small]).runs
    jump = np.concatenate([mesh[:5], mesh[:5] + np.float32([120, 0, 0])])
    assert [run.first for run in faces_of([[m] for m in jump], several=False).runs] == [0, 5]


def test_a_face_that_comes_back_is_the_same_person():
    left, right = face_mesh((150, 240), 120, 30), face_mesh((450, 240), 160, 30)
    frames = [[b] if 10 <= t < 15 else [a, b] for t, (a, b) in enumerate(zip(left, right, strict=True))]
    runs = faces_of(frames).runs
    assert len(runs) == 3 and len({run.person for run in runs}) == 2
    assert runs[0].person != runs[1].person and runs[2].person in (runs[0].person, runs[1].person)
    back = next(run for run in runs if run.first == 15)
    assert back.person == next(run.person for run in runs if run.last == 10)


# --- the annotator's environment ----------------------------------------------------------------------

def test_missing_annotator_says_how_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("durian_jax.prepare.environment.FOLDER", "no-such-folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("DURIAN_ANNOTATOR_PYTHON", raising=False)
    with pytest.raises(InputError, match="run `durian annotator`"):
        find_annotator()
    monkeypatch.setenv("DURIAN_ANNOTATOR_PYTHON", str(tmp_path / "python"))
    with pytest.raises(InputError, match="expected a Python executable"):
        find_annotator()


def test_annotator_without_mediapipe_says_so(monkeypatch):
    monkeypatch.setenv("DURIAN_ANNOTATOR_PYTHON", sys.executable)
    with pytest.raises(InputError, match="No module named 'mediapipe'"):
        Annotator()


# --- real portraits -----------------------------------------------------------------------------------

def test_photo(portraits, annotator):
    clip = annotate.annotate_image(portraits / "images" / "lp_d8.jpg", size=128, annotator=annotator)
    assert clip.frames.shape == (1, 128, 128, 3) and clip.identity == "lp_d8"
    contour = clip.keypoints[0, GROUPS["contour"]]
    assert 0.42 < np.ptp(contour[:, 1]) < 0.56 and abs(contour[:, 0].mean() - 0.5) < 0.06
    assert clip.mask("hair").mean() > 0.05 and clip.mask("glasses").mean() > 0.02
    assert not clip.mask("beard").any() and not clip.mask("hat").any()
    # The nose's tip is nearer to the camera than the contour.
    assert clip.keypoints[0, GROUPS["nose_bridge"], 2][-1] < contour[:, 2].mean()


def test_an_attribute_that_hardly_shows_is_said(annotator, tmp_path):
    bare = sample_person("validation", 0).without("glasses", "hat")
    write_image(tmp_path / "bare.png", render(bare, sample_motion("validation", 0, 1), 512).frames[0])
    with pytest.warns(annotate.UnsureAttribute, match="hardly seems to have glasses"):
        annotate.annotate_image(tmp_path / "bare.png", known=("glasses",), annotator=annotator)


def test_photo_without_a_face(portraits, annotator, tmp_path):
    write_image(tmp_path / "grass.png", np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8))
    for path in (tmp_path / "grass.png", portraits / "images" / "lp_s23.jpg"):
        with pytest.raises(InputError, match="no face found in .*; expected one frontal face"):
            annotate.annotate_image(path, annotator=annotator)
    face = read_image(portraits / "images" / "lp_s0.jpg")[::4, ::4]
    write_image(tmp_path / "tiny.png", face)
    with pytest.raises(InputError, match="tiny.png"):
        annotate.annotate_image(tmp_path / "tiny.png", annotator=annotator)


def test_procedural_faces_are_found(annotator, tmp_path):
    """A user feeds the demo's own pictures to `durian animate`."""
    errors = []
    for index in range(4):
        clip = render(sample_person("validation", index), sample_motion("validation", index, 1), size=512)
        mesh = annotator.mesh(clip.frames[0])
        assert mesh is not None, index
        away = mesh[MEDIAPIPE_INDICES, :2] / 512 - clip.keypoints[0, :, :2]
        errors.append(np.linalg.norm(away, axis=-1).mean())
    assert np.mean(errors) < 0.04


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
