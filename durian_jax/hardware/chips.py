"""Specifications of TPU chips and slices, as published by the manufacturer."""

import math
import re
from dataclasses import dataclass

from durian_jax.errors import InputError

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """Specifications of one chip.

    Attributes:
        flops: floating-point operations per second of matrix products in bfloat16.
        hbm_bytes: memory available to a program, as in XLA's out-of-memory errors.
        hbm_bandwidth: bytes per second.
        ring_bandwidth: bytes per second that a chip receives from both neighbours along one axis of the torus.
        tile: side of the matrix unit.
        torus_axes: 2 or 3.
        ring_length: an axis of the torus is a ring if its length is a multiple of this. Otherwise it is a line with
            half the bandwidth.
        devices: number of JAX devices of a chip. Each core of a v4 is one.
    """

    flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    ring_bandwidth: float
    tile: int
    torus_axes: int
    ring_length: int
    devices: int = 1


CHIPS = {
    "v4": Chip(275e12, int(30.75 * GIB), 1.2e12, 9e10, 128, 3, 4, devices=2),
    "v5e": Chip(197e12, int(15.75 * GIB), 8.2e11, 9e10, 128, 2, 16),
    "v5p": Chip(459e12, int(95.74 * GIB), 2.765e12, 1.8e11, 128, 3, 4),
    "v6e": Chip(918e12, int(31.25 * GIB), 1.64e12, 1.8e11, 256, 2, 16),
}


def parse_topology(text: str) -> tuple[Chip, tuple[int, ...]]:
    """Return the chip of a topology like "v5e:16x16", and the number of chips along each axis.

    Raises:
        InputError: an unknown chip, a number of axes that differs from the chip's torus, or a part of a host.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text)
    if match is None or match[1] not in CHIPS:
        raise InputError(f"--topology {text}: expected CHIP:AxB or CHIP:AxBxC with one of the chips "
                         f"{', '.join(CHIPS)}, for example v5e:16x16")
    chip, shape = CHIPS[match[1]], tuple(int(size) for size in match[2].split("x"))
    if len(shape) != chip.torus_axes or math.prod(shape) < 1:
        raise InputError(f"--topology {text}: expected {chip.torus_axes} sizes of at least 1 for {match[1]}, for "
                         f"example {match[1]}:{'x'.join(['4'] * chip.torus_axes)}")
    if shape[0] % 2 or shape[1] % 2:
        raise InputError(f"--topology {text}: expected even numbers of chips along the first two axes, because a host "
                         f"has 2 x 2 of them, for example {match[1]}:{'x'.join(['4'] * chip.torus_axes)}")
    return chip, shape


def group_bandwidth(chip: Chip, shape: tuple[int, ...], coordinates: list[tuple[int, ...]]) -> float:
    """Return the bytes per second that each chip of a group receives while all chips of the group exchange data.

    Args:
        chip: the chip.
        shape: number of chips along each axis of the torus.
        coordinates: position of each chip of the group in the torus.
    """
    bandwidth = 0.0
    for axis, size in enumerate(shape):
        reached = len({place[axis] for place in coordinates})
        if reached > 1:
            ring = reached == size and size % chip.ring_length == 0
            bandwidth += chip.ring_bandwidth if ring else chip.ring_bandwidth / 2
    return bandwidth
