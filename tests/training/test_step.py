"""The compiled training step."""

import functools

import jax
import jax.numpy as jnp

from durian_jax.training.step import compiler_options


def test_recomputation_saves_memory():
    """Without the compiler options, XLA's CPU backend (jax 0.10) merges recomputed values with the original ones."""
    block = lambda x, w: x + jnp.tanh(jax.nn.softmax(x @ x.T) @ x @ w)
    arguments = [jnp.ones((16, 16))] * 8, jnp.ones((512, 16))

    def temporary_bytes(block, remat):
        loss = lambda weights, x: jnp.mean(functools.reduce(block, weights, x) ** 2)
        compiled = jax.jit(jax.grad(loss), compiler_options=compiler_options(remat, "cpu")).lower(*arguments).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(jax.checkpoint(block), "full") < temporary_bytes(block, "none") / 2
