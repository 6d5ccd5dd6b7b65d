"""Colours of faces, measured and exchanged."""

from dataclasses import replace

import numpy as np

from durian_jax.faces.clip import Clip
from durian_jax.faces.face_colours import face_colours, face_parts, recoloured
from durian_jax.synthetic import Person, render, sample_person, still

SIZE = 128


def bare(index: int) -> Person:
    return sample_person("validation", index).without("glasses", "hat", "beard")


def photo(person: Person) -> Clip:
    return render(person, still(), SIZE)


def colours(clip: Clip):
    return face_colours(clip.frames[0], clip.keypoints[0], clip.masks[0] > 0)


def test_measured_colours_are_those_of_the_person():
    for index in (2, 5, 9):
        person = bare(index)
        found, identity = colours(photo(person)), person.identity
        assert abs(found.skin - identity.skin).max() < 30  # light and blush
        assert abs(found.irises - identity.iris).max() < 60  # a few pixels with pupil and highlight
        assert abs(found.brows - identity.brow).max() < 45


def test_a_face_gets_the_wanted_colours():
    person, other = bare(2), bare(5)
    clip, wanted = photo(person), colours(photo(other))
    own = colours(clip)
    points, box = clip.keypoints[0, :, :2] * SIZE, (0, 0, SIZE, SIZE)
    painted = recoloured(clip.frames[0], points, box, own, wanted)
    found = face_colours(painted, clip.keypoints[0], clip.masks[0] > 0)
    for name in ("skin", "lips", "brows"):
        before, after = (np.abs(getattr(x, name) - getattr(wanted, name)).mean() for x in (own, found))
        assert after < max(0.3 * before, 6), name


def test_no_change_of_colours_changes_no_pixel():
    clip = photo(bare(2))
    own = colours(clip)
    same = recoloured(clip.frames[0], clip.keypoints[0, :, :2] * SIZE, (0, 0, SIZE, SIZE), own, own)
    assert abs(same.astype(int) - clip.frames[0]).max() <= 1


def test_teeth_and_whites_of_eyes_keep_their_colours():
    clip = render(bare(2), replace(still(), mouth=np.ones(1, np.float32)), SIZE)
    points, box = clip.keypoints[0, :, :2] * SIZE, (0, 0, SIZE, SIZE)
    own, wanted = colours(clip), colours(photo(bare(5)))
    painted = recoloured(clip.frames[0], points, box, own, wanted)
    parts = face_parts(points, box)
    inside = (parts["mouth"] > 0.9) | ((parts["eyes"] > 0.9) & (parts["irises"] < 0.05))
    change = abs(painted.astype(int) - clip.frames[0]).mean(-1)
    skin = abs(own.skin - wanted.skin).mean()
    assert inside.sum() > 20 and change[inside].mean() < 0.45 * skin


def test_a_box_shows_a_part_of_the_picture():
    clip = photo(bare(2))
    own, wanted = colours(clip), colours(photo(bare(5)))
    points = clip.keypoints[0, :, :2] * SIZE
    whole = recoloured(clip.frames[0], points, (0, 0, SIZE, SIZE), own, wanted)
    part = recoloured(clip.frames[0][30:100, 20:110], points, (20, 30, 90, 70), own, wanted)
    np.testing.assert_array_equal(part[2:-2, 2:-2], whole[32:98, 22:108])
