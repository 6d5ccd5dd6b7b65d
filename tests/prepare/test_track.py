"""Runs of faces in a video, and the person of each run."""

import numpy as np
import pytest

from durian_jax.errors import InputError
from durian_jax.prepare import annotate, crop, track
from durian_jax.video import iterate_video, probe_video
from tests.helpers.prepare import face_mesh


class FakeAnnotator:
    """An annotator that returns given meshes, frame by frame."""

    def __init__(self, frames):
        self._frames = iter(frames)

    def reset(self):
        pass

    def follow(self, image):
        return next(self._frames)


def faces_of(frames, cut=None):
    """Return the faces found in the given meshes per frame, over grey pictures that change at `cut`."""
    pictures = [np.full((480, 640, 3), 200 if cut is not None and t >= cut else 50, np.uint8)
                for t in range(len(frames))]
    return track.find_faces(pictures, 25.0, FakeAnnotator(frames))


def test_two_faces_make_two_runs_in_any_order():
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
    assert {run.person for run in faces.runs} == {0}, "a video that never shows two faces at once has one person"
    small = face_mesh(height=track.MIN_FACE_HEIGHT - 2, frames=3)
    assert not faces_of([[m] for m in small]).runs
    jump = np.concatenate([mesh[:5], mesh[:5] + np.float32([120, 0, 0])])
    assert [run.first for run in faces_of([[m] for m in jump]).runs] == [0, 5]


def test_a_face_that_comes_back_is_the_same_person():
    left, right = face_mesh((150, 240), 120, 30), face_mesh((450, 240), 160, 30)
    frames = [[b] if 10 <= t < 15 else [a, b] for t, (a, b) in enumerate(zip(left, right, strict=True))]
    runs = faces_of(frames).runs
    assert len(runs) == 3 and len({run.person for run in runs}) == 2
    assert runs[0].person != runs[1].person and runs[2].person in (runs[0].person, runs[1].person)
    back = next(run for run in runs if run.first == 15)
    assert back.person == next(run.person for run in runs if run.last == 10)


def test_a_short_second_face_is_taken_for_a_false_detection():
    left, right = face_mesh((150, 240), 120, 40), face_mesh((450, 240), 160, 40)
    passing = faces_of([[a, b] if 10 <= t < 20 else [a] for t, (a, b) in enumerate(zip(left, right, strict=True))])
    assert [(run.first, run.last) for run in passing.runs] == [(0, 40)]
    staying = faces_of([[a, b] if 10 <= t < 30 else [a] for t, (a, b) in enumerate(zip(left, right, strict=True))])
    assert len({run.person for run in staying.runs}) == 2


def test_a_person_is_chosen_by_size_place_or_number():
    left, middle, right = (face_mesh((x, 240), height, 30) for x, height in ((100, 90), (320, 160), (540, 120)))
    runs = faces_of([list(frame) for frame in zip(right, middle, left, strict=True)]).runs
    for which, expected in {"largest": middle, "left": left, "right": right, "1": left, "3": right}.items():
        (run,) = track.choose_person(runs, which)
        np.testing.assert_array_equal(run.points, expected)
    with pytest.raises(InputError, match="expected a number from 1 to 3"):
        track.choose_person(runs, "4")
    with pytest.raises(InputError, match="expected largest, left, right or a number"):
        track.choose_person(runs, "middle")


def test_gaps_are_bridged():
    mesh = face_mesh(frames=40)
    mesh[:, :, 0] += np.arange(40)[:, None]
    faces = faces_of([[] if 3 <= t < 7 or t >= 38 else [m] for t, m in enumerate(mesh)])
    (run,) = track.bridge(faces.runs, faces.cuts, 4)
    assert (run.first, run.last) == (0, 40) and np.flatnonzero(~run.seen).tolist() == [3, 4, 5, 6, 38, 39]
    np.testing.assert_allclose(run.points[:38], mesh[:38], atol=1e-3)
    np.testing.assert_array_equal(run.points[38:], mesh[[37, 37]])
    (held,) = track.bridge(faces.runs, faces.cuts, 3)
    np.testing.assert_array_equal(held.points[3:7], mesh[[2, 2, 2, 2]])
    cut = faces_of([[] if 3 <= t < 7 else [m] for t, m in enumerate(mesh)], cut=5)
    assert [(run.first, run.last) for run in track.bridge(cut.runs, cut.cuts, 4)] == [(0, 5), (5, 40)]


@pytest.mark.parametrize("longer", [0, 1])
def test_gaps_of_up_to_half_a_second_are_bridged(longer):
    """At 25 frames per second these are 12 frames."""
    last = 20 + 12 + longer
    faces = faces_of([[] if 20 <= t < last else [m] for t, m in enumerate(face_mesh(frames=60))])
    if longer:
        with pytest.raises(InputError, match="frames 20-32; expected one in every frame, or none for at most 12 fra"):
            annotate._bridged("a.mp4", faces, faces.faceless(), "bridge")
        with pytest.warns(annotate.FramesBridged, match="the face stands still"):
            annotate._bridged("a.mp4", faces, faces.faceless(), "hold")
        return
    with pytest.warns(annotate.FramesBridged, match="no face in frames 20-31 of 60; the face moves on to where it is"):
        (run,) = annotate._bridged("a.mp4", faces, faces.faceless(), "bridge")
    assert (run.first, run.last) == (0, 60)


def test_one_woman_is_one_person(annotator, portraits):
    """Other tracks found a second person in this video."""
    path = portraits / "cases" / "phantom.mp4"
    faces = track.find_faces(iterate_video(path), probe_video(path).fps, annotator)
    assert {run.person for run in track.choose_faces(faces.runs, "all")} == {0}
