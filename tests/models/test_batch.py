"""The batch contract: shapes and types of fields, and their conversion for models."""

import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.models.batch import (
    STORED_TYPES,
    Field,
    axis_letters,
    axis_sizes,
    model_inputs,
    sampling_fields,
    stored,
    training_fields,
)
from tests.helpers.models import TINY

SPEC = {
    "frames": Field(("B", "F", 4, 4, 3), "picture", "target"),
    "latents": Field(("B", 2, 2, 5), "latent", "reference"),
    "mask": Field(("B", 4, 4, 1), "mask", "reference"),
    "covered": Field(("B", 2, 2, 1), "share", "reference"),
    "keypoints": Field(("B", "F", 3), "value", "clip"),
    "weights": Field(("B", "A"), "value", "clip", optional=True),
}
SIZES = {"B": 2, "F": 3, "A": 4}


def loaded(spec, sizes):
    """Return a random batch as loaders make it; the first shares and pixels are 0 and 255."""
    rng = np.random.default_rng(0)
    batch = {}
    for name, field in spec.items():
        shape, dtype = field.shape(sizes), STORED_TYPES[field.kind]
        batch[name] = rng.normal(size=shape).astype(dtype) if dtype != "uint8" else \
            rng.integers(0, 2 if field.kind == "mask" else 256, shape, np.uint8)
        if field.kind in ("picture", "share"):
            batch[name].flat[:2] = 0, 255
    return batch


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
def test_models_take_float32_in_the_range_of_the_kind(xp):
    batch = loaded(SPEC, SIZES)
    inputs = model_inputs({name: xp.asarray(x) for name, x in batch.items()}, SPEC, xp)
    assert {str(x.dtype) for x in inputs.values()} == {"float32"}
    np.testing.assert_allclose(inputs["frames"], batch["frames"] / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose(inputs["frames"].ravel()[:2], [-1, 1], atol=1e-6)
    np.testing.assert_allclose(inputs["covered"].ravel()[:2], [0, 1], atol=1e-6)
    assert set(np.unique(inputs["mask"])) == {0, 1}
    for name in ("latents", "mask", "keypoints", "weights"):
        np.testing.assert_array_equal(inputs[name], batch[name])


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
@pytest.mark.parametrize("spec", [
    {name: field for name, field in SPEC.items() if field.kind != "picture"}, TINY.batch_spec(encoded=True)])
def test_stored_is_the_inverse_of_model_inputs(spec, xp):
    batch = loaded(spec, SIZES)
    again = stored(model_inputs({name: xp.asarray(x) for name, x in batch.items()}, spec, xp), spec, xp)
    assert {name: (str(x.dtype), x.shape) for name, x in again.items()} == {
        name: (STORED_TYPES[field.kind], field.shape(SIZES)) for name, field in spec.items()}
    for name, x in batch.items():
        np.testing.assert_array_equal(again[name], x)


def test_shares_are_rounded_to_the_nearest_level():
    values = {"covered": np.float32([0, 0.3, 0.5, 0.999, 1]).reshape(5, 1, 1, 1)}
    spec = {"covered": Field(("B", 1, 1, 1), "share", "reference")}
    again = model_inputs(stored(values, spec), spec)
    np.testing.assert_allclose(again["covered"], values["covered"], atol=0.5001 / 255)


def test_axis_sizes_are_read_from_the_arrays():
    batch = loaded(SPEC, SIZES)
    assert axis_letters(SPEC) == {"B", "F", "A"} and axis_sizes(SPEC, batch) == SIZES
    assert axis_sizes(SPEC, {name: batch[name] for name in ("latents", "keypoints")}) == {"B": 2, "F": 3}
    with pytest.raises(ValueError, match="shorter"):
        axis_sizes(SPEC, {"keypoints": batch["keypoints"][0]})


def test_sampling_reads_no_targets_and_references_once():
    assert list(sampling_fields(SPEC)) == ["latents", "mask", "covered", "keypoints", "weights"]
    assert list(sampling_fields(SPEC, with_references=False)) == ["keypoints", "weights"]
    assert set(SPEC) - set(training_fields(SPEC)) == {"weights"}


def test_durians_sampling_fields():
    """Interpolation weights are for sampling only; the frames and their masks are for training only."""
    references = {"portrait", "portrait_mask", "attributes", "attribute_masks"}
    clip = {"keypoints", "attribute_valid", "attribute_weights"}
    spec = TINY.batch_spec()
    assert set(sampling_fields(spec)) == references | clip
    assert set(sampling_fields(spec, with_references=False)) == clip
    assert set(training_fields(spec)) == set(spec) - {"attribute_weights"}
