"""Durian's inputs: masked references, precedence of attributes, batches and windows of the motion."""

from dataclasses import replace

import numpy as np
import pytest

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.diffusion import Objective
from durian_jax.errors import InputError
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.fill_region import LAYERS, move_mask, ordered_layers
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.images import to_float
from durian_jax.inference.durian import make_job, transfer_batch
from durian_jax.inference.references import (
    MARGINS,
    blend_weights,
    make_references,
    moved_mask,
    region_to_fill,
    visible_masks,
)
from durian_jax.inference.windows import cross_fade
from durian_jax.models.durian.config import DurianConfig
from durian_jax.synthetic import render, sample_motion, sample_person, still
from tests.helpers.inference import SIZE, RecordingBackend, photo

# --- references ---------------------------------------------------------------------------------------

def test_references_mask_complementarily():
    portrait, donor = photo(0, "hair", yaw=10), photo(1, "hair", yaw=-10)
    references = make_references(portrait, [("hair", donor)], slots=2)
    region = references["portrait_mask"][..., 0] > 0
    assert region[portrait.mask("hair")[0]].all()
    assert (references["portrait"][region] == 0).all()
    np.testing.assert_array_equal(references["portrait"][~region], to_float(portrait.frames[0])[~region])
    mask = donor.mask("hair")[0]
    np.testing.assert_array_equal(references["attribute_masks"][0, ..., 0] > 0, mask)
    assert (references["attributes"][0][~mask] == 0).all()
    np.testing.assert_array_equal(references["attributes"][0][mask], to_float(donor.frames[0])[mask])
    assert references["attribute_valid"].tolist() == [1, 0]
    assert not references["attributes"][1].any() and not references["attribute_masks"][1].any()


def test_region_holds_the_attribute_moved_onto_the_portrait():
    # The same head, bald and with hair, in the same place: the region must hold all of that hair.
    person = sample_person("validation", 2, require=("hair",)).without("hat")
    donor = render(person, still(), size=SIZE)
    portrait = render(person.without("hair"), still(), size=SIZE)
    region = make_references(portrait, [("hair", donor)])["portrait_mask"][..., 0] > 0
    assert region[donor.mask("hair")[0]].all()
    assert region.sum() < 2.3 * donor.mask("hair")[0].sum()


def test_each_kind_has_its_margin_and_spares_what_stays_on_top():
    empty = np.zeros((1, 128, 128), np.uint8)
    clip = render(sample_person("validation", 0).without("glasses"), still(), size=128)
    for kind, margin in MARGINS.items():
        spot = empty.copy()
        spot[0, 64, 64] = attribute_bit(kind)
        portrait, donor = replace(clip, masks=empty), replace(clip, masks=spot)
        assert region_to_fill(portrait, [(kind, donor)])[64, 64:].sum() - 1 == margin
    # Hair that ends at a hat, which stays.
    hair, hat = empty.copy(), empty.copy()
    hair[0, 64:], hat[0, :64] = attribute_bit("hair"), attribute_bit("hat")
    region = region_to_fill(replace(clip, masks=hat), [("hair", replace(clip, masks=hair))])
    assert region[64:].all() and region[62:64].all() and not region[:62].any()


def test_a_completely_hidden_attribute_is_invalid():
    hat = photo(4, "hat")
    hidden = replace(hat, masks=np.where(hat.mask("hat"), 1 << ATTRIBUTE_KINDS.index("hair"), 0).astype(np.uint8))
    references = make_references(photo(3), [("hair", hidden), ("hat", hat)])
    assert references["attribute_valid"].tolist() == [0, 1] and not references["attributes"][0].any()


def test_an_outer_attribute_hides_an_inner_one():
    hair, hat = photo(3, "hair"), photo(4, "hat")
    hair_mask, hat_mask = visible_masks([("hair", hair), ("hat", hat)])
    np.testing.assert_array_equal(hat_mask, hat.mask("hat")[0])
    assert hair_mask.sum() < 0.8 * hair.mask("hair")[0].sum()
    # Two hairstyles to blend do not hide each other.
    for mask, clip in zip(visible_masks([("hair", hair), ("hair", photo(5, "hair"))]),
                          (hair, photo(5, "hair")), strict=True):
        np.testing.assert_array_equal(mask, clip.mask("hair")[0])


