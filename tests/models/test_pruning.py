"""Fewer reference tokens: which are kept, that they are the same tokens, and that everything else works with them."""

import os
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.configs.durian import get_config
from durian_jax.diffusion import Objective
from durian_jax.diffusion.sampling import Sampling
from durian_jax.errors import InputError
from durian_jax.inference.generate import generate, project_references
from durian_jax.models import attention as attention_module
from durian_jax.models.attention import KeyValues, reference_attention
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.durian.model import Durian, select_references
from durian_jax.models.durian.pruning import keep_tokens, kept_size, shares, spread_pattern, squared_distance
from durian_jax.models.parameters import init_params, param_shapes, variables
from durian_jax.training.loop import validate
from durian_jax.training.optimizer import make_optimizer
from durian_jax.training.recipes.durian import denoising_loss
from durian_jax.training.state import create_state
from durian_jax.training.step import make_train_step
from tests.helpers.runs import small_config
from tests.models.test_attention import inputs
from tests.models.test_models import TINY, random_batch, random_params

# Of the 4 tokens of every site, the portrait keeps 3 and an attribute 2.
PRUNED = replace(TINY, portrait_capacity=0.75, attribute_capacity=0.375)


def kept_of(mask, capacity):
    """(side, side) relevance -> (side, side) bool, what is kept of a single group."""
    mask = np.asarray(mask, np.float32)
    kept = jax.jit(keep_tokens, static_argnums=(1, 2))(mask[None, None], mask.size, (capacity,))
    assert kept.index.shape == (1, kept_size(capacity, mask.size)) and (np.diff(kept.index[0]) > 0).all()
    out = np.zeros(mask.size, bool)
    out[kept.index[0]] = True
    return out.reshape(mask.shape)


@pytest.fixture
def interpreted(monkeypatch):
    monkeypatch.setattr(attention_module, "_INTERPRET", True)


# --- which are kept -------------------------------------------------------------------------------------

def test_all_relevant_tokens_fit_and_the_nearest_fill_up():
    mask = np.zeros((8, 8))
    mask[2:4, 5:7] = 1
    kept = kept_of(mask, 0.25)  # 16: the 4 of the mask and the ring of 12 around it
    expected = np.zeros((8, 8), bool)
    expected[1:5, 4:8] = True
    np.testing.assert_array_equal(kept, expected)


def test_what_does_not_fit_is_left_out_evenly():
    """No quadrant, row or column of the region loses much more than its share."""
    mask = np.zeros((16, 16))
    mask[:12, 2:14] = 1
    kept = kept_of(mask, 0.375)  # 96 of 144
    assert kept.sum() == 96 and not kept[mask == 0].any()
    inside = kept[:12, 2:14]
    quadrants = inside.reshape(2, 6, 2, 6).sum((1, 3))
    assert (abs(quadrants - 24) <= 1).all()
    assert (abs(inside.sum(0) - 8) <= 2).all() and (abs(inside.sum(1) - 8) <= 2).all()
    # And nothing that is left out lies far from what is kept.
    assert squared_distance(jnp.asarray(kept))[:12, 2:14].max() <= 2


def test_the_more_a_token_shows_the_sooner_it_is_kept_and_half_is_as_good_as_all():
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


def test_distance_is_that_to_the_nearest():
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


# --- the same tokens ------------------------------------------------------------------------------------

def project(config, batch, kept=True):
    """References of a batch, and which tokens they are."""
    def run(m):
        encoded = m.references_of(batch)
        features = m.reference_features(encoded)
        kept = m.kept_tokens(encoded, [x.shape[2] for x in features])
        return m.project_references(encoded).key_values, kept
    return jax.jit(lambda p: Durian(config).apply(variables(p), method=run))(random_params())


def test_pruned_keys_and_values_are_rows_of_all():
    """Position codes included: a token has the code of its true place."""
    batch = random_batch(attributes=2)
    (every, nothing), (some, kept) = project(TINY, batch), project(PRUNED, batch)
    assert nothing is None
    assert [x.sizes for x in every] == [(4, 4, 4)] * len(every)
    assert [x.sizes for x in some] == [(3, 2, 2)] * len(some)
    for whole, part, tokens in zip(every, some, kept, strict=True):
        for a, b in ((whole.key, part.key), (whole.value, part.value)):
            rows = np.take_along_axis(np.asarray(a), np.asarray(tokens.index)[..., None, None], 1)
            np.testing.assert_allclose(b, rows, atol=1e-6)


