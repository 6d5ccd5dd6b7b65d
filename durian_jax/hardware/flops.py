"""Floating-point operations of a traced function, counted from its jaxpr.

XLA's own count omits hand-written kernels and counts a loop's body only once.
"""

import math
from collections.abc import Callable, Iterator

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.interpreters.partial_eval import dce_jaxpr


def count_flops(function: Callable, *arguments, tile: int = 1) -> int:
    """Count the multiplications and additions in the matrix products and convolutions of a call.

    Other operations do not count. Recomputation counts each time it runs. A loop's body counts once per iteration,
    a kernel's body once per grid point, the body of `jax.shard_map` once per device of the mesh.

    Args:
        function: the function to trace.
        arguments: arrays, or their shapes and dtypes.
        tile: side of the matrix unit. Padding to multiples of it counts as work, for the contracted axis and for
            the shorter of the other two axes. 1: no padding.

    Raises:
        ValueError: a `while` loop with matrix products, because its length is unknown.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    jaxpr, _ = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return _flops(jaxpr, tile)


def _flops(jaxpr: Jaxpr, tile: int) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        inner = [_flops(part, tile) for part in _inner(equation.params)]
        if name == "dot_general":
            total += _dot_flops(equation, tile)
        elif name == "conv_general_dilated":
            total += _conv_flops(equation, tile)
        elif name == "cond":
            total += max(inner)
        elif name == "while" and sum(inner):
            raise ValueError("expected loops of known length, found a `while` loop; write it with jax.lax.scan")
        else:
            total += sum(inner) * _repetitions(name, equation.params)
    return total


def _repetitions(name: str, params: dict) -> int:
    if name == "scan":
        return params["length"]
    if name == "pallas_call":
        return math.prod(params["grid_mapping"].grid)
    if name == "shard_map":
        return params["mesh"].size
    return 1


def _inner(params: dict) -> Iterator[Jaxpr]:
    for value in params.values():
        for part in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(part, ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, Jaxpr):
                yield part


def _product_flops(contracted: int, left: int, right: int, tile: int) -> int:
    filled = lambda size: -(-size // tile) * tile
    return 2 * filled(contracted) * max(left, right) * filled(min(left, right))


def _dot_flops(equation, tile: int) -> int:
    (contracted, _), (batch, _) = equation.params["dimension_numbers"]
    left, right = (variable.aval.shape for variable in equation.invars)
    size = lambda axes: math.prod(left[axis] for axis in axes)
    shared, repeated = size(contracted), size(batch)
    return repeated * _product_flops(shared, math.prod(left) // (shared * repeated),
                                     math.prod(right) // (shared * repeated), tile)


def _conv_flops(equation, tile: int) -> int:
    numbers = equation.params["dimension_numbers"]
    kernel, result = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
    taps = math.prod(kernel[axis] for axis in numbers.rhs_spec[2:])
    positions = math.prod(result[axis] for axis in numbers.out_spec[2:])
    inputs, images, outputs = kernel[numbers.rhs_spec[1]], result[numbers.out_spec[0]], result[numbers.out_spec[1]]
    # Normally one matrix product per kernel tap. In a kernel's gradient the taps are the picture's positions; there,
    # one matrix product per position of the result is cheaper.
    if taps <= positions:
        flops = taps * _product_flops(inputs, images * positions, outputs, tile)
    else:
        flops = positions * _product_flops(inputs * taps, images, outputs, tile)
    # The zeros that a transposed convolution inserts between positions are not work.
    return flops // math.prod(equation.params["lhs_dilation"])