def test_an_attribute_is_taken_away():
    """As where training says that a person does not wear a kind: the region is masked, and nothing fills it."""
    portrait, donor = photo(0, "glasses"), photo(1, "hair")
    removed = make_references(portrait, [("glasses", None)])
    region = removed["portrait_mask"][..., 0] > 0
    assert region[portrait.mask("glasses")[0]].all() and region.sum() < 6 * portrait.mask("glasses")[0].sum()
    assert removed["attribute_valid"].tolist() == [0] and not removed["attributes"].any()
    both = make_references(portrait, [("glasses", None), ("hair", donor)])
    hair = make_references(portrait, [("hair", donor)])
    assert both["attribute_valid"].tolist() == [1]
    np.testing.assert_array_equal(both["attributes"], hair["attributes"])
    assert both["portrait_mask"][..., 0][region].all() and both["portrait_mask"].sum() > hair["portrait_mask"].sum()
    bare = render(sample_person("validation", 0).without("hat"), still(), size=SIZE)
    assert not make_references(bare, [("hat", None)])["portrait_mask"].any()


def test_masks_turn_with_the_head():
    """Where the donor's hair lies on the portrait's head, better than by a similarity in the picture."""
    agreement = []
    for index in range(6):
        person = sample_person("validation", 40 + index, require=("hair",)).without("hat").without("glasses")
        donor, portrait = (render(person, still(yaw=yaw), size=SIZE) for yaw in (25, -25))
        truth, mask = portrait.mask("hair")[0], donor.mask("hair")[0]
        flat = move_mask(mask, donor.keypoints[0], portrait.keypoints[0])
        agreement.append([(moved & truth).sum() / (moved | truth).sum()
                          for moved in (flat, moved_mask("hair", donor, portrait))])
    similarity, turned = np.mean(agreement, 0)
    assert turned > similarity + 0.1, (similarity, turned)


def test_the_user_may_say_what_covers_what():
    hair, hat = photo(3, "hair"), photo(4, "hat")
    layers = ordered_layers(("hair", "hat"))
    assert layers == ("beard", "hat", "glasses", "hair") and ordered_layers(()) == LAYERS
    assert ordered_layers(("beard", "hat", "glasses")) == ("glasses", "hair", "hat", "beard")
    hair_mask, hat_mask = visible_masks([("hair", hair), ("hat", hat)], layers)
    np.testing.assert_array_equal(hair_mask, hair.mask("hair")[0])
    assert hat_mask.sum() < 0.8 * hat.mask("hat")[0].sum()
    job = make_job(RecordingBackend(), photo(0), [("hair", hair), ("hat", hat)], photo(2), order=("hair", "hat"))
    usual = make_job(RecordingBackend(), photo(0), [("hair", hair), ("hat", hat)], photo(2))
    masks = lambda job: job.batch["attribute_masks"][0, ..., 0].sum((1, 2))
    assert masks(job)[0] > masks(usual)[0] and masks(job)[1] < masks(usual)[1]
    for wrong in (("wig",), ("hat", "hat"), "hat"):
        with pytest.raises(InputError, match="order: expected some of hat, glasses, hair, beard, each once"):
            ordered_layers(wrong)


def test_one_kind_is_blended_while_others_are_composed():
    pair = [("glasses", None), ("hair", photo(1, "hair")), ("hair", photo(2, "hair")), ("hat", photo(4, "hat"))]
    np.testing.assert_allclose(blend_weights([0.7, 0.3, None], pair, 2), [[0.7, 0.3, -1]] * 2)
    assert blend_weights(None, pair, 2) is None
    for wrong, words in (([0.7, 0.3], "with 3 attributes"), ([None, None, None], "sum to 1"),
                         ([0.7, None, 0.3], "expected attributes of one kind to blend, found hair and hat")):
        with pytest.raises(InputError, match=words):
            blend_weights(wrong, pair, 2)


