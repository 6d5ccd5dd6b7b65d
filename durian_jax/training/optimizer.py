"""Learning-rate schedule and optimiser of a training config."""

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon

OPTIMIZERS = ("adamw", "muon")


def make_learning_rate(config) -> optax.Schedule:
    """Return the schedule: linear warm-up, constant, then cosine decay over the last `decay_steps`.

    The decay ends at `final_fraction` of the learning rate.
    """
    decay_steps = min(config.decay_steps, config.total_steps)

    def learning_rate(step: jax.Array) -> jax.Array:
        warmup = jnp.minimum(1.0, (step + 1) / max(config.warmup_steps, 1))
        progress = jnp.clip((step - (config.total_steps - decay_steps)) / max(decay_steps, 1), 0, 1)
        decay = config.final_fraction + (1 - config.final_fraction) * (1 + jnp.cos(jnp.pi * progress)) / 2
        return config.learning_rate * warmup * decay

    return learning_rate


def _muon_dimensions(params):
    """Select matrices and convolution kernels for Muon. None leaves norms and biases to Adam."""
    def of(x: jax.Array):
        if x.ndim == 2:
            return MuonDimensionNumbers((0,), (1,))
        if x.ndim == 4:
            return MuonDimensionNumbers((0, 1, 2), (3,))
        return None
    return jax.tree.map(of, params)


def make_optimizer(config) -> optax.GradientTransformation:
    """Return the optimiser of a training config.

    The papers use "adamw". "muon" (orthogonalised momentum) needs about half the steps for a small model
    without pretrained weights. `consistent_rms` scales its updates like Adam's, so learning rates are
    comparable.

    Args:
        config: training config; `optimizer` is one of `OPTIMIZERS`.
    """
    learning_rate = make_learning_rate(config)
    if config.optimizer == "adamw":
        update = optax.adamw(learning_rate, b1=0.9, b2=0.99, weight_decay=config.weight_decay)
    else:
        update = muon(learning_rate, ns_steps=4, consistent_rms=0.2, weight_decay=config.weight_decay,
                      muon_weight_dimension_numbers=_muon_dimensions)
    return optax.chain(optax.clip_by_global_norm(config.gradient_clip), update)
