"""Train the segmentation network on heads with true masks and on procedural heads."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from durian_jax.errors import InputError
from durian_jax.files import full_disk_explained
from durian_jax.progress import progress_bar
from durian_jax.segmentation.examples import Example, changed, procedural_example
from durian_jax.segmentation.features import CHANNELS, SIDE
from durian_jax.segmentation.flax_network import SegmentationNetwork
from durian_jax.segmentation.network import check_output, flat_weights
from durian_jax.tensor_files import write_tensors

_BACKGROUNDS = 32  # procedural pictures that serve as backgrounds
_PIXELS = 50  # added to the areas in the Dice loss, so that a few pixels do not dominate


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        steps: optimiser steps.
        batch: examples per step.
        real: share of examples with true masks; the others are procedural.
        procedural: number of procedural people.
        learning_rate: peak; the rate rises linearly for 1/15 of the steps, then falls along a cosine.
        average: decay of the moving average of the weights, which is stored. The first steps use less.
        seed: of the weights and of all random changes.
    """

    steps: int = 2000
    batch: int = 16
    real: float = 0.6
    procedural: int = 2000
    learning_rate: float = 2e-3
    average: float = 0.995
    seed: int = 0

    def __post_init__(self):
        if min(self.steps, self.batch, self.procedural) < 1 or not 0 <= self.real <= 1:
            raise InputError(f"expected at least one step, example and procedural person, and a share of real examples "
                             f"within 0..1, got {self}")
        if not 0 < self.learning_rate < np.inf or not 0 <= self.average < 1:
            raise InputError(f"expected a positive learning rate and an average within 0..1, got {self}")


def train(examples: Sequence[Example], out: str | Path, settings: TrainingSettings | None = None) -> list[float]:
    """Train a network and write model.safetensors (float16) to a folder.

    Args:
        examples: heads with true masks.
        out: folder to write; see `check_output`.
        settings: None: the defaults.

    Returns:
        The loss of every step.

    Raises:
        InputError: there is no example, but `settings.real` asks for some; `check_output` refuses the folder; or the
            loss is not finite.
    """
    settings, out = settings or TrainingSettings(), check_output(out)
    if settings.real and not examples:
        raise InputError("expected heads with true masks, got none; name datasets, or set the share of real ones to 0")
    rng = np.random.default_rng(settings.seed)
    procedural = lru_cache(None)(procedural_example)
    backgrounds = [example.frame for example in examples]
    backgrounds += [procedural(number).frame for number in range(min(_BACKGROUNDS, settings.procedural))]

    def batch() -> list[np.ndarray]:
        chosen = [examples[rng.integers(len(examples))] if rng.random() < settings.real
                  else procedural(int(rng.integers(settings.procedural))) for _ in range(settings.batch)]
        return [np.stack(layers) for layers in zip(*(changed(one, backgrounds, rng) for one in chosen), strict=True)]

    network = SegmentationNetwork()
    params = network.init(jax.random.key(settings.seed), jnp.zeros((1, SIDE, SIDE, CHANNELS)))
    rate = optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, max(1, settings.steps // 15),
                                              settings.steps + 1, settings.learning_rate / 100)
    optimiser = optax.adamw(rate, weight_decay=1e-2)
    state, average, losses = optimiser.init(params), params, []

    @jax.jit
    def step(number, params, state, average, features, masks, known):
        loss, gradient = jax.value_and_grad(
            lambda params: mask_loss(network.apply(params, features), masks, known))(params)
        change, state = optimiser.update(gradient, state, params)
        params = optax.apply_updates(params, change)
        # The random weights of the start fade within few steps.
        decay = jnp.minimum(settings.average, (1 + number) / (10 + number))
        average = jax.tree.map(lambda old, new: old * decay + new * (1 - decay), average, params)
        return params, state, average, loss

    with ThreadPoolExecutor(1) as pool, progress_bar(None, total=settings.steps, desc="training", unit="step") as bar:
        coming = pool.submit(batch)
        for number in range(settings.steps):
            given = coming.result()
            if number + 1 < settings.steps:
                coming = pool.submit(batch)
            params, state, average, loss = step(number, params, state, average, *given)
            losses.append(float(loss))
            if not np.isfinite(losses[-1]):
                raise InputError(f"the loss is not finite at step {number + 1}; nothing was written; use a lower "
                                 "learning rate or another seed")
            bar.set_postfix_str(f"loss {np.mean(losses[-100:]):.3f}")
            bar.update()
    weights = flat_weights(jax.device_get(average)["params"])
    with full_disk_explained(out):
        out.mkdir(parents=True, exist_ok=True)
        write_tensors(out, [(name, value.astype(np.float16)) for name, value in weights.items()])
    return losses


def mask_loss(logits: jax.Array, masks: jax.Array, known: jax.Array) -> jax.Array:
    """Cross entropy plus half of the Dice loss (Milletari et al. 2016), summed over the kinds.

    Args:
        logits, masks, known: (N, S, S, 4); pixels that are not known do not count.
    """
    entropy = (optax.sigmoid_binary_cross_entropy(logits, masks) * known).sum((0, 1, 2))
    entropy = entropy / jnp.maximum(known.sum((0, 1, 2)), 1)
    found, true = jax.nn.sigmoid(logits) * known, masks * known
    shared, areas = (found * true).sum((1, 2)), (found + true).sum((1, 2))
    dice = 1 - (2 * shared + _PIXELS) / (areas + _PIXELS)
    return (entropy + 0.5 * dice.mean(0)).sum()
