"""Train the segmentation networks on heads with true masks and on procedural heads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from durian_jax.errors import InputError
from durian_jax.files import full_disk_explained
from durian_jax.progress import progress_bar
from durian_jax.segmentation.examples import Example, changed, procedural_example
from durian_jax.segmentation.eye_examples import EyeExample, changed_eyes, procedural_eyes
from durian_jax.segmentation.features import CHANNELS, PATCH, SIDE
from durian_jax.segmentation.flax_network import EyeNetwork, SegmentationNetwork
from durian_jax.segmentation.network import check_output, flat_weights
from durian_jax.tensor_files import write_tensors

_BACKGROUNDS = 32  # procedural pictures that serve as backgrounds
# Share of people with glasses among the examples of eyes that are not procedural; number of procedural people.
_WEARERS, _EYE_PEOPLE = 0.12, 300
_SMOOTH = 0.02  # of the labels of the eyes
_PIXELS = 50  # added to the areas in the Dice loss, so that a few pixels do not dominate


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        steps: optimiser steps of the head's network.
        eye_steps: optimiser steps of the eyes' network.
        batch: heads per step; twice as many eyes.
        real: share of examples from `examples` and `people`; the others are procedural.
        procedural: number of procedural people.
        learning_rate: peak; the rate rises linearly for 1/15 of the steps, then falls along a cosine.
        average: decay of the moving average of the weights, which is stored. The first steps use less.
        seed: of the weights and of all random changes.
    """

    steps: int = 2400
    eye_steps: int = 1200
    batch: int = 16
    real: float = 0.75
    procedural: int = 2000
    learning_rate: float = 2e-3
    average: float = 0.995
    seed: int = 0

    def __post_init__(self):
        if min(self.steps, self.eye_steps, self.batch, self.procedural) < 1 or not 0 <= self.real <= 1:
            raise InputError(f"expected at least one step, example and procedural person, and a share of real examples "
                             f"within 0..1, got {self}")
        if not 0 < self.learning_rate < np.inf or not 0 <= self.average < 1:
            raise InputError(f"expected a positive learning rate and an average within 0..1, got {self}")


def train(examples: Sequence[Example], people: Sequence[Sequence[EyeExample]], out: str | Path,
          settings: TrainingSettings | None = None) -> list[float]:
    """Train the networks of the head and of the eyes, and write model.safetensors (float16) to a folder.

    Args:
        examples: heads with true masks.
        people: the eyes of each person.
        out: folder to write; see `check_output`.
        settings: None: the defaults.

    Returns:
        The loss of the head's network at every step.

    Raises:
        InputError: there is no example, but `settings.real` asks for some; `check_output` refuses the folder; or a
            loss is not finite.
    """
    settings, out = settings or TrainingSettings(), check_output(out)
    if settings.real and not (examples and any(people)):
        raise InputError("expected heads with true masks, got none; name datasets, or set the share of real ones to 0")
    procedural = lru_cache(None)(procedural_example)
    eyes, _ = _optimised(EyeNetwork(), eye_loss, _eye_batches(people, procedural, settings), (*PATCH, 3),
                         settings.eye_steps, settings, "training for glasses")
    head, losses = _optimised(SegmentationNetwork(), mask_loss, _head_batches(examples, procedural, settings),
                              (SIDE, SIDE, CHANNELS), settings.steps, settings, "training for masks")
    with full_disk_explained(out):
        out.mkdir(parents=True, exist_ok=True)
        write_tensors(out, [(name, value.astype(np.float16)) for name, value in flat_weights({**eyes, **head}).items()])
    return losses


# Makes the arrays of a batch: the features, then the other arguments of the loss.
_Batches = Callable[[], list[np.ndarray]]


