"""Attribute files: what they hold, and what is refused."""

import json

import cv2
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from durian_jax.errors import DiskFull, InputError
from durian_jax.faces.topology import ATTRIBUTE_KINDS, K
from durian_jax.prepare.annotate import UnsureAttribute, annotate_image, check_photo
from durian_jax.prepare.attribute_file import (
    BLANK,
    MARGIN,
    SIZES,
    attribute_of_kind,
    kept,
    read_attribute,
    write_attribute,
)
from tests.helpers.attributes import ORIGIN, attribute
from tests.helpers.disk import full_disk
from tests.helpers.faces import clip


@pytest.fixture
def stored(tmp_path):
    """An attribute file, and a function that writes it again with other tensors and metadata."""
    path = tmp_path / "curls.attr"
    write_attribute(path, attribute())
    tensors = load_file(path)
    with safe_open(path, "np") as file:
        about = json.loads(file.metadata()["about"])

    def change(other=None, **values):
        metadata = {name: value for name, value in {**about, **values}.items() if value is not ...}
        save_file({**tensors, **(other or {})}, path, {"about": json.dumps(metadata)})
        return path
    return path, change


@pytest.mark.parametrize("kind", ATTRIBUTE_KINDS)
def test_a_file_holds_the_attribute_and_nothing_else(tmp_path, kind):
    photo, path = {size: clip(3, 1, size) for size in SIZES}, tmp_path / f"{kind}.attr"
    write_attribute(path, attribute(kind, 3))
    found = read_attribute(path)
    assert found.kind == kind and found.origin == ORIGIN
    np.testing.assert_array_equal(found.keypoints, photo[256].keypoints[0])
    for size in SIZES:
        mask = photo[size].mask(kind)[0]
        np.testing.assert_array_equal(found.masks[size], mask)
        np.testing.assert_array_equal(found.pictures[size][kept(mask)], photo[size].frames[0][kept(mask)])
        assert (found.pictures[size][~kept(mask)] == BLANK).all()
        away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        assert kept(mask)[away <= 0.9 * MARGIN].all() and away[kept(mask)].max() < 1.2 * MARGIN, "a narrow edge"
    with safe_open(path, "np") as file:
        assert set(file.metadata()) == {"about"} and set(file.keys()) == {
            "keypoints", *(f"{name}.{size}" for name in ("picture", "mask") for size in SIZES)}


@pytest.mark.parametrize(("size", "stored"), [
    (64, 256), (128, 256), (256, 256), (300, 512), (384, 512), (512, 512), (768, 512)])
def test_any_size_is_made_from_the_next_larger_picture(size, stored):
    found = attribute()
    made = found.clip(size)
    assert made.frames.shape == (1, size, size, 3) and made.identity == "friend"
    mask = made.mask("hair")[0]
    assert mask.mean() == pytest.approx(found.masks[stored].mean(), rel=0.1) and set(np.unique(made.masks)) == {0, 1}
    assert (made.frames[0][mask] == 10).all(axis=-1).mean() > 0.9, "the attribute's colour"
    if size == stored:
        np.testing.assert_array_equal(made.frames[0], found.pictures[size])


def test_it_takes_the_place_of_a_photo_of_its_kind_only(stored):
    path, _ = stored
    np.testing.assert_array_equal(annotate_image(path, 64, known=("hair",)).frames, attribute().clip(64).frames)
    check_photo(path, ("hair",))
    assert attribute_of_kind(path, "hair").kind == "hair"
    for refuse in (check_photo, lambda file, known: annotate_image(file, 64, known)):
        with pytest.raises(InputError, match="expected glasses, found an attribute file of hair; name it as hair=/"):
            refuse(path, ("glasses",))
        for known in (None, (), ("hair", "hat")):
            with pytest.raises(InputError, match="expected a photo of a person, found an attribute file, which shows "
                                                 "only hair"):
                refuse(path, known)


def test_a_doubtful_attribute_warns_each_time(tmp_path):
    write_attribute(tmp_path / "a.attr", attribute(evidence=0.4))
    with pytest.warns(UnsureAttribute, match="a.attr: little evidence of hair was found"):
        annotate_image(tmp_path / "a.attr", 64, known=("hair",))


@pytest.mark.parametrize(("values", "message"), [
    ({"kind": "wig"}, "kind: expected a text that is one of hair, glasses, beard, hat, found 'wig'; save it again"),
    ({"kind": ...}, "kind: expected this field, found none"),
    ({"sha256": "0" * 63 + "x"}, "sha256: expected 64 hexadecimal digits"),
    ({"evidence": float("nan")}, "evidence: expected a finite number from 0"),
    ({"width": True}, "width: expected an integer from 1"),
    ({"author": "me"}, "unknown fields 'author'"),
    ({"format": 2, "version": "9.0.0"},
     r"format: expected 1, found 2; durian-jax '9.0.0' has written it, this is .*; update durian-jax"),
])
def test_wrong_metadata_are_named(stored, values, message):
    _, change = stored
    with pytest.raises(InputError, match=f"curls.attr: {message}"):
        read_attribute(change(**values))


@pytest.mark.parametrize(("other", "message"), [
    ({"mask.256": np.zeros((256, 32), np.uint8)}, "a mask is empty"),
    ({"mask.256": np.ones((256, 256), np.uint8)}, "tensors mask.256: U8 256 256"),
    ({"mask.512": np.ones((512, 64), bool)}, "tensors mask.512: BOOL 512 64"),
    ({"keypoints": np.full((K, 3), np.nan, np.float32)}, "keypoints far outside of the picture"),
    ({"keypoints": np.full((K, 3), 0.5, np.float32)}, "keypoints that are no face"),
    ({"keypoints": np.zeros((K, 3))}, "tensors keypoints: F64 "),
    ({"picture.256": np.zeros(9, np.uint8)}, "no PNG picture of 256 x 256 pixels"),
    ({"picture.512": np.zeros((9, 1), np.uint8)}, "tensors picture.512: U8 9 1"),
    ({"portrait": np.zeros(3, np.float32)}, "tensors portrait: F32 3"),
])
def test_wrong_tensors_are_named(stored, other, message):
    _, change = stored
    with pytest.raises(InputError, match=f"found a damaged or another file .*{message}.*; save it again with durian"):
        read_attribute(change(other))


def test_a_picture_that_claims_another_size_is_not_decoded(stored):
    path, change = stored
    with pytest.raises(InputError, match="no PNG picture of 256 x 256 pixels"):
        read_attribute(change({"picture.256": load_file(path)["picture.512"]}))


def test_types_that_numpy_lacks_are_refused(stored):
    path, _ = stored
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    header["mask.256"]["dtype"] = "F8_E4M3"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length:])
    with pytest.raises(InputError, match="tensors mask.256: F8_E4M3 256 32"):
        read_attribute(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.attr"
    for make, message in ((lambda: None, "no such file; expected an attribute file"),
                          (lambda: path.write_bytes(b"\x89PNG" * 40), "found a damaged or another file"),
                          (lambda: save_file({"x": np.zeros(3)}, path), "it does not say which attribute it holds"),
                          (lambda: path.write_bytes(bytes(17 << 20)), "of at most 16 MB, found 17 MB")):
        make()
        with pytest.raises(InputError, match=message):
            read_attribute(path)


def test_a_full_disk_leaves_the_earlier_file(stored):
    path, _ = stored
    before = path.read_bytes()
    with pytest.raises(DiskFull), full_disk(5000):
        write_attribute(path, attribute("hat"))
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == [path.name]
