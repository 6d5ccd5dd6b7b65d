"""Corrected masks survive a new preparation: they follow the face into another crop."""

import numpy as np
import pytest

from durian_jax.data.clip_record import Provenance
from durian_jax.data.corrections import Corrections, correction_file, has_corrections, keep_correction
from durian_jax.data.mask_files import export_masks, replace_masks
from durian_jax.data.recorded_clips import RecordedClips
from durian_jax.errors import InputError
from durian_jax.faces.clip import attribute_bit
from durian_jax.video import write_image
from tests.helpers.data import write_dataset

HAIR, HAT = np.uint8(attribute_bit("hair")), np.uint8(attribute_bit("hat"))


def _moved(keypoints, scale, shift):
    return np.concatenate([keypoints[..., :2] * scale + shift, keypoints[..., 2:]], -1).astype(np.float32)


@pytest.fixture
def dataset(tmp_path, clips_with_margin):
    origins = [Provenance(f"talk#{100 * i}", "videos/talk.mp4", 100 * i, 2, {}) for i in range(6)]
    return write_dataset(tmp_path / "set", clips_with_margin, origins)


@pytest.fixture
def corrected(dataset, tmp_path):
    """A dataset with a square as the hair of its first clip."""
    first = RecordedClips(dataset).open(0)
    name, folder = first.provenance.name, tmp_path / "drawn"
    export_masks(dataset, name, folder)
    for path in (folder / "hair").iterdir():
        square = np.zeros((first.height, first.width), np.uint8)
        square[4:12, 8:20] = 255
        write_image(path, square)
    for kind in ("glasses", "beard", "hat", "frames"):
        for path in (folder / kind).iterdir():
            path.unlink()
        (folder / kind).rmdir()
    assert replace_masks(dataset, name, folder)["replaced"] == ["hair"]
    return first


def numbers_of(clip):
    return clip.provenance.first_frame + clip.provenance.stride * np.arange(len(clip))


def test_corrections_return_in_the_same_crop(dataset, corrected):
    name, numbers = corrected.provenance.name, numbers_of(corrected)
    masks = np.full((len(corrected), corrected.height, corrected.width), HAT)
    corrections = Corrections([dataset])
    found = corrections.apply(name, numbers, corrected.keypoints, masks)
    assert (found[:, 5:11, 9:19] == HAT | HAIR).all() and (found[:, 14:] == HAT).all()
    assert (masks == HAT).all()
    assert corrections.files("talk") == [correction_file(dataset, corrected)]
    # Other frames, videos and people keep their masks, and so does another face under the same name.
    other = corrected.keypoints * np.float32([1, 1.1, 1])  # a longer face
    for clip_name, frames, points in ((name, numbers + 1000, corrected.keypoints), ("other#0", numbers,
                                      corrected.keypoints), (f"{name}-1", numbers, corrected.keypoints),
                                      (name, numbers, other)):
        assert (corrections.apply(clip_name, frames, points, masks) == HAT).all()


def test_corrections_follow_the_face_into_another_crop(dataset, corrected):
    side = 2 * corrected.height
    keypoints = _moved(corrected.keypoints, 0.5, 0.25)  # the old crop is the middle of the new one
    masks = np.full((1, side, side), HAIR)
    found = Corrections([dataset]).apply("talk#0", [0], keypoints[:1], masks)[0]
    corner = side // 4
    assert (found[corner + 5:corner + 11, corner + 9:corner + 19] == HAIR).all()
    assert not found[corner + 15:corner + 25, corner + 25:corner + 30].any()
    # Nothing is known outside of the corrected crop.
    assert (found[:corner - 1] == HAIR).all()


def test_a_second_correction_keeps_the_first(dataset, corrected):
    masks = np.full((len(corrected), corrected.height, corrected.width), HAIR | HAT)
    keep_correction(dataset, corrected, masks, ["hat"])
    assert len(list((dataset / "corrections").iterdir())) == 1
    found = Corrections([dataset]).apply("talk#0", [0], corrected.keypoints[:1], np.zeros_like(masks[:1]))
    assert (found[:, 2:-2, 2:-2] == HAIR | HAT).all()


def test_clips_that_were_cut_differently_have_their_own_corrections_and_the_newest_counts(dataset, corrected, tmp_path):
    """The frames of a longer clip that a shorter one does not cover stay corrected."""
    shape = (len(corrected), corrected.height, corrected.width)
    part = write_dataset(tmp_path / "part", [RecordedClips(dataset)[0]], [corrected.provenance])
    short = RecordedClips(part).open(0)
    short.keypoints = short.keypoints[:2]
    assert len(short) == 2
    keep_correction(part, short, np.full((2, *shape[1:]), HAIR), ["hair"])
    for places in ([dataset, part], [part, dataset]):
        found = Corrections(places).apply("talk#0", numbers_of(corrected), corrected.keypoints,
                                          np.zeros(shape, np.uint8))
        assert (found[:2, 2:-2, 2:-2] == HAIR).all()
        assert (found[2:, 14:] == 0).all() and (found[2:, 5:11, 9:19] == HAIR).all()


def test_copies_keep_what_is_there(dataset, corrected, tmp_path):
    corrections = Corrections([dataset])
    for _ in range(2):
        corrections.copy_to(tmp_path / "new")
    assert correction_file(tmp_path / "new", corrected).is_file() and has_corrections(tmp_path / "new")


def test_leftovers_of_a_killed_process_do_not_matter(dataset, corrected):
    (dataset / "corrections" / ".half.x.safetensors").write_bytes(b"half")
    assert len(Corrections([dataset]).files("talk")) == 1


def test_errors(dataset, corrected, tmp_path):
    with pytest.raises(InputError, match="expected a dataset with corrected masks, found none"):
        Corrections([tmp_path])
    file = correction_file(dataset, corrected)
    whole = file.read_bytes()
    for change in (lambda data: data[:50], lambda data: data.replace(b'stride\\": 2', b'stride\\": 0'),
                   lambda data: data.replace(b'first\\": 0', b'first\\": x'),
                   lambda data: data.replace(b'"F32"', b'"I32"'), lambda data: data.replace(b'"U8"', b'"I8"'),
                   lambda data: data.replace(corrected.keypoints[:1, :1].astype(np.float32).tobytes(),
                                             np.full((1, 1, 3), np.inf, np.float32).tobytes())):
        assert change(whole) != whole
        file.write_bytes(change(whole))
        with pytest.raises(InputError, match="expected corrected masks, found a damaged file"):
            Corrections([dataset])