def _head_batches(examples: Sequence[Example], procedural: Callable[[int], Example], settings: TrainingSettings
                  ) -> _Batches:
    rng = np.random.default_rng(settings.seed)
    backgrounds = [example.frame for example in examples]
    backgrounds += [procedural(number).frame for number in range(min(_BACKGROUNDS, settings.procedural))]

    def batch() -> list[np.ndarray]:
        chosen = [examples[rng.integers(len(examples))] if rng.random() < settings.real
                  else procedural(int(rng.integers(settings.procedural))) for _ in range(settings.batch)]
        return [np.stack(layers) for layers in zip(*(changed(one, backgrounds, rng) for one in chosen), strict=True)]
    return batch


def _eye_batches(people: Sequence[Sequence[EyeExample]], procedural: Callable[[int], Example],
                 settings: TrainingSettings) -> _Batches:
    rng = np.random.default_rng(settings.seed)
    made = lru_cache(None)(lambda number: procedural_eyes(procedural(number)))
    # Few people wear glasses; most glasses are drawn.
    groups = [[eyes for person in people if (eyes := [one for one in person if one.worn == worn])]
              for worn in (True, False)]
    groups = [group for group in groups if group]

    def chosen() -> EyeExample:
        if not groups or rng.random() >= settings.real:
            return made(int(rng.integers(min(settings.procedural, _EYE_PEOPLE))))
        group = groups[0 if rng.random() < _WEARERS else -1]
        person = group[rng.integers(len(group))]
        return person[rng.integers(len(person))]

    def batch() -> list[np.ndarray]:
        features, worn = zip(*(changed_eyes(chosen(), rng) for _ in range(2 * settings.batch)), strict=True)
        return [np.stack(features), np.array(worn, np.float32)]
    return batch


def _optimised(network: nn.Module, loss_of: Callable[..., jax.Array], batch: _Batches, shape: tuple[int, ...],
               steps: int, settings: TrainingSettings, words: str) -> tuple[dict, list[float]]:
    """Train a network; return the average of its weights, and the loss of every step.

    Args:
        network: (N, ...) features -> answers.
        loss_of: (answers, further arrays of the batch) -> loss.
        batch: makes a batch; a thread calls it.
        shape: of the features, without N.
        steps: optimiser steps.
        settings: of rate, average and seed.
        words: of the progress bar.
    """
    params = network.init(jax.random.key(settings.seed), jnp.zeros((1, *shape)))
    rate = optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, max(1, steps // 15), steps + 1,
                                              settings.learning_rate / 100)
    optimiser = optax.adamw(rate, weight_decay=1e-2)
    state, average, losses = optimiser.init(params), params, []

    @jax.jit
    def step(number, params, state, average, features, *true):
        loss, gradient = jax.value_and_grad(lambda params: loss_of(network.apply(params, features), *true))(params)
        change, state = optimiser.update(gradient, state, params)
        params = optax.apply_updates(params, change)
        # The random weights of the start fade within few steps.
        decay = jnp.minimum(settings.average, (1 + number) / (10 + number))
        average = jax.tree.map(lambda old, new: old * decay + new * (1 - decay), average, params)
        return params, state, average, loss

    with ThreadPoolExecutor(1) as pool, progress_bar(None, total=steps, desc=words, unit="step") as bar:
        coming = pool.submit(batch)
        for number in range(steps):
            given = coming.result()
            if number + 1 < steps:
                coming = pool.submit(batch)
            params, state, average, loss = step(number, params, state, average, *given)
            losses.append(float(loss))
            if not np.isfinite(losses[-1]):
                raise InputError(f"the loss is not finite at step {number + 1}; nothing was written; use a lower "
                                 "learning rate or another seed")
            bar.set_postfix_str(f"loss {np.mean(losses[-100:]):.3f}")
            bar.update()
    return jax.device_get(average)["params"], losses


def eye_loss(logits: jax.Array, worn: jax.Array) -> jax.Array:
    """Cross entropy with smoothed labels: (N,) logits and (N,) 0 or 1."""
    return optax.sigmoid_binary_cross_entropy(logits, worn * (1 - 2 * _SMOOTH) + _SMOOTH).mean()


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
