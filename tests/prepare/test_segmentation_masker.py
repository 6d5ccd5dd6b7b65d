"""The segmentation masker takes hair, hats and glasses from the networks, and says how sure it is."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from durian_jax.errors import InputError
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.topology import ATTRIBUTE_KINDS, POSITION
from durian_jax.faces.warp import transform_keypoints
from durian_jax.prepare import segmentation_masker
from durian_jax.prepare.segmentation_masker import SegmentationMasker
from durian_jax.segmentation.features import SIDE
from durian_jax.synthetic import render, sample_motion, sample_person

HAIR, HAT = slice(4, 40), slice(4, 20)  # rows of the picture of 64 px


@pytest.fixture
def masker(monkeypatch):
    """A masker whose network answers with fixed logits of hair and hat."""
    def network(folder):
        def head(features):
            logits = np.full((len(features), SIDE, SIDE, 4), -6.0, np.float32)
            for index, rows, sure in answer.regions:
                logits[:, rows.start * SIDE // 64:rows.stop * SIDE // 64, :, index] = sure
            return logits
        answer = SimpleNamespace(head=head, eyes=lambda features: np.full(len(features), answer.glasses),
                                 regions=[(0, HAIR, 6.0)], glasses=-5.0)
        return answer
    monkeypatch.setattr(segmentation_masker, "Network", network)
    return SegmentationMasker("folder")


def clip():
    """Two grey frames with keypoints and person."""
    keypoints = render(sample_person("validation", 3), sample_motion("validation", 3, 2), 64).keypoints
    return np.full((2, 64, 64, 3), 120, np.uint8), keypoints, np.full((2, 64, 64), 255, np.uint8)


def share(masks, kind, rows):
    return ((masks & attribute_bit(kind)) > 0)[:, rows].mean()


def test_hair_comes_from_the_network(masker):
    masks, evidence = masker(*clip())
    assert evidence.hair > 1 and evidence.hat == 0
    assert share(masks, "hair", slice(8, 36)) == 1 and share(masks, "hair", slice(46, 64)) == 0


def test_a_hat_is_in_front_of_hair_or_is_hair_if_it_is_ruled_out(masker):
    masker._network.regions = [(0, HAIR, 6.0), (3, HAT, 6.0)]
    masks, evidence = masker(*clip())
    assert evidence.hat > 1 and share(masks, "hat", slice(8, 16)) == 1
    assert share(masks, "hair", slice(8, 16)) == 0 and share(masks, "hair", slice(26, 36)) == 1
    masks, evidence = masker(*clip(), ("hair",))
    assert evidence.hat == 0 and share(masks, "hat", slice(0, 64)) == 0 and share(masks, "hair", slice(8, 36)) == 1


def test_a_hat_that_the_user_names_covers_the_upper_head(masker):
    masks, evidence = masker(*clip(), ("hat",))
    assert evidence.hat == 0, "little evidence is reported as such"
    assert share(masks, "hat", slice(8, 16)) == 1
    assert not ((masks & attribute_bit("hat") > 0) & (masks & attribute_bit("hair") > 0)).any()


def test_hair_may_fill_the_picture(masker):
    masker._network.regions = [(0, slice(0, 64), 6.0)]
    assert share(masker(*clip())[0], "hair", slice(0, 64)) == 1


def test_parts_away_from_the_head_and_highlights_are_no_hair(masker, monkeypatch):
    def logits(frames, keypoints, person):
        layers = {kind: np.full(frames.shape[:3], -6, np.float32) for kind in ATTRIBUTE_KINDS}
        for rows, columns in regions:
            layers["hair"][:, rows, columns] = 6
        return layers
    monkeypatch.setattr(masker, "logits", logits)
    everywhere = slice(0, 64)
    regions = [(slice(0, 16), everywhere), (slice(56, 64), everywhere)]
    masks, _ = masker(*clip())
    assert share(masks, "hair", slice(0, 14)) == 1 and share(masks, "hair", slice(50, 64)) == 0
    # The island on the forehead, between the brows and the hairline, is a highlight.
    x, y = (clip()[1][0, POSITION[10], :2] * 64).astype(int)
    regions = [(slice(0, y - 3), everywhere), (slice(y + 2, y + 5), slice(x - 2, x + 2))]
    masks, _ = masker(*clip())
    assert share(masks, "hair", slice(0, y - 6)) == 1 and share(masks, "hair", slice(y, 64)) == 0


def test_tilted_heads_are_shown_upright(masker, monkeypatch):
    frames, keypoints, person = clip()
    turn = cv2.getRotationMatrix2D((32, 32), 30, 1)
    seen = []
    monkeypatch.setattr(segmentation_masker, "head_features", lambda frame, points, person: seen.append(
        points) or np.zeros((SIDE, SIDE, 10), np.float32))
    masks, _ = masker(frames, np.stack([transform_keypoints(points, turn, 64, 64) for points in keypoints]), person)
    np.testing.assert_allclose(np.stack(seen)[..., :2], keypoints[..., :2], atol=0.06)
    # The rows of hair are turned back.
    columns = np.nonzero((masks[0] & attribute_bit("hair"))[36:44] > 0)[1]
    top = transform_keypoints(keypoints[0], turn, 64, 64)[POSITION[10], 0] * 64
    assert (columns.mean() < 32) == (top < 32), "hair hangs lower on the side to which the head is tilted"


def test_little_or_unsure_hair_is_no_hair(masker):
    masker._network.regions = []
    masks, evidence = masker(*clip())
    assert evidence.hair == 0 and not (masks & attribute_bit("hair")).any()


def test_glasses_come_from_the_eyes_and_the_bridge(masker, monkeypatch):
    masks, evidence = masker(*clip())
    assert evidence.glasses < 0.1 and not share(masks, "glasses", slice(0, 64))
    masker._network.glasses = 2.0
    masks, evidence = masker(*clip())
    assert evidence.glasses > 1 and share(masks, "glasses", slice(0, 64)) > 0
    # A clear line across the bridge decides uncertain cases, but not against the network.
    monkeypatch.setattr(segmentation_masker, "glasses_evidence", lambda frames, faces: 3.0)
    for logit, worn in ((-1.5, True), (-4.0, False)):
        masker._network.glasses = logit
        assert (masker(*clip())[1].glasses >= 1) == worn


def test_an_answer_that_is_not_finite_is_refused(masker):
    masker._network.regions = [(0, HAIR, np.nan)]
    with pytest.raises(InputError, match="folder: the network's answer is not finite"):
        masker(*clip())
