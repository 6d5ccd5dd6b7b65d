"""Models that keep a share of the reference tokens: the same tokens, and everything else works with them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.configs.durian import get_config
from durian_jax.diffusion import Objective, Sampling
from durian_jax.inference.generate import generate, references
from durian_jax.models.attention import AttentionMethod
from durian_jax.models.parameters import init_params, param_shapes, variables
from durian_jax.training.config import RunConfig
from durian_jax.training.optimizer import make_optimizer
from durian_jax.training.recipes.durian import denoising_loss
from durian_jax.training.state import create_state
from durian_jax.training.step import make_train_step
from tests.helpers.models import TINY, denoise, random_batch, random_params, with_attributes
from tests.helpers.runs import small_config

# Of the 4 tokens of every site, the portrait keeps 3 and an attribute 2.
PRUNED = replace(TINY, portrait_capacity=0.75, attribute_capacity=0.375)


def project(config, batch):
    """Return the references of a batch at every site, and which tokens they are."""
    def run(m):
        encoded = m.encoded_references(batch)
        features = m.reference_features(encoded)
        kept = m.kept_tokens(encoded, [x.shape[2] for x in features])
        return m.project_references(encoded).sites, kept
    return jax.jit(lambda p: config.create().apply(variables(p), method=run))(random_params())


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
    trace = lambda config: str(jax.make_jaxpr(
        lambda p: config.create().apply(variables(p), batch, method="references"))(param_shapes(config)))
    assert trace(TINY) == trace(replace(TINY, portrait_capacity=1, attribute_capacity=1.0))
    assert not any(name in trace(TINY) for name in ("sort[", "gather["))
    assert all(name in trace(PRUNED) for name in ("sort[", "gather["))


def test_composition_and_interpolation():
    batch = random_batch(attributes=2)
    predict = lambda batch: denoise(random_params(), batch, PRUNED)
    np.testing.assert_allclose(predict(with_attributes(batch, [1, 0])), predict(batch), atol=1e-5)
    first = predict(with_attributes(batch, [0]))
    blended = {alpha: predict({**batch, "attribute_weights": np.tile(np.float32([1 - alpha, alpha]), (2, 3, 1))})
               for alpha in (0.0, 1.0)}
    np.testing.assert_allclose(blended[0.0], first, atol=1e-4)
    assert np.abs(blended[1.0] - first).max() > 1e-3
    without = {**batch, "attribute_valid": np.array([[1, 0], [1, 0]], np.float32)}
    np.testing.assert_allclose(predict(without), first, atol=1e-5)


def test_references_are_shared_by_the_windows_of_a_video():
    checkpoint, batch, fast = Checkpoint(PRUNED, Objective(), random_params()), random_batch(), Sampling(steps=1)
    shared = references(checkpoint, batch)
    assert {x.sizes for x in shared.sites} == {(3, 2)}
    given = generate(checkpoint, batch, fast, references=shared)
    assert np.abs(given.astype(int) - generate(checkpoint, batch, fast)).max() <= 1


def test_a_gradient_reaches_all_of_the_reference_networks():
    """With recomputation, which takes keys, values and their sizes through `jax.checkpoint`."""
    batch = {name: jnp.asarray(x) for name, x in random_batch().items()}
    run = replace(RunConfig.read(get_config("tiny,stage=1")), model=PRUNED, guidance_dropout=0.0,
                  objective=Objective(prediction="sample", pixel_weight=1.0))
    model = PRUNED.create("full", AttentionMethod("chunked"))

    def loss(params):
        return denoising_loss(run, model, variables(params), batch, jax.random.key(0), temporal=False)[0]
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
    run = RunConfig.read(config)
    optimizer = make_optimizer(run)
    # Past zeros that let no gradient through.
    before = {path: x + 0.02 for path, x in init_params(run.model, 0).items()}
    state = create_state({path: jnp.array(x) for path, x in before.items()}, run.recipe.trains, optimizer, "float32")
    rng = np.random.default_rng(0)
    batch = {name: rng.integers(0, 2 if "mask" in name else 256, x.shape, np.uint8)
             for name, x in random_batch(run.model, frames=2).items()}
    batch["keypoints"] = rng.random(batch["keypoints"].shape, np.float32)
    batch["attribute_valid"] = np.ones((2, 1), np.float32)
    step = make_train_step(run, optimizer)
    state, _ = step(state, batch)
    state, metrics = step(state, batch)
    assert np.isfinite(metrics["loss"])
    for network in ("portrait_reference/", "attribute_reference/"):
        moved = {path: np.abs(x - before[path]).max() for path, x in state.params.items() if path.startswith(network)}
        assert max(moved.values()) > 1e-4, moved
