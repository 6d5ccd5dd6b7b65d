"""What a TPU chip and a slice of them can do, by the makers' figures."""

import math
import re
from dataclasses import dataclass

from durian_jax.errors import InputError

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One chip.

    Attributes:
        flops: matrix products per second in bfloat16.
        hbm_bytes: memory that a program may use (what XLA's out-of-memory errors call available).
        hbm_bandwidth: bytes per second.
        ring_bandwidth: bytes per second that a chip takes in from both neighbours along one axis of the torus.
        tile: side of the matrix unit.
        torus_axes: 2 or 3.
        ring_length: an axis of the torus is a ring if its length is a multiple of this, else a line, which has half
            the bandwidth.
    """

    flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    ring_bandwidth: float
    tile: int
    torus_axes: int
    ring_length: int


CHIPS = {
    "v4": Chip(275e12, int(30.75 * GIB), 1.2e12, 9e10, 128, 3, 4),
    "v5e": Chip(197e12, int(15.75 * GIB), 8.2e11, 9e10, 128, 2, 16),
    "v5p": Chip(459e12, int(95.74 * GIB), 2.765e12, 1.8e11, 128, 3, 4),
    "v6e": Chip(918e12, int(31.25 * GIB), 1.64e12, 1.8e11, 256, 2, 16),
}


def parse_topology(text: str) -> tuple[Chip, tuple[int, ...]]:
    """A topology such as "v5e:16x16": its chip, and how many of them lie along each axis.

    Raises:
        InputError: a chip that is not known, or another number of axes than its torus has.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text)
    if match is None or match[1] not in CHIPS:
        raise InputError(f"--topology {text}: expected CHIP:AxB or CHIP:AxBxC with a chip of {', '.join(CHIPS)}, as in "
                         "v5e:16x16")
    chip, shape = CHIPS[match[1]], tuple(int(size) for size in match[2].split("x"))
    if len(shape) != chip.torus_axes or math.prod(shape) < 1:
        raise InputError(f"--topology {text}: expected {chip.torus_axes} sizes of at least 1 for {match[1]}, as in "
                         f"{match[1]}:{'x'.join(['4'] * chip.torus_axes)}")
    return chip, shape


def group_bandwidth(chip: Chip, shape: tuple[int, ...], coordinates: list[tuple[int, ...]]) -> float:
    """Bytes per second that each chip of a group takes in when all of it exchange.

    Args:
        shape: of the torus.
        coordinates: of the group's chips in it.
    """
    bandwidth = 0.0
    for axis, size in enumerate(shape):
        reached = len({place[axis] for place in coordinates})
        if reached > 1:
            ring = reached == size and size % chip.ring_length == 0
            bandwidth += chip.ring_bandwidth if ring else chip.ring_bandwidth / 2
    return bandwidth
