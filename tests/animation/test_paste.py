"""Paste-back: place, edges and colours of a crop in its photo, with a stand-in for the person detector."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from durian_jax.animation.paste import paste_back, pasted_size
from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip, layer_bit
from durian_jax.faces.topology import K
from durian_jax.prepare.annotate import annotate_image
from durian_jax.prepare.crop import Box
from durian_jax.synthetic import render, sample_motion, sample_person
from durian_jax.video import write_image

SKIN, SIZE = (200, 60, 60), 128
HEAD = (0.5, 0.45, 0.2)  # x, y and radius of the head in the crop


class Detector:
    """Finds the person by the colour of its skin."""

    def turn(self, image):
        return 0

    def person(self, image):
        return (np.abs(image.astype(int) - SKIN).sum(-1) < 90).astype(np.uint8) * 255


def scene(height, width):
    """Return a photo without a person: smooth colours with fine stripes."""
    y, x = np.mgrid[:height, :width]
    picture = np.stack([60 + 60 * x / width, 120 + 60 * y / height, np.full((height, width), 120)], -1)
    return (picture + 8 * ((x // 2) % 2)[..., None]).astype(np.uint8)


def with_head(picture, x, y, radius):
    """Draw a head, whose trunk reaches down to the lower edge; units of the width."""
    drawn, side = picture.copy(), picture.shape[1]
    at = round(x * side), round(y * side)
    cv2.circle(drawn, at, round(radius * side), SKIN, -1, cv2.LINE_AA)
    cv2.rectangle(drawn, (at[0] - round(0.7 * radius * side), at[1]), (at[0] + round(0.7 * radius * side), 10**4), SKIN,
                  -1)
    return drawn


def portrait_of(photo, x, y, side, size=SIZE):
    """Crop a photo as `annotate_image` does."""
    box = Box(np.array([[x, y]], float), np.array([side], float))
    frame = box.crop(photo, 0, size)
    masks = (Detector().person(frame)[None] > 0) * np.uint8(layer_bit("person"))
    return Clip(frame[None], np.zeros((1, K, 3), np.float32), masks, box=np.array([[x, y, side]], np.float32))


@pytest.fixture(scope="module")
def photo():
    """A person at x = 430, y = 260 in a photo of 700 x 600 pixels; the crop's side is 380."""
    inner = np.s_[70:600, 240:620]
    picture = scene(600, 700)
    picture[inner] = with_head(picture[inner], *HEAD)
    return picture, portrait_of(picture, 430, 260, 380)


def test_a_still_portrait_leaves_the_photo_as_it_is(photo):
    picture, portrait = photo
    (result,) = paste_back(picture, portrait, portrait.frames, Detector())
    changed = np.abs(result.astype(int) - picture).max(-1)
    assert result.shape == picture.shape and changed.max() < 80  # the crop has a third of the photo's pixels
    # All that is not near the person keeps its stripes exactly.
    away = cv2.dilate(Detector().person(picture), np.ones((61, 61))) == 0
    assert away.mean() > 0.6 and not changed[away].any()
    assert np.abs(result.astype(int) - picture).mean() < 1.5


