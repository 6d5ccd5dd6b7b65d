"""References, windows and the animator: shapes, precedence and joins."""

import re
from dataclasses import replace
from pathlib import Path
from unittest.mock import create_autospec

import numpy as np
import pytest

from durian_jax.checkpoints import weights as weights_module
from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.diffusion import Objective
from durian_jax.diffusion.sampling import Sampling
from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip
from durian_jax.faces.retarget import retarget
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.images import to_float
from durian_jax.inference import generate as generate_module
from durian_jax.inference.animator import Animator
from durian_jax.inference.durian import make_references, reference_batch, region_to_fill, visible_masks
from durian_jax.inference.generate import generate
from durian_jax.inference.windows import cross_fade, window_starts
from durian_jax.models.durian.config import DurianConfig
from durian_jax.prepare import annotate
from durian_jax.synthetic import render, sample_motion, sample_person, still

SIZE = 64


def photo(index: int, *kinds: str, **pose: float) -> Clip:
    """A person who certainly wears the kinds, and no hat unless it is among them."""
    person = sample_person("validation", index, require=kinds)
    return render(person if "hat" in kinds else person.without("hat"), still(**pose), size=SIZE)


# --- windows ------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("frames", "window", "starts"), [
    (5, 5, [0]),
    (16, 16, [0]),
    (17, 16, [0, 1]),
    (40, 16, [0, 12, 24]),
    (41, 16, [0, 12, 24, 25]),
    (3, 1, [0, 1, 2]),
])
def test_windows_cover_the_video(frames, window, starts):
    assert window_starts(frames, window) == starts


def test_cross_fade_is_linear_and_keeps_a_constant():
    constant = np.full((8, 2, 2, 3), 77, np.uint8)
    starts = window_starts(14, 8)
    assert starts == [0, 6]
    joined = cross_fade([constant, constant], starts)
    assert joined.shape == (14, 2, 2, 3) and (joined == 77).all()
    joined = cross_fade([np.zeros_like(constant), np.full_like(constant, 240)], starts)
    # Two frames overlap: a third and two thirds of the way.
    assert joined[:, 0, 0, 0].tolist() == [0] * 6 + [80, 160] + [240] * 6


def test_cross_fade_joins_slices_of_one_video_exactly():
    video = np.random.default_rng(0).integers(0, 256, (37, 2, 2, 3), dtype=np.uint8)
    starts = window_starts(37, 16)
    np.testing.assert_array_equal(cross_fade([video[s:s + 16] for s in starts], starts), video)


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
    assert region.sum() < 2 * donor.mask("hair")[0].sum()


def test_the_region_is_wider_where_the_portrait_wears_none():
    spot = np.zeros((1, 128, 128), np.uint8)
    spot[0, 64, 64] = 1 << ATTRIBUTE_KINDS.index("glasses")
    clip = render(sample_person("validation", 0).without("glasses"), still(), size=128)
    bare, wearing = replace(clip, masks=np.zeros_like(spot)), replace(clip, masks=spot)
    grown = [region_to_fill(portrait, [("glasses", wearing)])[64, 64:] for portrait in (wearing, bare)]
    assert [int(row.sum()) - 1 for row in grown] == [2, 4]


def test_an_attribute_that_is_hidden_whole_is_invalid():
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


def test_a_hat_presses_down_the_hair_that_would_stick_out():
    person = next(p for p in (sample_person("validation", i, require=("hair",)) for i in range(200))
                  if p.attributes["hair"].cut == "bun").without("hat")
    beanie = next(p for p in (sample_person("validation", i, require=("hat",)) for i in range(200))
                  if p.attributes["hat"].form == "beanie")
    portrait = render(person, still(), size=SIZE)
    region = region_to_fill(portrait, [("hat", render(beanie, still(), size=SIZE))])
    hair = portrait.mask("hair")[0]
    rows = np.flatnonzero(hair.any(1))
    assert region[rows[0]:rows[0] + 8][hair[rows[0]:rows[0] + 8]].all()  # the bun goes
    long_hair = photo(3, "hair")
    region = region_to_fill(long_hair, [("hat", render(beanie, still(), size=SIZE))])
    assert (long_hair.mask("hair")[0] & ~region).any()  # what hangs out below the hat stays


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
    batch = reference_batch(checkpoint, cases, slots=2)
    for i, case in enumerate(cases):
        for name, value in make_references(*case, slots=2).items():
            np.testing.assert_array_equal(batch[name][i], value)
    whole = Checkpoint(DurianConfig(masked_references=False), Objective(), {})
    pictures = reference_batch(whole, cases[:1])
    np.testing.assert_array_equal(pictures["portrait"][0], to_float(portrait.frames[0]))
    np.testing.assert_array_equal(pictures["portrait_mask"][0], batch["portrait_mask"][0])
    assert batch["attributes"].shape == (3, 2, SIZE, SIZE, 3) and batch["attribute_valid"].shape == (3, 2)


