"""Networks: the invariants that the papers state, on a tiny random model."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.models.attention import KeyValues, ReferenceSet, reference_attention
from durian_jax.models.codecs.config import CodecConfig
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.durian.model import Durian, select_references
from durian_jax.models.layers import depth_to_space, space_to_depth
from durian_jax.models.parameters import example_batch, init_params, param_shapes, variables
from durian_jax.models.positions import grid_position_code
from durian_jax.models.unet.config import UNetConfig

TINY = DurianConfig(
    image_size=32, max_frames=8, temporal_heads=2, keypoint_patch=4, keypoint_channels=(8,),
    unet=UNetConfig(channels=(16, 32), heads=(1, 2), attention=(False, True)),
    codec=CodecConfig(encoder_channels=(8, 16), decoder_channels=(8, 16), latent_channels=4))


@cache
def random_params():
    """Parameters in which nothing is zero, so that every path has an effect."""
    params = init_params(TINY, 0)
    keys = jax.random.split(jax.random.key(1), len(params))
    return {path: x + 0.05 * jax.random.normal(key, x.shape)
            for (path, x), key in zip(params.items(), keys, strict=True)}


def random_batch(config=TINY, clips=2, frames=3, attributes=1):
    rng = np.random.default_rng(0)
    batch = {name: rng.uniform(-1, 1, x.shape).astype(np.float32)
             for name, x in example_batch(config, clips, frames, attributes).items()}
    for name in ("portrait_mask", "attribute_masks"):
        batch[name] = (batch[name] > 0).astype(np.float32)
    batch["keypoints"] = abs(batch["keypoints"])
    batch["attribute_valid"] = np.ones((clips, attributes), np.float32)
    return batch


@partial(jax.jit, static_argnames="temporal")
def denoise(params, batch, selection, temporal=False):
    def run(m):
        encoded = m.encode_references(batch["portrait"], batch["portrait_mask"], batch["attributes"],
                                      batch["attribute_masks"])
        return m.denoise(m.encode(batch["frames"]), jnp.full(batch["frames"].shape[:2], 500.0),
                         m.encode_keypoints(batch["keypoints"]), m.project_references(encoded), selection,
                         temporal=temporal)
    return Durian(TINY).apply(variables(params), method=run)


def test_reference_attention_is_attention_over_the_concatenation():
    """Against the paper's formula, written plainly."""
    b, f, n, g, s, h, d = 2, 3, 5, 3, 4, 2, 8
    keys = jax.random.split(jax.random.key(0), 5)
    q, k, v = (jax.random.normal(key, (b, f, n, h, d)) for key in keys[:3])
    rk, rv = (jax.random.normal(key, (b, g, s, h, d)) for key in keys[3:])
    valid = jnp.array([[[True, True, False]], [[True, False, True]]])
    references = KeyValues(rk.reshape(b, g * s, h, d), rv.reshape(b, g * s, h, d), (s,) * g)
    got = reference_attention(q, k, v, references, ReferenceSet(valid, jnp.ones((b, 1)), valid))
    for i in range(b):
        chosen = [j for j in range(g) if valid[i, 0, j]]
        for frame in range(f):
            all_k = jnp.concatenate([k[i, frame], *(rk[i, j] for j in chosen)])
            all_v = jnp.concatenate([v[i, frame], *(rv[i, j] for j in chosen)])
            weights = jax.nn.softmax(jnp.einsum("nhd,shd->hns", q[i, frame], all_k) / np.sqrt(d))
            np.testing.assert_allclose(got[i, frame], jnp.einsum("hns,shd->nhd", weights, all_v), atol=2e-6)


def test_without_any_valid_reference_attention_is_self_attention():
    keys = jax.random.split(jax.random.key(0), 5)
    q, k, v = (jax.random.normal(key, (1, 2, 4, 1, 8)) for key in keys[:3])
    rk, rv = (jax.random.normal(key, (1, 8, 1, 8)) for key in keys[3:])
    none = ReferenceSet(jnp.zeros((1, 1, 2), bool), jnp.ones((1, 1)), jnp.zeros((1, 1, 1), bool))
    got = reference_attention(q, k, v, KeyValues(rk, rv, (4, 4)), none)
    np.testing.assert_allclose(got[0], jax.nn.dot_product_attention(q[0], k[0], v[0]), atol=2e-6)


def test_interpolation_blends_two_attentions():
    batch = random_batch(attributes=2)
    weights = {alpha: jnp.tile(jnp.array([alpha, 1 - alpha]), (2, 1)) for alpha in (0.0, 1.0)}
    one = {alpha: denoise(random_params(), batch, select_references(TINY, jnp.ones((2, 2)), weights[alpha]))
           for alpha in weights}
    first = {**batch, **{name: batch[name][:, :1] for name in ("attributes", "attribute_masks", "attribute_valid")}}
    alone = denoise(random_params(), first, select_references(TINY, first["attribute_valid"]))
    np.testing.assert_allclose(one[1.0], alone, atol=1e-4)
    assert np.abs(one[0.0] - one[1.0]).max() > 1e-2


