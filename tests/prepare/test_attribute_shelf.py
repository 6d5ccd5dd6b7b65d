"""Attributes of photos in files: a model gets the same from a file as from its photo."""

import hashlib
import warnings
from dataclasses import replace

import cv2
import numpy as np
import pytest

from durian_jax.errors import InputError
from durian_jax.inference import durian, svdp
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.svdp.config import SVDPConfig
from durian_jax.models.unet.config import UNetConfig
from durian_jax.prepare.annotate import FaceChosen, UnsureAttribute, annotate_image
from durian_jax.prepare.attribute_file import BLANK, SIZES, read_attribute, write_attribute
from durian_jax.prepare.attribute_shelf import (
    describe_attribute,
    draw_attribute,
    list_attributes,
    save_attribute,
    summarize_attribute,
)
from durian_jax.prepare.check import check_files, describe
from durian_jax.synthetic import render, sample_motion, sample_person
from durian_jax.video import write_image
from tests.helpers.attributes import attribute
from tests.helpers.inference import RecordingBackend


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Drawn photos of larger pictures than any model's: me, and friends who wear all kinds."""
    folder = tmp_path_factory.mktemp("people")
    made = {"me": sample_person("validation", 0).without("glasses", "hat")}
    made |= {kind: sample_person("validation", 3, require=(kind,)).without(*{"hat"} - {kind})
             for kind in ("hair", "glasses", "beard", "hat")}
    for number, (name, person) in enumerate(made.items()):
        picture = render(person, sample_motion("validation", number, 1), 640).frames[0]
        write_image(folder / f"{name}.png", picture)
    return folder


@pytest.fixture(scope="module")
def shelf(people, annotator, tmp_path_factory):
    """An attribute file of each kind."""
    folder = tmp_path_factory.mktemp("shelf")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsureAttribute)
        for kind in ("hair", "glasses", "beard", "hat"):
            save_attribute(people / f"{kind}.png", kind, folder / f"{kind}.attr", annotator=annotator)
    return folder