def test_full_capacity_prunes_nothing():
    """No token is chosen, moved or left out: neither sorted nor gathered."""
    batch = random_batch()
    trace = lambda config: str(jax.make_jaxpr(lambda p: Durian(config).apply(
        variables(p), method=lambda m: m.project_references(m.references_of(batch))))(param_shapes(config)))
    assert trace(TINY) == trace(replace(TINY, portrait_capacity=1, attribute_capacity=1.0))
    assert not any(name in trace(TINY) for name in ("sort[", "gather["))
    assert all(name in trace(PRUNED) for name in ("sort[", "gather["))


@pytest.mark.parametrize("implementation", ["xla", "chunked", "splash"])
def test_attention_to_pruned_references_is_attention_with_the_others_hidden(implementation, interpreted):
    """Two groups of 128 tokens, of which 96 and 32 are kept."""
    frames, references, selection = inputs()
    rng = np.random.default_rng(0)
    index = np.concatenate([np.sort(rng.permuted(np.tile(np.arange(128), (2, 1)), axis=1)[:, :size]) + 128 * group
                            for group, size in enumerate((96, 32))], 1)
    rows = lambda x: jnp.take_along_axis(x, jnp.asarray(index)[..., None, None], 1)
    found = reference_attention(*frames, KeyValues(rows(references.key), rows(references.value), (96, 32)), selection,
                                implementation)
    # Plainly, over all tokens: softmax with those hidden that were left out.
    shown = np.zeros((2, 256), bool)
    np.put_along_axis(shown, index, True, 1)
    expected = 0
    for m in range(2):
        seen = np.concatenate([np.ones((2, 128), bool), shown & np.repeat(selection.valid[:, m], 128, 1)], 1)
        for_frames = lambda own, shared: jnp.concatenate([own, jnp.broadcast_to(shared[:, None], (2, 2, 256, 2, 8))], 2)
        keys, values = for_frames(frames[1], references.key), for_frames(frames[2], references.value)
        logits = jnp.einsum("bfnhd,bfshd->bfhns", frames[0], keys) / 8**0.5
        weights = jax.nn.softmax(jnp.where(seen[:, None, None, None], logits, -jnp.inf))
        expected += selection.weight[:, m, None, None, None, None] * jnp.einsum("bfhns,bfshd->bfnhd", weights, values)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("implementation", ["chunked", "splash"])
def test_implementations_have_the_same_gradients_for_unequal_groups(implementation, interpreted):
    frames, references, selection = inputs(sizes=(192, 64))
    loss = lambda implementation: lambda frames, references: jnp.sum(jnp.sin(
        reference_attention(*frames, references, selection, implementation)))
    expected, found = (jax.tree.leaves(jax.jit(jax.grad(loss(name), argnums=(0, 1)))(frames, references))
                       for name in ("xla", implementation))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5 * float(jnp.abs(b).max()))


def test_keys_that_fill_no_block_are_left_to_xla():
    frames, references, selection = inputs(sizes=(96, 40))
    expected = reference_attention(*frames, references, selection)
    np.testing.assert_allclose(reference_attention(*frames, references, selection, "splash"), expected, atol=1e-5)


# --- everything else works with them --------------------------------------------------------------------

@jax.jit
def denoise(params, batch, weights=None):
    def run(m):
        selection = select_references(PRUNED, batch["attribute_valid"], weights)
        references = m.project_references(m.references_of(batch))
        return m.denoise(m.encode(batch["frames"]), jnp.full(batch["frames"].shape[:2], 500.0),
                         m.encode_keypoints(batch["keypoints"]), references, selection)
    return Durian(PRUNED).apply(variables(params), method=run)


def attributes_of(batch, chosen):
    return {**batch, **{name: batch[name][:, chosen] for name in ("attributes", "attribute_masks", "attribute_valid")}}


def test_composition_and_interpolation():
    batch = random_batch(attributes=2)
    params = random_params()
    both = denoise(params, batch)
    np.testing.assert_allclose(denoise(params, attributes_of(batch, [1, 0])), both, atol=1e-5)
    first = denoise(params, attributes_of(batch, [0]))
    blended = {alpha: denoise(params, batch, jnp.tile(jnp.array([1 - alpha, alpha]), (2, 1))) for alpha in (0.0, 1.0)}
    np.testing.assert_allclose(blended[0.0], first, atol=1e-4)
    assert np.abs(blended[1.0] - first).max() > 1e-3
    without = {**batch, "attribute_valid": np.array([[1, 0], [1, 0]], np.float32)}
    np.testing.assert_allclose(denoise(params, without), first, atol=1e-5)


