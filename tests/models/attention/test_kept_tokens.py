"""Reference tokens to keep: which are kept, and that attention to them is attention with the others hidden."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.models.attention import AttentionMethod, KeyValues, reference_attention
from durian_jax.models.attention.kept_tokens import keep_tokens
from durian_jax.models.token_importance import kept_index, kept_size, shares, spread_pattern, squared_distance
from tests.helpers.models import attention_inputs


def kept_of(mask, capacity):
    """(side, side) relevance -> (side, side) bool: the kept tokens of a single group."""
    mask = np.asarray(mask, np.float32)
    kept = jax.jit(keep_tokens, static_argnums=(1, 2))(mask[None, None], mask.size, (capacity,))
    assert kept.index.shape == (1, kept_size(capacity, mask.size)) and (np.diff(kept.index[0]) > 0).all()
    out = np.zeros(mask.size, bool)
    out[kept.index[0]] = True
    return out.reshape(mask.shape)


def test_numpy_and_jax_keep_the_same_tokens():
    masks = np.random.default_rng(0).random((5, 16, 16)).astype(np.float32) ** 8
    masks[1], masks[2, 4:] = 0, 0
    kept = jax.jit(lambda x: kept_index(x, 8, 0.3))(masks)
    np.testing.assert_array_equal(kept_index(masks, 8, 0.3), kept)


def test_all_relevant_tokens_fit_and_the_nearest_fill_up():
    mask = np.zeros((8, 8))
    mask[2:4, 5:7] = 1
    kept = kept_of(mask, 0.25)  # 16: the 4 of the mask and the ring of 12 around it
    expected = np.zeros((8, 8), bool)
    expected[1:5, 4:8] = True
    np.testing.assert_array_equal(kept, expected)


def test_relevant_tokens_that_do_not_fit_are_left_out_evenly():
    """No quadrant, row or column of the region loses much more than its share."""
    mask = np.zeros((16, 16))
    mask[:12, 2:14] = 1
    kept = kept_of(mask, 0.375)  # 96 of 144
    assert kept.sum() == 96 and not kept[mask == 0].any()
    inside = kept[:12, 2:14]
    quadrants = inside.reshape(2, 6, 2, 6).sum((1, 3))
    assert (abs(quadrants - 24) <= 1).all()
    assert (abs(inside.sum(0) - 8) <= 2).all() and (abs(inside.sum(1) - 8) <= 2).all()
    # No dropped token lies far from a kept one.
    assert squared_distance(jnp.asarray(kept))[:12, 2:14].max() <= 2


def test_tokens_that_show_more_are_kept_first_and_half_is_as_good_as_all():
    mask = np.zeros((4, 4))
    mask[0] = 0.05, 0.2, 0.45, 0
    mask[2, :2] = 0.5, 1
    for capacity, expected in ((0.125, {8, 9}), (0.25, {8, 9, 2, 1})):
        assert set(np.flatnonzero(kept_of(mask, capacity))) == expected
    mask[2] = 0.5, 0.7, 0.9, 1
    order = spread_pattern(4)[2]
    assert set(np.flatnonzero(kept_of(mask, 0.125))) == set(8 + np.argsort(order)[-2:])


def test_a_reference_that_shows_nothing_keeps_a_spread_of_its_tokens():
    kept = kept_of(np.zeros((8, 8)), 0.25)
    assert (kept.reshape(2, 4, 2, 4).sum((1, 3)) == 4).all()
    np.testing.assert_array_equal(kept, kept_of(np.ones((8, 8)), 0.25))


def test_masks_are_averaged_to_the_size_of_the_site():
    mask = np.arange(16.0).reshape(4, 4)
    np.testing.assert_allclose(shares(jnp.asarray(mask), 2), [[2.5, 4.5], [10.5, 12.5]])


def test_distance_is_to_the_nearest():
    rng = np.random.default_rng(0)
    region = rng.random((3, 6, 6)) < 0.1
    region[2] = False
    places = np.argwhere(np.ones((6, 6)))
    for mask, found in zip(region[:2], np.asarray(squared_distance(jnp.asarray(region))), strict=False):
        apart = ((places[:, None] - np.argwhere(mask)) ** 2).sum(-1).min(1)
        np.testing.assert_array_equal(found, apart.reshape(6, 6))
    assert len(np.unique(squared_distance(jnp.asarray(region))[2])) == 1


def test_part_of_a_token_counts_as_one():
    assert [kept_size(capacity, 4) for capacity in (0.125, 0.25, 0.375, 1.0)] == [1, 1, 2, 4]


@pytest.mark.parametrize("implementation", ["xla", "chunked", "splash"])
def test_attention_to_kept_tokens_is_attention_with_the_others_hidden(implementation):
    """Keep 96 and 32 tokens of two groups of 128."""
    frames, references, selection = attention_inputs()
    rng = np.random.default_rng(0)
    index = np.concatenate([np.sort(rng.permuted(np.tile(np.arange(128), (2, 1)), axis=1)[:, :size]) + 128 * group
                            for group, size in enumerate((96, 32))], 1)
    rows = lambda x: jnp.take_along_axis(x, jnp.asarray(index)[..., None, None], 1)
    found = reference_attention(*frames, KeyValues(rows(references.key), rows(references.value), (96, 32)), selection,
                                AttentionMethod(implementation, interpret=True))
    # Plainly, over all tokens: softmax with the dropped tokens hidden.
    shown = np.zeros((2, 256), bool)
    np.put_along_axis(shown, index, True, 1)
    expected = 0
    for m in range(2):
        seen = np.concatenate([np.ones((2, 128), bool), shown & np.repeat(selection.valid[:, m], 128, 1)], 1)
        for_frames = lambda own, shared: jnp.concatenate([own, jnp.broadcast_to(shared[:, None], (2, 2, 256, 2, 8))], 2)
        keys, values = for_frames(frames[1], references.key), for_frames(frames[2], references.value)
        logits = jnp.einsum("bfnhd,bfshd->bfhns", frames[0], keys) / 8**0.5
        weights = jax.nn.softmax(jnp.where(seen[:, None, None, None], logits, -jnp.inf))
        expected += selection.weight[..., m, None, None, None] * jnp.einsum("bfhns,bfshd->bfnhd", weights, values)
    np.testing.assert_allclose(found, expected, atol=1e-5)


DIVIDED = """
import jax, jax.numpy as jnp, numpy as np
from durian_jax.models.attention.kept_tokens import keep_tokens
masks = (np.random.default_rng(0).random((4, 2, 8, 8)) < 0.3).astype(np.float32)
features = np.random.default_rng(1).normal(size=(4, 128, 16)).astype(np.float32)

def loss(features, masks):
    kept = keep_tokens(masks, 64, (0.75, 0.25))
    rows = jnp.take_along_axis(features, kept.index[..., None], 1, mode="promise_in_bounds")
    return jnp.sin(rows).sum((1, 2)), rows

both = lambda features, masks: (loss(features, masks)[1], jax.grad(lambda x: loss(x, masks)[0].sum())(features))
place = jax.NamedSharding(jax.make_mesh((4,), ("data",)), jax.P("data"))
run = jax.jit(both, in_shardings=place, out_shardings=place)
text = run.lower(features, masks).compile().as_text()
assert not [word for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute") if word in text], text
for a, b in zip(run(features, masks), both(features, masks)):
    np.testing.assert_array_equal(a, b)
"""


def test_clips_on_several_devices_exchange_nothing():
    done = subprocess.run([sys.executable, "-c", DIVIDED], env={**os.environ, "JAX_NUM_CPU_DEVICES": "4"},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
