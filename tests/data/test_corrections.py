"""Corrected masks survive a new preparation: they follow the face into another crop."""

import numpy as np
import pytest

from durian_jax.data.clip_record import Provenance
from durian_jax.data.corrections import Corrections, corrected_clips, keep_correction
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
    clip = RecordedClips(dataset).open(0)
    name, folder = clip.provenance.name, tmp_path / "drawn"
    export_masks(dataset, name, folder)
    for path in (folder / "hair").iterdir():
        square = np.zeros((clip.height, clip.width), np.uint8)
        square[4:12, 8:20] = 255
        write_image(path, square)
    for kind in ("glasses", "beard", "hat", "frames"):
        for path in (folder / kind).iterdir():
            path.unlink()
        (folder / kind).rmdir()
    assert replace_masks(dataset, name, folder)["replaced"] == ["hair"]
    return clip


def test_corrections_return_in_the_same_crop(dataset, corrected):
    origin = corrected.provenance
    video, numbers = origin.name.rpartition("#")[0], origin.first_frame + origin.stride * np.arange(len(corrected))
    masks = np.full((len(corrected), corrected.height, corrected.width), HAT)
    found = Corrections(dataset).apply(video, numbers, corrected.keypoints, masks)
    assert (found[:, 5:11, 9:19] == HAT | HAIR).all() and (found[:, 14:] == HAT).all()
    assert (masks == HAT).all()
    # Other frames, other videos and other faces keep their masks.
    assert (Corrections(dataset).apply(video, numbers + 1000, corrected.keypoints, masks) == HAT).all()
    assert (Corrections(dataset).apply("other", numbers, corrected.keypoints, masks) == HAT).all()
    other = corrected.keypoints[:, ::-1]
    assert (Corrections(dataset).apply(video, numbers, other, masks) == HAT).all()
    assert corrected_clips(dataset) == [origin.name]


def test_corrections_follow_the_face_into_another_crop(dataset, corrected):
    origin = corrected.provenance
    video, side = origin.name.rpartition("#")[0], 2 * corrected.height
    keypoints = _moved(corrected.keypoints, 0.5, 0.25)  # the old crop is the middle of the new one
    masks = np.full((1, side, side), HAIR)
    found = Corrections(dataset).apply(video, [origin.first_frame], keypoints[:1], masks)[0]
    corner = side // 4
    assert (found[corner + 5:corner + 11, corner + 9:corner + 19] == HAIR).all()
    assert not found[corner + 15:corner + 25, corner + 25:corner + 30].any()
    # Nothing is known outside of the corrected crop.
    assert (found[:corner - 1] == HAIR).all()


def test_a_second_correction_keeps_the_first(dataset, corrected):
    masks = np.full((len(corrected), corrected.height, corrected.width), HAIR | HAT)
    keep_correction(dataset, corrected, masks, ["hat"])
    video = corrected.provenance.name.rpartition("#")[0]
    found = Corrections(dataset).apply(video, [corrected.provenance.first_frame], corrected.keypoints[:1],
                                       np.zeros_like(masks[:1]))
    assert (found[:, 2:-2, 2:-2] == HAIR | HAT).all()


def test_copies_keep_what_is_there(dataset, corrected, tmp_path):
    corrections = Corrections(dataset)
    for _ in range(2):
        corrections.copy_to(tmp_path / "new")
    assert corrected_clips(tmp_path / "new") == [corrected.provenance.name]


def test_errors(dataset, corrected, tmp_path):
    with pytest.raises(InputError, match="expected a dataset with corrected masks, found none"):
        Corrections(tmp_path)
    file = next((dataset / "corrections").iterdir())
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(InputError, match="expected corrected masks, found a damaged file"):
        Corrections(dataset)
