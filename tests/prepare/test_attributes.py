"""Heuristic masks of attributes, and the face regions that they use."""

import numpy as np
import pytest

from durian_jax.errors import InputError
from durian_jax.faces.clip import layer_bit
from durian_jax.faces.regions import (
    beard_region,
    expression_regions,
    face_frame,
    landing_region,
    moustache_region,
)
from durian_jax.faces.topology import ATTRIBUTE_KINDS, GROUPS
from durian_jax.prepare.attributes import Evidence, attribute_masks, beard_masks
from tests.helpers.prepare import wearers


@pytest.fixture(scope="module")
def people():
    return wearers()


def test_masks_of_a_drawn_head(people):
    """On a grey picture with a face of one colour and hair of another, the mask is the hair."""
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


# --- regions ------------------------------------------------------------------------------------------

def test_regions_cover_their_attributes(people):
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


def test_expression_regions_cover_their_features(people):
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


def test_the_least_certain_kind():
    evidence = Evidence(hair=1.4, glasses=0.75, beard=0.0, hat=2.5)
    assert evidence.least_certain() == ("glasses", 0.71)
    assert evidence.least_certain(("glasses",)) == ("hair", 0.83)
    assert evidence.least_certain(("glasses", "hair")) == ("beard", 1.0)
    assert evidence.least_certain(ATTRIBUTE_KINDS) == ("", 1.0)


@pytest.mark.parametrize(("dark", "expected"), [(moustache_region, moustache_region), (beard_region, beard_region)])
def test_a_moustache_alone_is_no_whole_beard(people, dark, expected):
    face = face_frame(people["beard"].keypoints[0], 128, 128)
    lab = np.full((1, 128, 128, 3), (180, 128, 128), np.uint8)
    lab[0, dark(face)] = (40, 128, 128)
    mask, evidence = beard_masks(lab, [face])
    assert np.array_equal(mask[0], expected(face)) and evidence > 1
    assert moustache_region(face).sum() < 0.4 * beard_region(face).sum()
    assert beard_masks(np.full_like(lab, 180), [face])[1] == 0
