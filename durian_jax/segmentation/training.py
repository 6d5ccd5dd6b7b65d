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
from durian_jax.progress import progress_bar
from durian_jax.segmentation.examples import Example, changed, procedural_example
from durian_jax.segmentation.features import CHANNELS, SIDE
from durian_jax.segmentation.flax_network import SegmentationNetwork
from durian_jax.segmentation.network import flat_weights
from durian_jax.tensor_files import write_tensors

_PIXELS = 50  # added to the areas in the Dice loss, so that a few pixels do not dominate


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        steps: optimiser steps.
        batch: examples of a step.
        real: share of examples with true masks; the others are procedural.
        procedural: number of procedural people.
        learning_rate: the largest one; it rises for a fifteenth of the steps and falls along a cosine.
        average: decay of the moving average of the weights, which is kept.
        seed: of weights and changes.
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


def train(examples: Sequence[Example], out: str | Path, settings: TrainingSettings | None = None) -> list[float]:
    """Train a network and write model.safetensors (float16) to a folder.

    Args:
        examples: heads with true masks.
        out: folder; it is made if it is missing.
        settings: None: the defaults.

    Returns:
        The loss of every step.

    Raises:
        InputError: there is no example, but `settings.real` asks for some.
    """
    settings = settings or TrainingSettings()
    if settings.real and not examples:
        raise InputError("expected heads with true masks, got none; name datasets, or set the share of real ones to 0")
    rng = np.random.default_rng(settings.seed)
    procedural = lru_cache(None)(procedural_example)
    backgrounds = [example.frame for example in examples] + [procedural(number).frame for number in range(32)]

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
    def step(params, state, average, features, masks, known):
        loss, gradient = jax.value_and_grad(
            lambda params: mask_loss(network.apply(params, features), masks, known))(params)
        change, state = optimiser.update(gradient, state, params)
        params = optax.apply_updates(params, change)
        average = jax.tree.map(lambda old, new: old * settings.average + new * (1 - settings.average), average, params)
        return params, state, average, loss

    with ThreadPoolExecutor(1) as pool, progress_bar(None, total=settings.steps, desc="training", unit="step") as bar:
        coming = pool.submit(batch)
        for _ in range(settings.steps):
            given, coming = coming.result(), pool.submit(batch)
            params, state, average, loss = step(params, state, average, *given)
            losses.append(float(loss))
            bar.set_postfix_str(f"loss {np.mean(losses[-100:]):.3f}")
            bar.update()
    Path(out).mkdir(parents=True, exist_ok=True)
    weights = flat_weights(jax.device_get(average)["params"])
    write_tensors(Path(out), [(name, value.astype(np.float16)) for name, value in weights.items()])
    return losses


def mask_loss(logits: jax.Array, masks: jax.Array, known: jax.Array) -> jax.Array:
    """Cross entropy plus half of the Dice loss (Milletari et al. 2016), summed over the kinds.

    Args:
        logits, masks, known: (N, S, S, 4); pixels that are not known do not count.
    """
    entropy = (optax.sigmoid_binary_cross_entropy(logits, masks) * known).mean((0, 1, 2))
    found, true = jax.nn.sigmoid(logits) * known, masks * known
    shared, areas = (found * true).sum((1, 2)), (found + true).sum((1, 2))
    dice = 1 - (2 * shared + _PIXELS) / (areas + _PIXELS)
    return (entropy + 0.5 * dice.mean(0)).sum()