def test_an_invalid_second_attribute_changes_nothing():
    two = random_batch(attributes=2)
    two["attribute_valid"] = np.array([[1, 0], [1, 0]], np.float32)
    one = {**two, **{name: two[name][:, :1] for name in ("attributes", "attribute_masks", "attribute_valid")}}
    a = denoise(random_params(), one, select_references(TINY, one["attribute_valid"]))
    b = denoise(random_params(), two, select_references(TINY, two["attribute_valid"]))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_order_of_valid_references_does_not_matter():
    batch = random_batch(attributes=2)
    swapped = {**batch, **{name: batch[name][:, ::-1] for name in ("attributes", "attribute_masks")}}
    selection = select_references(TINY, batch["attribute_valid"])
    a, b = (denoise(random_params(), x, selection) for x in (batch, swapped))
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("field", ["portrait", "portrait_mask", "attributes", "attribute_masks", "keypoints"])
def test_every_input_reaches_the_prediction(field):
    batch = random_batch()
    changed = {**batch, field: batch[field][::-1] * 0.5 + 0.2}
    selection = select_references(TINY, batch["attribute_valid"])
    a, b = (denoise(random_params(), x, selection) for x in (batch, changed))
    assert np.abs(a - b).max() > 1e-3


def test_fresh_motion_modules_change_nothing():
    """Stage 2 starts where stage 1 ended: their output projection is zero."""
    fresh = init_params(TINY, 0)
    params = {path: fresh[path] if "motion_module" in path else x for path, x in random_params().items()}
    batch = random_batch()
    selection = select_references(TINY, batch["attribute_valid"])
    still, moving = (denoise(params, batch, selection, temporal) for temporal in (False, True))
    assert np.abs(still).max() > 1e-2
    np.testing.assert_allclose(still, moving, atol=1e-5)  # two compilations round differently
    assert np.abs(denoise(random_params(), batch, selection, True) - still).max() > 1e-3


def test_every_parameter_receives_a_gradient_in_its_stage():
    """What no loss reaches is not built (ReferenceNets end at their last attention site)."""
    batch = random_batch()

    def loss(params):
        return jnp.sum(Durian(TINY).apply(variables(params), **batch) ** 2)
    gradients = jax.jit(jax.grad(loss))(random_params())
    dead = [path for path, g in gradients.items() if not path.startswith("codec/") and not np.any(g)]
    # A key's bias-free projection of a token onto itself always has an effect; nothing else may be dead.
    assert dead == []


def test_space_to_depth_round_trip_and_position_code():
    x = jnp.arange(2 * 8 * 8 * 3.0).reshape(2, 8, 8, 3)
    np.testing.assert_array_equal(depth_to_space(space_to_depth(x, 4), 4), x)
    code = grid_position_code(8, 64)
    product = np.asarray(code @ code.T)
    assert (product.argmax(1) == np.arange(64)).all()
    assert product[0, 0] > product[0, 1] > product[0, 4]


def test_parameters_carry_logical_axes():
    tree = jax.eval_shape(lambda: Durian(TINY).init(jax.random.key(0), **example_batch(TINY)))
    leaves = jax.tree.leaves(tree, is_leaf=lambda x: hasattr(x, "names"))
    assert all(hasattr(leaf, "names") and len(leaf.names) == leaf.value.ndim for leaf in leaves)


def test_the_papers_size_builds():
    """Stable Diffusion 1.5's U-Net has 859.5 M parameters; ours has as many."""
    from durian_jax.configs.durian import get_config
    config = DurianConfig.from_dict(get_config("sd15,stage=1").model.to_dict())
    shapes = param_shapes(config)
    sizes = {path: np.prod(x.shape) for path, x in shapes.items()}
    denoiser = sum(size for path, size in sizes.items()
                   if path.startswith("denoiser/") and "motion_module" not in path)
    assert abs(denoiser / 859.5e6 - 1) < 0.01
    temporal = sum(size for path, size in sizes.items() if "motion_module" in path)
    assert 400e6 < temporal < 500e6
    assert shapes["portrait_reference/conv_in/kernel"].shape == (3, 3, 5, 320)


def test_configs_reject_contradictions():
    with pytest.raises(ValueError, match="multiple"):
        dataclasses.replace(TINY, image_size=40)
    with pytest.raises(ValueError, match="a level"):
        UNetConfig(channels=(16, 32), heads=(1,), attention=(True, True))
    with pytest.raises(ValueError, match="at least one level needs attention"):
        UNetConfig(channels=(16,), heads=(1,), attention=(False,))
    with pytest.raises(ValueError, match="unknown fields"):
        DurianConfig.from_dict({"image_sise": 3})
    assert DurianConfig.from_dict(TINY.to_dict()) == TINY
