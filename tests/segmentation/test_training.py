"""Examples change together with their masks, and training learns."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from durian_jax.errors import InputError
from durian_jax.faces.regions import face_frame, glasses_region, oval
from durian_jax.faces.topology import ATTRIBUTE_KINDS, GROUPS
from durian_jax.segmentation.examples import READ, changed, procedural_example
from durian_jax.segmentation.eye_examples import changed_eyes, eye_example, glasses_worn, procedural_eyes
from durian_jax.segmentation.features import CHANNELS, PATCH, SIDE
from durian_jax.segmentation.network import Network
from durian_jax.segmentation.training import TrainingSettings, mask_loss, train


@pytest.fixture(scope="module")
def example():
    """A procedural head that counts as a photo."""
    return replace(procedural_example(1), real=True)


@pytest.fixture(scope="module")
def eyes(example):
    """The eyes of that head."""
    return replace(procedural_eyes(example), worn=False)


def test_masks_move_with_the_features(example):
    """The whole face lies where the inside of the face lies in the features, however the picture is turned."""
    inside = oval(face_frame(example.keypoints, READ, READ))
    marked = replace(example, masks=np.repeat(inside[..., None], len(ATTRIBUTE_KINDS), axis=-1))
    for seed in range(6):
        features, masks, known = changed(marked, [example.frame], np.random.default_rng(seed))
        assert features.shape == (SIDE, SIDE, CHANNELS) and masks.shape == known.shape == (SIDE, SIDE, 4)
        there, drawn = features[..., -1] > 0, masks[..., 2] > 0
        assert (there & drawn).sum() > 0.9 * (there | drawn).sum()


def test_the_same_seed_changes_the_same_way_and_leaves_the_example_alone(example):
    before = [example.frame.copy(), example.masks.copy()]
    first, second = (changed(example, [example.frame], np.random.default_rng(4)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert np.array_equal(example.frame, before[0]) and np.array_equal(example.masks, before[1])


def test_drawn_glasses_have_a_mask(example):
    bare = replace(example, masks=np.zeros_like(example.masks))
    found = [changed(bare, [example.frame], np.random.default_rng(seed))[1][..., 1].mean() for seed in range(30)]
    assert 3 <= sum(area > 0.01 for area in found) <= 20


def test_glasses_are_drawn_on_bare_eyes_only(eyes):
    found = [changed_eyes(eyes, np.random.default_rng(seed)) for seed in range(40)]
    assert 8 <= sum(worn for _, worn in found) <= 30 and found[0][0].shape == (*PATCH, 3)


def test_changed_eyes_stay_in_place(example):
    """Two white discs on the eyes stay near their places in the patch."""
    frame = np.zeros_like(example.frame)
    for name in ("right_eye", "left_eye"):
        x, y = example.keypoints[GROUPS[name], :2].mean(axis=0) * READ
        cv2.circle(frame, (int(x), int(y)), 4, (255, 255, 255), -1)
    drawn = eye_example(frame, example.keypoints, True)
    seen = np.mean([changed_eyes(drawn, np.random.default_rng(seed))[0][..., 0] for seed in range(30)], axis=0)
    rows, columns = np.mgrid[:PATCH[0], :PATCH[1]]
    for middle in (28, 68):
        weight = np.clip(seen - 1, 0, None) * (abs(columns - middle) < 20)
        assert abs((weight * columns).sum() / weight.sum() - middle) < 2
        assert abs((weight * rows).sum() / weight.sum() - PATCH[0] * 0.42) < 2


def test_glasses_in_the_hair_are_not_worn(example):
    face = face_frame(example.keypoints, READ, READ)
    assert glasses_worn(glasses_region(face), example.keypoints)
    assert not glasses_worn(face.v > 0.4, example.keypoints)
    rims = glasses_region(face) & ~(cv2.erode(glasses_region(face).astype(np.uint8), np.ones((3, 3))) > 0)
    assert glasses_worn(rims, example.keypoints)


def test_unknown_pixels_do_not_count():
    rng = np.random.default_rng(0)
    logits, masks = rng.normal(size=(1, 8, 8, 4)).astype(np.float32), np.zeros((1, 8, 8, 4), np.float32)
    known = np.ones_like(masks)
    known[:, :4] = 0
    other = masks.copy()
    other[:, :4] = 1
    assert float(mask_loss(logits, masks, known)) == float(mask_loss(logits, other, known))
    assert float(mask_loss(logits, masks, known)) != float(mask_loss(logits, other, np.ones_like(known)))


def test_training_learns_and_writes_the_networks(tmp_path, example, eyes):
    settings = TrainingSettings(steps=25, eye_steps=4, batch=2, real=0.5, procedural=2)
    losses = train([example], [[eyes], [replace(eyes, worn=True)]], tmp_path / "net", settings)
    assert len(losses) == 25 and np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    features, masks, known = (layer[None] for layer in changed(example, [example.frame], np.random.default_rng(1)))
    stored = mask_loss(Network(tmp_path / "net").head(features), masks, known)
    assert float(stored) < 0.9 * np.mean(losses[:5]), "what is stored is not the random start"
    assert (tmp_path / "net" / "model.safetensors").stat().st_size < 2e6
    assert Network(tmp_path / "net").eyes(np.zeros((3, *PATCH, 3), np.float32)).shape == (3,)


def test_bad_settings_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected heads with true masks, got none"):
        train([], [], tmp_path)
    with pytest.raises(InputError, match="at least one step"):
        TrainingSettings(steps=0)
    with pytest.raises(InputError, match="a positive learning rate"):
        TrainingSettings(learning_rate=float("nan"))
    (tmp_path / "config.json").touch()
    with pytest.raises(InputError, match="expected a new folder or one with a segmentation network, found config.json"):
        train([], [], tmp_path, TrainingSettings(real=0))


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path, example, eyes):
    with pytest.raises(InputError, match="the loss is not finite at step"):
        train([example], [[eyes]], tmp_path / "net",
              TrainingSettings(steps=6, eye_steps=2, batch=1, procedural=1, learning_rate=1e38))
    assert not (tmp_path / "net").exists()
