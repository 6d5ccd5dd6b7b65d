"""The segmentation masker takes hair, hats and glasses from the networks, and says how sure it is."""

from types import SimpleNamespace

import numpy as np
import pytest

from durian_jax.errors import InputError
from durian_jax.faces.clip import attribute_bit
from durian_jax.prepare import segmentation_masker
from durian_jax.prepare.segmentation_masker import SegmentationMasker
from durian_jax.segmentation.features import SIDE
from tests.helpers.faces import face

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
    return np.full((2, 64, 64, 3), 120, np.uint8), np.stack([face(np.random.default_rng(0))] * 2), np.full(
        (2, 64, 64), 255, np.uint8)


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
