"""Floating-point operations of a traced function, counted from its jaxpr.

XLA's own count leaves out kernels written by hand and counts the body of a loop once.
"""

import math
from collections.abc import Callable, Iterator

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.interpreters.partial_eval import dce_jaxpr


def count_flops(function: Callable, *arguments) -> int:
    """Multiplications and additions in the matrix products and convolutions of a call; the rest is not counted.

    Args:
        arguments: arrays, or their shapes and types.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    jaxpr, _ = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return sum(flops for _, flops, _ in products(jaxpr))


def products(jaxpr: Jaxpr, times: int = 1) -> Iterator[tuple]:
    """(equation, its FLOPs, how often it runs) of every product, those of inner functions and loops too.

    The FLOPs are of all runs together.
    """
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            yield equation, times * _dot_flops(equation), times
        elif name == "conv_general_dilated":
            yield equation, times * _conv_flops(equation), times
        else:
            repeats = times * (equation.params["length"] if name == "scan" else 1)
            for inner in _inner(equation.params):
                yield from products(inner, repeats)


def _inner(params: dict) -> Iterator[Jaxpr]:
    for value in params.values():
        for part in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(part, ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, Jaxpr):
                yield part


def _dot_flops(equation) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _conv_flops(equation) -> int:
    numbers = equation.params["dimension_numbers"]
    kernel = equation.invars[1].aval.shape
    taps = math.prod(kernel[axis] for axis in numbers.rhs_spec[2:])
    inputs = kernel[numbers.rhs_spec[1]]
    # Positions between which zeros lie (a transposed convolution) are not work.
    zeros = math.prod(equation.params["lhs_dilation"])
    return 2 * math.prod(equation.outvars[0].aval.shape) * taps * inputs // zeros
