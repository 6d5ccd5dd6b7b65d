"""The position table of Stable Diffusion 3's transformers: which formula it holds. Imports no jax."""

from collections.abc import Sequence

import numpy as np

from durian_jax.models.positions import canvas_position_code

# Largest difference of a table in 16 bits from its formula.
_TOLERANCE = 1e-2


def known_canvases(size: int, base: int) -> list[tuple[float, float]]:
    """Known pairs (origin, step): the code of token i is that of the number (i - origin) * step.

    Args:
        size: side of the table in tokens.
        base: side in tokens of the pictures that the table is for: 64 at 1024 px.

    Returns:
        What diffusers' class makes itself (i / 6 for 384 and 64), and Stable Diffusion 3.5 Medium's: a picture in the
        middle has the numbers 0 to 16 ((i - 160) / 4).
    """
    return [(0.0, base / size), ((size - base) / 2, 16 / base)]


def matching_canvas(table: np.ndarray, canvases: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """The first pair (origin, step) whose code a table (size * size, C) holds; None: none does."""
    size, width = round(len(table) ** 0.5), table.shape[1]
    rows = table.reshape(size, size, width)
    for origin, step in canvases:
        line = (np.arange(size) - origin) * step
        code = canvas_position_code(line, line, width)
        of_columns, of_rows = code[:, :width // 2], code[:, width // 2:]
        if all(np.allclose(row[:, :width // 2], of_columns, atol=_TOLERANCE, rtol=0)
               and np.allclose(row[:, width // 2:], of_row, atol=_TOLERANCE, rtol=0)
               for row, of_row in zip(rows.astype(np.float32, copy=False), of_rows, strict=True)):
            return origin, step
    return None
