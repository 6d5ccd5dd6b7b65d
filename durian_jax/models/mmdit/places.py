"""Where pictures and frames lie, as codes and rotations of tokens. Imports no jax.

Axis letters: F frames, G pictures, N = rows * columns tokens of a picture, C channels, D channels of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from durian_jax.models.mmdit.config import MMDiTConfig
from durian_jax.models.positions import canvas_position_code, rotation_angles


@dataclass(frozen=True)
class Place:
    """Where a picture lies on the canvas.

    Attributes:
        column, row: cell of the canvas, in pictures from the noisy frames' cell.
        group: row of the group embedding, and the axis of `rotary` on which groups differ.
    """

    column: int
    row: int
    group: int


def token_codes(config: MMDiTConfig, places: Sequence[Place], side: tuple[int, int]) -> np.ndarray:
    """(G, N, C) code of the tokens' places on the canvas, for `positions="canvas"`.

    Args:
        places: of the G pictures.
        side: rows and columns of tokens of a picture.
    """
    (rows, columns), (x, y) = side, _grid(side)
    first = lambda cells, size: (config.canvas_size - size) // 2 + cells * size - config.canvas_origin
    return np.stack([canvas_position_code((first(place.column, columns) + x) * config.canvas_step,
                                          (first(place.row, rows) + y) * config.canvas_step, config.width)
                     for place in places])


def token_angles(config: MMDiTConfig, places: Sequence[Place], side: tuple[int, int]) -> np.ndarray:
    """(G, N, D / 2) rotation of queries and keys in joint attention, for `positions="rotary"`."""
    return np.stack([_angles(config, place.group, *_grid(side)) for place in places])


def video_angles(config: MMDiTConfig, times: Sequence[int], side: tuple[int, int]) -> np.ndarray:
    """(F, N, D / 2) rotation of video attention for frames at these times; on a canvas by time alone."""
    x, y = _grid(side)
    if config.positions == "canvas":
        x, y = 0 * x, 0 * y
    return _angles(config, np.array(times)[:, None], x, y)


def _grid(side: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Column and row of every token."""
    y, x = (line.reshape(-1) for line in np.mgrid[:side[0], :side[1]])
    return x, y


def _angles(config: MMDiTConfig, steps, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return rotation_angles(steps, columns, rows, config.time_rotation, config.head_width)