def photo_and_file(people, shelf, annotator, kind, size):
    """The same attribute from a photo and from its file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsureAttribute)
        return (annotate_image(people / f"{kind}.png", size, known=(kind,), annotator=annotator),
                annotate_image(shelf / f"{kind}.attr", size, known=(kind,)))


def same_fields(make, photos, files):
    """Compare the batches of `make` of attributes from photos and from files."""
    expected, found = make(photos), make(files)
    assert set(expected) == set(found) >= {"portrait", "portrait_mask", "attributes", "attribute_masks"}
    assert expected["attributes"].any()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("size", [32, 128, 256, 512])
def test_models_get_the_same_from_a_file_as_from_its_photo(people, shelf, annotator, size):
    """All fields of the batch are equal: one kind at a time, all together, and with pictures that are aligned first."""
    portrait = annotate_image(people / "me.png", size, annotator=annotator)
    driving = render(sample_person("validation", 7), sample_motion("validation", 7, 3), size)
    both = {kind: photo_and_file(people, shelf, annotator, kind, size) for kind in ("hair", "glasses", "beard", "hat")}
    photos, files = ([(kind, pair[which]) for kind, pair in both.items()] for which in (0, 1))
    backend = RecordingBackend(DurianConfig(image_size=size, max_frames=4, unet=UNetConfig(positions=False)))
    pixels = RecordingBackend(SVDPConfig(image_size=size, max_frames=4, history=2, aligned_pictures=True))

    def of_durian(attributes, **options):
        return durian.make_job(backend, portrait, attributes, driving, **options).batch

    def of_svdp(attributes):
        job = svdp.make_job(pixels, portrait, attributes, driving, absolute=True)
        return {**job.batch, **job.segment(0, [])}
    for photo, file in zip(photos, files, strict=True):
        same_fields(of_durian, [photo], [file])
        same_fields(of_durian, [photo, photo], [file, photo])
    same_fields(of_durian, photos, files)
    same_fields(of_svdp, photos, files)
    if size >= 128:
        same_fields(lambda attributes: of_durian(attributes, align_attributes=True), photos, files)


def test_models_that_see_whole_pictures_get_a_blank_one(people, shelf, annotator):
    """The ablation without masks of references is the one difference."""
    config = DurianConfig(image_size=128, max_frames=4, masked_references=False)
    portrait = annotate_image(people / "me.png", 128, annotator=annotator)
    photo, file = photo_and_file(people, shelf, annotator, "hair", 128)
    one, other = (durian.transfer_batch(RecordingBackend(config), [(portrait, [("hair", clip)])])
                  for clip in (photo, file))
    inside = one["attribute_masks"][0, 0, ..., 0] > 0
    np.testing.assert_array_equal(one["attributes"][0, 0][inside], other["attributes"][0, 0][inside])
    assert (one["attributes"] != other["attributes"]).any()


@pytest.mark.parametrize("size", [320, 384])
def test_between_the_stored_sizes_pixels_and_outlines_differ_little(people, shelf, annotator, size):
    for kind in ("hair", "glasses"):
        photo, file = photo_and_file(people, shelf, annotator, kind, size)
        mask, other = photo.mask(kind)[0], file.mask(kind)[0]
        assert (mask & other).sum() > 0.95 * (mask | other).sum()
        difference = np.abs(photo.frames[0].astype(int) - file.frames[0])[mask & other]
        assert difference.mean() < 2
        np.testing.assert_array_equal(photo.keypoints, file.keypoints)


def test_the_origin_is_that_of_the_photo(people, shelf, annotator, tmp_path):
    found = read_attribute(shelf / "hair.attr")
    photo = people / "hair.png"
    assert found.origin.photo == "hair.png" and found.origin.sha256 == hashlib.sha256(photo.read_bytes()).hexdigest()
    clip = annotate_image(photo, 256, known=("hair",), annotator=annotator)
    assert (found.origin.width, found.origin.height, found.origin.masker) == (640, 640, "default")
    assert found.origin.crop == pytest.approx(clip.box[0, 2], abs=0.1) and found.origin.evidence >= 1
    assert found.origin.face_height == pytest.approx(0.47 * found.origin.crop, rel=0.2)
    saved = save_attribute(photo, "hair", tmp_path / "new" / "a.attr", masker="heuristic", annotator=annotator)
    assert saved.origin == read_attribute(tmp_path / "new" / "a.attr").origin
    assert saved.origin.masker == "heuristic" and (saved.masks[256] != found.masks[256]).any()
    text = describe_attribute("a.attr", saved)
    assert text.startswith("a.attr: hair, ") and "hair.png, 640 x 640" in text and saved.origin.sha256 in text


def test_another_face_can_be_chosen(people, annotator, tmp_path):
    pictures = [cv2.imread(str(people / f"{name}.png"))[..., ::-1] for name in ("hair", "me")]
    write_image(tmp_path / "two.png", np.hstack(pictures))
    with pytest.warns(FaceChosen, match="used: the leftmost one"):
        left = save_attribute(tmp_path / "two.png", "hair", tmp_path / "l.attr", face="left", annotator=annotator)
    with pytest.warns(FaceChosen, match="used: number 2 from the left"):
        right = save_attribute(tmp_path / "two.png", "hair", tmp_path / "r.attr", face="2", annotator=annotator)
    assert left.origin.face == "left" and right.origin.face == "2"
    assert np.abs(left.keypoints - right.keypoints).max() > 0.01


def test_mistakes_are_named_before_the_photo_is_looked_at(people, tmp_path):
    class Untouched:
        def __getattr__(self, name):
            pytest.fail("the photo was looked at")
    write_attribute(tmp_path / "a.attr", attribute())
    photo = people / "hair.png"
    for given, options, message in (
            ((photo, "wig", "b.attr"), {}, "unknown attribute kind 'wig'"),
            ((photo, "hair", "b.png"), {}, "expected a name ending in .attr"),
            ((photo, "hair", "b.attr"), {"face": "middle"}, "face: expected largest, left, right or a number"),
            ((photo, "hair", "b.attr"), {"masker": "magic"}, "unknown masker 'magic'"),
            ((people / "none.png", "hair", "b.attr"), {}, "none.png: no such file"),
            ((tmp_path / "a.attr", "hair", "b.attr"), {}, "expected a photo, found an attribute file")):
        with pytest.raises(InputError, match=message):
            save_attribute(given[0], given[1], tmp_path / given[2], annotator=Untouched(), **options)
    assert [path.name for path in tmp_path.iterdir()] == ["a.attr"]


def test_nothing_is_written_if_the_person_does_not_wear_it(people, annotator, tmp_path):
    with pytest.raises(InputError, match=r"me.png: no glasses found on the person \(found: hair"):
        save_attribute(people / "me.png", "glasses", tmp_path / "a.attr", annotator=annotator)
    assert not list(tmp_path.iterdir())


def test_a_doubtful_attribute_warns_once(people, annotator, tmp_path):
    with pytest.warns(UnsureAttribute, match="little evidence of beard") as given:
        saved = save_attribute(people / "me.png", "beard", tmp_path / "a.attr", annotator=annotator)
    assert len(given) == 1 and saved.origin.evidence < 1 and "(unsure; the" in describe_attribute("a.attr", saved)


def test_the_drawing_shows_what_the_file_holds():
    found = attribute("beard")
    picture, mask = draw_attribute(found), found.masks[512]
    left, right = picture[:, :512], picture[:, 512:]
    assert picture.shape == (512, 1024, 3)
    np.testing.assert_array_equal(left[mask], found.pictures[512][mask])
    corner = left[:32, :32].astype(int)
    assert set(np.unique(corner)) == {105, 150} and (found.pictures[512][:32, :32] == BLANK).all()
    outline = (right == (255, 0, 200)).all(-1)
    assert (outline <= mask).all() and outline[np.flatnonzero(mask.any(1))[0]].any()
    assert 0 < outline.sum() < 0.3 * mask.sum()
    eye = (found.keypoints[:, :2] * 512).astype(int)
    inside = ((eye >= 0) & (eye < 512)).all(1)
    assert (left[eye[inside, 1], eye[inside, 0]] != right[eye[inside, 1], eye[inside, 0]]).any(-1).mean() > 0.9


def test_a_folder_is_listed(tmp_path):
    write_attribute(tmp_path / "b.attr", attribute("hat", photo="aunt\n.jpg"))
    write_attribute(tmp_path / "a.ATTR", attribute())
    (tmp_path / "c.attr").write_bytes(b"nothing")
    (tmp_path / "d.png").touch()
    (tmp_path / ".b.attr").touch()
    (first, hair), (second, hat), (third, error) = list_attributes(tmp_path)
    assert [path.name for path in (first, second, third)] == ["a.ATTR", "b.attr", "c.attr"]
    assert hair.kind == "hair" and hat.kind == "hat" and isinstance(error, InputError)
    assert summarize_attribute("b.attr", hat) == ("b.attr: hat of aunt .jpg (640 x 480), crop 420 px, evidence 1.50, "
                                                  "2026-12-01")
    for folder, message in ((tmp_path / "none", "none: cannot be read"), (tmp_path / "d.png", "cannot be read")):
        with pytest.raises(InputError, match=message):
            list(list_attributes(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="expected attribute files .*, found none; durian attribute save makes them"):
        list(list_attributes(tmp_path / "empty"))


def test_attribute_files_are_checked(annotator, tmp_path):
    write_attribute(tmp_path / "a.attr", attribute())
    write_attribute(tmp_path / "b.attr", replace(attribute(), origin=attribute(evidence=0.3).origin))
    (tmp_path / "c.attr").write_bytes(b"nothing")
    good, plain, wrong, unsure, damaged = check_files(
        [], annotator, [("hair", tmp_path / "a.attr")]) + check_files(
        [tmp_path / "a.attr"], annotator, [("glasses", tmp_path / "a.attr"), ("hair", tmp_path / "b.attr"),
                                           ("hair", tmp_path / "c.attr")])
    assert good.ok and plain.ok and not good.findings and not plain.findings
    assert describe(good) == (f"{tmp_path}/a.attr: attribute file to take hair from, 640 x 480, face 200 px high "
                              "(enough for models up to 420 px)\n  ok")
    for report, level, code, words in (
            (wrong, "error", "no-attribute", "expected glasses, found an attribute file of hair"),
            (unsure, "warning", "unsure-attribute", "little evidence of hair"),
            (damaged, "error", "unreadable", "found a damaged or another file")):
        finding, = report.findings
        assert (finding.level, finding.code) == (level, code) and words in finding.message, describe(report)
    assert SIZES[-1] == 512  # the size up to which files have detail; docs/animate.md
