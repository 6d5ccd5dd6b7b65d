"""Position codes: constants, shared by all backends."""

import math

import numpy as np

# Scale of a grid's code, relative to tokens of unit variance.
POSITION_SCALE = 1.5


def sequence_position_code(length: int, width: int) -> np.ndarray:
    """(length, width) float32 sinusoidal position code of a sequence, sines and cosines interleaved."""
    angles = np.arange(length)[:, None] * np.exp(-math.log(10000.0) * np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(length, width).astype(np.float32)


def grid_position_code(side: int, width: int) -> np.ndarray:
    """(side * side, width) float32 code of a token's position, with wavelengths from 2 to 64 tokens.

    The dot product of two codes falls with their distance, so attention starts local if the projections are near the
    identity.
    """
    pairs = width // 4
    angles = np.arange(side)[:, None] * math.pi * np.exp(-math.log(32.0) * np.arange(pairs) / max(pairs - 1, 1))
    line = np.concatenate([np.sin(angles), np.cos(angles)], -1)
    rows = np.broadcast_to(line[:, None], (side, side, 2 * pairs))
    columns = np.broadcast_to(line[None, :], (side, side, 2 * pairs))
    code = np.concatenate([rows, columns], -1).reshape(side * side, 4 * pairs)
    return np.pad(code, ((0, 0), (0, width - 4 * pairs))).astype(np.float32)


def canvas_position_code(columns: np.ndarray, rows: np.ndarray, width: int) -> np.ndarray:
    """(..., width) float32 sinusoidal code of places on a plane: sines and cosines of the column, then of the row.

    The code of Stable Diffusion 3 (diffusers' `get_2d_sincos_pos_embed`).

    Args:
        columns, rows: (...) coordinates, whole or not.
    """
    frequencies = 1 / 10_000 ** (np.arange(width // 4) / (width // 4))
    angles = [np.asarray(place, np.float64)[..., None] * frequencies for place in (columns, rows)]
    return np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)], -1).astype(np.float32)


# Wavelengths of a rotation, in tokens of an axis of space and in steps of an axis of time or of groups.
_SPACE_WAVES, _TIME_WAVES = (4.0, 64.0), (8.0, 256.0)


def rotation_angles(steps: np.ndarray, columns: np.ndarray, rows: np.ndarray, step_channels: int, channels: int
                    ) -> np.ndarray:
    """(..., channels / 2) float32 angles by which pairs of channels of queries and keys rotate (RoPE).

    Args:
        steps: (...) time in frames, or number of a group of tokens.
        columns, rows: (...) place in tokens; broadcast against `steps`.
        step_channels: channels that `steps` rotates; `columns` and `rows` rotate half of the others each.
        channels: D, of a head.
    """
    def angles(place, pairs, waves):
        shortest, longest = waves
        lengths = shortest * (longest / shortest) ** (np.arange(pairs) / max(pairs - 1, 1))
        return place[..., None] * (2 * math.pi / lengths)

    steps, columns, rows = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (steps, columns, rows)))
    space = (channels - step_channels) // 4
    return np.concatenate([angles(steps, step_channels // 2, _TIME_WAVES), angles(columns, space, _SPACE_WAVES),
                           angles(rows, space, _SPACE_WAVES)], -1).astype(np.float32)