@pytest.mark.parametrize("size", [64, SIZE, 512])
def test_pixels_land_where_they_were_cut(photo, size):
    picture, _ = photo
    portrait = portrait_of(picture, 430.4, 259.7, 379.3, size)
    marked = portrait.frames.copy()
    x, y = 0.55, 0.4
    at = int(x * size), int(y * size)
    cv2.circle(marked[0], at, size // 32, (255, 255, 255), -1)
    (result,) = paste_back(picture, portrait, marked, Detector())
    white = np.argwhere(result.min(-1) > 180)[:, ::-1] + 0.5
    expected = np.array([430.4, 259.7]) + ((np.array(at) + 0.5) / size - 0.5) * 379.3
    np.testing.assert_allclose(white.mean(0), expected, atol=1.0)


def test_the_place_that_a_head_has_left_shows_the_background(photo):
    picture, portrait = photo
    moved = with_head(Box(np.array([[430.0, 260.0]]), np.array([380.0])).crop(scene(600, 700), 0, SIZE),
                      HEAD[0] + 0.1, HEAD[1], HEAD[2])
    (result,) = paste_back(picture, portrait, moved[None], Detector())
    left, right = result[240, 350:362].mean(0), result[240, 536:544].mean(0)
    np.testing.assert_allclose(left, scene(600, 700)[240, 350:362].mean(0), atol=8)
    np.testing.assert_allclose(right, SKIN, atol=8)


def test_colours_are_matched_to_the_photo(photo):
    picture, portrait = photo
    (right,) = paste_back(picture, portrait, portrait.frames, Detector())
    tinted = np.clip(portrait.frames.astype(int) + (14, -10, 6), 0, 255).astype(np.uint8)
    (result,) = paste_back(picture, portrait, tinted, Detector())
    assert np.abs(result.astype(int) - right).mean((0, 1)).max() < 0.5
    face = np.s_[230:270, 400:460]
    np.testing.assert_allclose(result[face].mean((0, 1)), SKIN, atol=3)


def test_a_crop_may_end_at_and_beyond_the_edge_of_its_photo():
    """There, nothing is left of the photo's trunk beside the frame's."""
    picture = with_head(scene(300, 300), *HEAD)
    portrait = portrait_of(picture, 150, 160, 340)
    frame = portrait.frames[0].copy()
    frame[Detector().person(frame) > 0] = (190, 70, 70)
    (result,) = paste_back(picture, portrait, frame[None], Detector())
    assert result.shape == picture.shape
    np.testing.assert_allclose(result[290:, 145:155].mean((0, 1)), (190, 70, 70), atol=4)
    inside = portrait_of(picture, 150, 135, 220)
    (result,) = paste_back(picture, inside, np.where(inside.frames == SKIN[0], 190, inside.frames), Detector())
    np.testing.assert_allclose(result[290:, 145:155].mean((0, 1)), SKIN, atol=1)  # below the crop


def test_frames_follow_each_other_without_flicker(photo):
    """Where a person appears for one frame only, the frame stays, fading, for some more."""
    picture, portrait = photo
    blob = cv2.circle(portrait.frames[0].copy(), (105, 40), 6, SKIN, -1)
    frames = list(paste_back(picture, portrait, [portrait.frames[0], blob, *[portrait.frames[0]] * 12], Detector()))
    there = np.s_[180:200, 545:560]
    changes = [np.abs(frame[there].astype(int) - frames[0][there]).mean() for frame in frames]
    assert changes[1] > 60 and 0 < changes[3] < changes[2] < changes[1] and changes[-1] < 0.1 * changes[2]


def test_large_photos_become_as_large_as_players_take(photo):
    assert pasted_size(1080, 1920) == (1080, 1920) and pasted_size(4096, 2304) == (4096, 2304)
    height, width = pasted_size(3000, 4000)
    assert 9.3e6 < height * width <= 36864 * 256 and width / height == pytest.approx(4 / 3, abs=1e-3)
    assert max(pasted_size(1000, 10000)) == 4096
    picture = cv2.resize(photo[0], (7000, 6000), interpolation=cv2.INTER_CUBIC)
    portrait = replace(photo[1], box=photo[1].box * 10)
    (result,) = paste_back(picture, portrait, portrait.frames, Detector())
    assert result.shape[:2] == pasted_size(6000, 7000)
    small = cv2.resize(result, (700, 600), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - photo[0]).mean() < 3


def test_other_portraits_are_refused(photo):
    picture, portrait = photo
    with pytest.raises(InputError, match="without the place of the crop; annotate the photo again"):
        next(paste_back(picture, replace(portrait, box=None), portrait.frames, Detector()))
    for other, box in ((255 - picture, portrait.box), (picture, portrait.box + 5000)):
        with pytest.raises(InputError, match="found another one; annotate this photo"):
            next(paste_back(other, replace(portrait, box=box), portrait.frames, Detector()))


def test_a_drawn_person_goes_back_into_a_photo(annotator, tmp_path):
    """With the real annotator: its box, masks and person detector."""
    person = sample_person("validation", 4).without("glasses", "hat")
    moving = render(person, sample_motion("validation", 4, 5), size=400).frames
    photo = cv2.copyMakeBorder(moving[0], 60, 40, 100, 140, cv2.BORDER_REPLICATE)
    write_image(tmp_path / "me.png", photo)
    portrait = annotate_image(tmp_path / "me.png", 256, annotator=annotator)
    box = Box(portrait.box[:, :2].astype(float), portrait.box[:, 2].astype(float))
    whole = [cv2.copyMakeBorder(frame, 60, 40, 100, 140, cv2.BORDER_REPLICATE) for frame in moving]
    crops = [box.crop(frame, 0, 256) for frame in whole]
    np.testing.assert_allclose(crops[0].astype(int), portrait.frames[0], atol=12)
    results = list(paste_back(tmp_path / "me.png", portrait, crops, annotator))
    errors = [np.abs(result.astype(int) - frame).mean() for result, frame in zip(results, whole, strict=True)]
    still = [np.abs(photo.astype(int) - frame).mean() for frame in whole]
    assert max(errors) < 1.5 and still[-1] > 2 * errors[-1]
