"""Durian's networks: the invariants that the paper states, on a tiny random model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.configs.durian import get_config
from durian_jax.models.family import model_config
from durian_jax.models.parameters import example_batch, init_params, param_shapes, variables
from tests.helpers.models import TINY, denoise, random_batch, random_params, with_attributes


def test_interpolation_blends_two_attentions():
    batch = random_batch(attributes=2)
    blended = {alpha: denoise(random_params(), {
        **batch, "attribute_weights": np.tile(np.float32([alpha, 1 - alpha]), (2, 3, 1))}) for alpha in (0.0, 1.0)}
    alone = denoise(random_params(), with_attributes(batch, [0]))
    np.testing.assert_allclose(blended[1.0], alone, atol=1e-4)
    assert np.abs(blended[0.0] - blended[1.0]).max() > 1e-2


def test_attributes_of_negative_weight_are_composed_with_every_blended_one():
    batch = random_batch(attributes=3)
    for alpha, chosen in ((1.0, [0, 2]), (0.0, [1, 2])):
        mixed = denoise(random_params(), {
            **batch, "attribute_weights": np.tile(np.float32([alpha, 1 - alpha, -1]), (2, 3, 1))})
        np.testing.assert_allclose(mixed, denoise(random_params(), with_attributes(batch, chosen)), atol=1e-4)


def test_an_invalid_second_attribute_changes_nothing():
    two = random_batch(attributes=2)
    two["attribute_valid"] = np.array([[1, 0], [1, 0]], np.float32)
    a, b = (denoise(random_params(), batch) for batch in (with_attributes(two, [0]), two))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_order_of_valid_references_does_not_matter():
    batch = random_batch(attributes=2)
    a, b = (denoise(random_params(), x) for x in (batch, with_attributes(batch, [1, 0])))
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("field", ["portrait", "portrait_mask", "attributes", "attribute_masks", "keypoints"])
def test_every_input_reaches_the_prediction(field):
    batch = random_batch()
    changed = {**batch, field: batch[field][::-1] * 0.5 + 0.2}
    a, b = (denoise(random_params(), x) for x in (batch, changed))
    assert np.abs(a - b).max() > 1e-3


def test_dropped_references_are_the_unconditional_branch():
    """A clip whose references are dropped in training gets the prediction that guidance computes without references."""
    batch = {name: jnp.asarray(x) for name, x in random_batch().items()}

    def run(m):
        condition, latents = m.condition(batch), m.encode(batch["frames"])
        without, full = m.branches(condition)
        predict = lambda condition: m.denoise(latents, jnp.full(latents.shape[:2], 500.0), condition)
        return [predict(x) for x in (without, full, condition.keep_references(jnp.array([False, True])))]
    without, full, dropped = jax.jit(lambda p: TINY.create().apply(variables(p), method=run))(random_params())
    np.testing.assert_allclose(dropped[0], without[0], atol=1e-5)
    np.testing.assert_allclose(dropped[1], full[1], atol=1e-5)
    assert np.abs(without - full).max() > 1e-2


def test_fresh_motion_modules_change_nothing():
    """Stage 2 starts where stage 1 ended: their output projection is zero."""
    fresh = init_params(TINY, 0)
    params = {path: fresh[path] if "motion_module" in path else x for path, x in random_params().items()}
    batch = random_batch()
    still, moving = (denoise(params, batch, temporal=temporal) for temporal in (False, True))
    assert np.abs(still).max() > 1e-2
    np.testing.assert_allclose(still, moving, atol=1e-5)  # two compilations round differently
    assert np.abs(denoise(random_params(), batch, temporal=True) - still).max() > 1e-3


def test_every_parameter_receives_a_gradient_in_its_stage():
    """Parameters that no loss reaches are not built (ReferenceNets end at their last attention site)."""
    batch = random_batch()

    def loss(params):
        return jnp.sum(TINY.create().apply(variables(params), batch) ** 2)
    gradients = jax.jit(jax.grad(loss))(random_params())
    dead = [path for path, g in gradients.items() if not path.startswith("codec/") and not np.any(g)]
    # A key's bias-free projection of a token onto itself always has an effect; nothing else may be dead.
    assert dead == []


def test_parameters_carry_logical_axes():
    tree = jax.eval_shape(lambda: TINY.create().init(jax.random.key(0), example_batch(TINY)))
    leaves = jax.tree.leaves(tree, is_leaf=lambda x: hasattr(x, "names"))
    assert all(hasattr(leaf, "names") and len(leaf.names) == leaf.value.ndim for leaf in leaves)


def test_the_papers_size_builds():
    """Stable Diffusion 1.5's U-Net has 859.5 M parameters; ours has as many."""
    shapes = param_shapes(model_config(get_config("sd15,stage=1").model.to_dict()))
    sizes = {path: np.prod(x.shape) for path, x in shapes.items()}
    denoiser = sum(size for path, size in sizes.items()
                   if path.startswith("denoiser/") and "motion_module" not in path)
    assert abs(denoiser / 859.5e6 - 1) < 0.01
    temporal = sum(size for path, size in sizes.items() if "motion_module" in path)
    assert 400e6 < temporal < 500e6
    assert shapes["portrait_reference/conv_in/kernel"].shape == (3, 3, 5, 320)
