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
    return _flops(jaxpr)


# Whose insides are not counted here: a kernel's, or those of a loop of unknown length.
_OPAQUE = ("pallas_call", "while", "shard_map")


def _flops(jaxpr: Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        inner = [_flops(part) for part in _inner(equation.params)]
        if name == "dot_general":
            total += _dot_flops(equation)
        elif name == "conv_general_dilated":
            total += _conv_flops(equation)
        elif name in _OPAQUE and sum(inner):
            raise ValueError(f"the FLOPs of {name} cannot be counted")
        elif name == "cond":
            total += max(inner)
        else:
            total += sum(inner) * (equation.params["length"] if name == "scan" else 1)
    return total


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