def test_a_hat_presses_down_the_hair_above_its_edge():
    person = next(p for p in (sample_person("validation", i, require=("hair",)) for i in range(200))
                  if p.attributes["hair"].cut == "bun").without("hat")
    beanie = next(p for p in (sample_person("validation", i, require=("hat",)) for i in range(200))
                  if p.attributes["hat"].form == "beanie")
    portrait = render(person, still(), size=SIZE)
    region = region_to_fill(portrait, [("hat", render(beanie, still(), size=SIZE))])
    hair = portrait.mask("hair")[0]
    rows = np.flatnonzero(hair.any(1))
    assert region[rows[0]:rows[0] + 8][hair[rows[0]:rows[0] + 8]].all()  # the bun is blanked
    long_hair = photo(3, "hair")
    region = region_to_fill(long_hair, [("hat", render(beanie, still(), size=SIZE))])
    assert (long_hair.mask("hair")[0] & ~region).any()  # hair below the hat stays


def test_without_attributes_nothing_is_blanked():
    portrait = photo(0, "hair")
    references = make_references(portrait, [])
    assert references["attributes"].shape == (1, SIZE, SIZE, 3)
    assert references["attribute_valid"].tolist() == [0] and not references["portrait_mask"].any()


def test_aligning_brings_the_attribute_to_the_portrait():
    portrait, donor = photo(0, "glasses"), photo(1, "glasses", shift_x=0.1, roll=15)
    target = portrait.mask("glasses")[0]

    def overlap(**options):
        mask = make_references(portrait, [("glasses", donor)], **options)["attribute_masks"][0, ..., 0] > 0
        return (target & mask).sum() / (target | mask).sum()
    assert overlap(align_attributes=True) > overlap() + 0.2


def test_bad_references_are_named():
    portrait, donor = photo(0), photo(1, "hair")
    bare = render(sample_person("validation", 1).without("glasses"), still(), size=SIZE)
    with pytest.raises(InputError, match="expected a person with glasses, found none"):
        make_references(portrait, [("glasses", bare)])
    with pytest.raises(InputError, match="unknown attribute kind 'moustache'"):
        make_references(portrait, [("moustache", donor)])
    with pytest.raises(InputError, match="expected 64 x 64 pixels as the portrait has, found 32 x 32"):
        make_references(portrait, [("hair", render(sample_person("validation", 1), still(), size=32))])
    with pytest.raises(InputError, match="2 attributes given, expected at most 1"):
        make_references(portrait, [("hair", donor), ("hair", donor)], slots=1)


def test_a_batch_has_the_references_of_every_case():
    portrait, checkpoint = photo(0), Checkpoint(DurianConfig(), Objective(), {})
    cases = [(portrait, [("hair", photo(i, "hair"))]) for i in (1, 2, 3)]
    batch = transfer_batch(checkpoint, cases, slots=2)
    for i, case in enumerate(cases):
        for name, value in make_references(*case, slots=2).items():
            np.testing.assert_array_equal(batch[name][i], value)
    whole = Checkpoint(DurianConfig(masked_references=False), Objective(), {})
    pictures = transfer_batch(whole, cases[:1])
    np.testing.assert_array_equal(pictures["portrait"][0], to_float(portrait.frames[0]))
    np.testing.assert_array_equal(pictures["portrait_mask"][0], batch["portrait_mask"][0])
    assert batch["attributes"].shape == (3, 2, SIZE, SIZE, 3) and batch["attribute_valid"].shape == (3, 2)


# --- windows of the motion -------------------------------------------------------------------------------

def test_windows_do_not_depend_on_each_other():
    driving = render(sample_person("validation", 7), sample_motion("validation", 7, 21), size=SIZE)
    job = make_job(RecordingBackend(), photo(0), [], driving)
    assert list(job.starts) == [0, 6, 12, 13] and job.keypoints.shape[0] == 21
    grey = np.full((8, SIZE, SIZE, 3), 100, np.uint8)
    for number, start in enumerate(job.starts):
        fields = [job.segment(number, previous) for previous in (None, grey)]
        assert fields[0].keys() == fields[1].keys() == {"keypoints"}
        for field in fields:
            np.testing.assert_array_equal(field["keypoints"][0], job.keypoints[start:start + 8])
    segments = [grey + number for number in range(4)]
    for found, expected in zip(job.join(segments), cross_fade(segments, job.starts), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_short_motion_is_one_window():
    job = make_job(RecordingBackend(), photo(0), [], photo(0).keypoints)
    assert list(job.starts) == [0] and job.segment(0, None)["keypoints"].shape[:2] == (1, 1)