def test_references_are_shared_by_the_windows_of_a_video():
    checkpoint, batch, fast = Checkpoint(PRUNED, Objective(), random_params()), random_batch(), Sampling(steps=1)
    references = project_references(checkpoint, batch)
    assert {x.sizes for x in references.key_values} == {(3, 2)}
    given = generate(checkpoint, batch, fast, references=references)
    assert np.abs(given.astype(int) - generate(checkpoint, batch, fast)).max() <= 1


def test_a_gradient_reaches_all_of_the_reference_networks():
    """With recomputation, which takes keys, values and their sizes through `jax.checkpoint`."""
    batch = {name: jnp.asarray(x) for name, x in random_batch().items()}
    batch["frame_masks"] = jnp.zeros((*batch["frames"].shape[:4], 1))
    objective = Objective(prediction="sample", pixel_weight=1.0)

    def loss(params):
        return denoising_loss(PRUNED, objective, variables(params), batch, jax.random.key(0), False, 0.0, "full",
                              "chunked")[0]
    gradients = jax.jit(jax.grad(loss))(random_params())
    assert all(np.isfinite(g).all() for g in gradients.values())
    dead = [path for path, g in gradients.items() if path.startswith(("portrait_reference/", "attribute_reference/"))
            and not np.any(g)]
    assert dead == []


def test_a_train_step_moves_the_reference_networks(records):
    config = small_config(records)
    config.model.reference_mode = "dual"
    config.model.portrait_capacity, config.model.attribute_capacity = 0.75, 0.375
    config.learning_rate, config.warmup_steps = 1e-2, 0
    model, _, objective = validate(config)
    optimizer = make_optimizer(config)
    before = {path: x + 0.02 for path, x in init_params(model, 0).items()}  # past zeros that let no gradient through
    state = create_state({path: jnp.array(x) for path, x in before.items()}, "1", optimizer, "float32")
    rng = np.random.default_rng(0)
    batch = {name: rng.integers(0, 2 if "mask" in name else 256, x.shape, np.uint8)
             for name, x in random_batch(model, frames=2).items()}
    batch["keypoints"] = rng.random(batch["keypoints"].shape, np.float32)
    batch["attribute_valid"] = np.ones((2, 1), np.float32)
    batch["frame_masks"] = rng.integers(0, 2, (*batch["frames"].shape[:4], 1), np.uint8)
    step = make_train_step(config, model, objective, optimizer)
    state, _ = step(state, batch)
    state, metrics = step(state, batch)
    assert np.isfinite(metrics["loss"])
    for network in ("portrait_reference/", "attribute_reference/"):
        moved = {path: np.abs(x - before[path]).max() for path, x in state.params.items() if path.startswith(network)}
        assert max(moved.values()) > 1e-4, moved


DIVIDED = """
import jax, jax.numpy as jnp, numpy as np
from durian_jax.models.durian.pruning import keep_tokens
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


@pytest.mark.parametrize("capacity", [0.0, -0.5, 0.3, 1.125, 2])
def test_bad_capacities_are_refused(capacity):
    for name in ("portrait_capacity", "attribute_capacity"):
        with pytest.raises(InputError, match=f"{name}: expected a multiple of 1/8, from 0.125 to 1, found"):
            replace(TINY, **{name: capacity})


@pytest.mark.parametrize("mode", ["single", "tokens"])
def test_other_ways_of_giving_references_have_no_capacity(mode):
    assert replace(TINY, reference_mode=mode).portrait_capacity == 1
    with pytest.raises(InputError, match=f"attribute_capacity=0.5 is for reference_mode='dual', found '{mode}'; set"):
        replace(TINY, reference_mode=mode, attribute_capacity=0.5)


def test_both_presets_have_the_fields_and_old_checkpoints_do_without():
    for preset in ("tiny", "sd15"):
        config = get_config(f"{preset},stage=1")
        config.model.attribute_capacity = 0.5
        model = DurianConfig.from_dict(config.model.to_dict())
        assert (model.portrait_capacity, model.attribute_capacity) == (1.0, 0.5)
    old = {name: value for name, value in TINY.to_dict().items() if not name.endswith("_capacity")}
    assert DurianConfig.from_dict(old) == TINY