# --- the animator, with a model that draws nothing -----------------------------------------------------

@pytest.fixture
def calls(monkeypatch):
    """Records what the model is asked; it answers in grey."""
    asked = []

    def grey(checkpoint, batch, sampling, **options):
        asked.append((batch, {"sampling": sampling, **options}))
        b, frames, size = *batch["keypoints"].shape[:2], batch["portrait"].shape[1]
        return np.full((b, frames, size, size, 3), 100, np.uint8)
    monkeypatch.setattr(generate_module, "generate", create_autospec(generate, side_effect=grey))
    monkeypatch.setattr(generate_module, "project_references", lambda checkpoint, batch: "projected once")
    return asked


@pytest.fixture
def animator():
    return Animator(Checkpoint(DurianConfig(image_size=SIZE, max_frames=8), Objective(), {}))


def test_long_videos_go_in_windows_of_equal_length(animator, calls):
    driving = render(sample_person("validation", 7), sample_motion("validation", 7, 21), size=SIZE)
    portrait = photo(0)
    frames = animator.animate(portrait, [("hair", photo(1, "hair"))], driving, sampling=Sampling(steps=3, seed=5))
    assert frames.shape == (21, SIZE, SIZE, 3) and (frames == 100).all()
    assert [batch["keypoints"].shape[1] for batch, _ in calls] == [8, 8, 8, 8]
    expected = retarget(driving.keypoints, portrait.keypoints[0])
    for (batch, options), start in zip(calls, (0, 6, 12, 13), strict=True):
        np.testing.assert_array_equal(batch["keypoints"][0], expected[start:start + 8])
        assert options == {"sampling": Sampling(steps=3, seed=5), "blend": None, "first_frame": start,
                           "references": "projected once"}


def test_keypoints_drive_as_they_are(animator, calls):
    keypoints = render(sample_person("validation", 0), sample_motion("validation", 0, 3), size=SIZE).keypoints
    assert animator.animate(photo(0), [], keypoints).shape == (3, SIZE, SIZE, 3)
    np.testing.assert_array_equal(calls[0][0]["keypoints"][0], keypoints)


def test_interpolation_becomes_weights(animator, calls):
    pair = [("hair", photo(1, "hair")), ("hair", photo(2, "hair"))]
    keypoints = photo(0).keypoints
    animator.animate(photo(0), pair, keypoints, interpolate=0.25)
    np.testing.assert_allclose(calls[0][1]["blend"], [[0.75, 0.25]])
    animator.animate(photo(0), pair, keypoints, interpolate=(0.5, 0.5))
    np.testing.assert_allclose(calls[1][1]["blend"], [[0.5, 0.5]])
    for wrong in (1.5, (0.5, 0.6), (1.0, 0.0, 0.0)):
        with pytest.raises(InputError, match="interpolate"):
            animator.animate(photo(0), pair, keypoints, interpolate=wrong)
    with pytest.raises(InputError, match="with 1 attributes"):
        animator.animate(photo(0), pair[:1], keypoints, interpolate=0.5)


def test_sizes_must_fit_the_checkpoint(animator, calls):
    small = render(sample_person("validation", 0), still(), size=32)
    with pytest.raises(InputError, match="portrait photo: the checkpoint needs 64 x 64 pixels, found 32"):
        animator.animate(small, [], small.keypoints)
    with pytest.raises(InputError, match=r"driving keypoints: expected \(T, \d+, 3\)"):
        animator.animate(photo(0), [], np.zeros((3, 5, 3)))
    assert not calls


def test_the_example_of_the_readme_runs(calls, monkeypatch):
    person = render(sample_person("validation", 1, require=("hair",)).without("hat"),
                    sample_motion("validation", 1, 3), size=128)
    annotate_image = create_autospec(annotate.annotate_image, return_value=person[:1])
    monkeypatch.setattr(annotate, "annotate_image", annotate_image)
    monkeypatch.setattr(annotate, "annotate_video", create_autospec(annotate.annotate_video,
                                                                    return_value=(person, [])))
    checkpoint = Checkpoint(DurianConfig(max_frames=8), Objective(), {})
    monkeypatch.setattr(weights_module, "load_checkpoint", lambda name: {"tiny": checkpoint}[name])
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    names = {}
    exec(example, names)
    assert names["frames"].shape == (3, 128, 128, 3)
    assert calls[0][1]["sampling"].seed == 1 and calls[0][0]["attribute_valid"].all()
    assert [call.args[0] for call in annotate_image.call_args_list] == ["friend.png", "me.png"]
