"""The region to fill: the union of masks, overlaps, and masks moved from donors."""

import numpy as np

from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.fill_region import move_mask, portrait_region
from tests.helpers.faces import face


def test_the_region_is_the_dilated_union_and_spares_kinds_on_top():
    worn = np.zeros((20, 20), np.uint8)
    worn[2:4, 5:15] = attribute_bit("hat")
    worn[4:7, 5:15] = attribute_bit("hair")
    coming = np.zeros((20, 20), bool)
    coming[2:12, 8:12] = True
    region = portrait_region(worn, ["hair"], [("hair", coming)], margin=0)
    hair, hat = worn == attribute_bit("hair"), worn == attribute_bit("hat")
    np.testing.assert_array_equal(region, hair | (coming & ~hat))
    # A new hat covers hair. If both kinds are replaced, neither is spared.
    assert portrait_region(worn, ["hat"], [("hat", coming)], margin=0)[2:12, 8:12].all()
    both = portrait_region(worn, ["hair", "hat"], [("hair", coming)], margin=0)
    np.testing.assert_array_equal(both, (worn > 0) | coming)
    assert (portrait_region(worn, ["hair"], margin=1) >= hair).all()
    assert not portrait_region(worn, ["beard"], margin=2).any()
    apart = portrait_region(worn, ["hair", "hat"], [("hair", coming)], margin={"hair": 3, "hat": 1})
    parts = (portrait_region(worn, ["hair", "hat"], [("hair", coming)], margin=3),
             portrait_region(worn, ["hat"], margin=1))
    assert (apart >= parts[1]).all() and (apart <= parts[0]).all() and (apart != parts[0]).any()


def test_a_donor_mask_lands_where_the_face_is():
    donor, target = face(np.random.default_rng(0)), face(np.random.default_rng(0))
    target[:, :2] = (target[:, :2] - 0.5) * 0.5 + 0.6
    mask = np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    moved = move_mask(mask, donor, target, size=(128, 128))
    expected = np.zeros((128, 128), bool)  # from ((20 / 64 - 0.5) * 0.5 + 0.6) * 128 px
    expected[65:85, 65:85] = True
    assert (moved ^ expected).sum() <= 80
