"""FLOPs of a jaxpr, compared with counts by hand."""

import jax
import jax.numpy as jnp
import pytest

from durian_jax.hardware.flops import count_flops
from durian_jax.models.attention import AttentionMethod
from durian_jax.models.attention.kernels import splash

X, W = jnp.zeros((8, 16)), jnp.zeros((16, 32))
IMAGE, KERNEL = jnp.zeros((2, 8, 8, 4)), jnp.zeros((3, 3, 4, 6))


def convolve(stride):
    return lambda x, k: jax.lax.conv_general_dilated(x, k, (stride, stride), "SAME",
                                                     dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize(("function", "arguments", "flops"), [
    (lambda x, w: x @ w, (X, W), 2 * 8 * 16 * 32),
    (lambda x, w: jnp.einsum("bij,bjk->bik", x, w), (jnp.zeros((3, 8, 16)), jnp.zeros((3, 16, 32))),
     3 * 2 * 8 * 16 * 32),
    (convolve(1), (IMAGE, KERNEL), 2 * 2 * 8 * 8 * 9 * 4 * 6),
    (convolve(2), (IMAGE, KERNEL), 2 * 2 * 4 * 4 * 9 * 4 * 6),
    # A loop's body counts once per iteration, a jitted function like its content.
    (lambda x, w: jax.lax.scan(lambda c, _: (c, c @ w), x, None, length=5)[1], (X, W), 5 * 2 * 8 * 16 * 32),
    (lambda x, w: jax.jit(lambda y: y @ w)(x), (X, W), 2 * 8 * 16 * 32),
    # Unused results do not count.
    (lambda x, w: (x @ w, x)[1], (X, W), 0),
])
def test_flops_are_counted(function, arguments, flops):
    assert count_flops(function, *arguments) == flops


def test_gradients_cost_twice_the_forward_pass():
    """Gradients of all inputs. The zeros in the transpose of a strided convolution do not count."""
    for function, arguments in ((lambda x, w: x @ w, (X, W)), (convolve(1), (IMAGE, KERNEL)),
                                (convolve(2), (IMAGE, KERNEL))):
        forward = count_flops(function, *arguments)
        gradient = jax.grad(lambda *a, f=function: jnp.sum(jnp.sin(f(*a))), argnums=(0, 1))
        assert count_flops(gradient, *arguments) == 3 * forward


def test_recomputation_counts():
    square = lambda x, w: jnp.sum(jnp.sin(jnp.sin(x @ w) @ w.T))
    plain = count_flops(jax.value_and_grad(square, argnums=(0, 1)), X, W)
    again = count_flops(jax.value_and_grad(jax.checkpoint(square), argnums=(0, 1)), X, W)
    assert plain < again <= 4 / 3 * plain


def test_padding_to_the_matrix_unit_counts():
    """The contracted axis and the shorter other axis are padded, per kernel tap or per position of the gradient."""
    assert count_flops(lambda x, w: x @ w, X, W, tile=128) == 2 * 32 * 128 * 128
    assert count_flops(lambda x, w: x @ w, jnp.zeros((1000, 320)), jnp.zeros((320, 320)), tile=128) == 2 * 1000 * 384**2
    assert count_flops(convolve(1), IMAGE, KERNEL, tile=128) == 9 * 2 * 128 * 128 * 128
    gradient = jax.grad(lambda k: jnp.sum(convolve(1)(IMAGE, k)))
    assert count_flops(gradient, KERNEL, tile=128) == 9 * 2 * 128 * 6 * 128


def test_pallas_kernels_count():
    """Splash attention has 2 products, and 4 + 3 backwards, because both backward kernels recompute the logits."""
    b, f, n, h, d = 2, 3, 256, 2, 40
    inputs = [jnp.zeros((b, f, n, h, d))] * 3
    attend = lambda q, k, v: jnp.sum(splash(q, k, v, None, AttentionMethod("splash")))
    product = 2 * b * f * h * n * n * d
    assert count_flops(attend, *inputs) == 2 * product
    inner = 2 * b * f * h * n * d  # inner product of the result and its gradient
    assert count_flops(jax.grad(attend, argnums=(0, 1, 2)), *inputs) == 9 * product + inner
    wide = 2 * b * f * h * n * n * 128
    assert count_flops(attend, *inputs, tile=128) == 2 * wide
