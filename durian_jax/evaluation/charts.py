"""Charts as SVG text, for pages without scripts. Colours are the classes `c0`, `c1`, ... of the page."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from durian_jax.evaluation.metrics import Mean

_WIDTH, _LEFT, _RIGHT, _TOP, _AXIS = 620, 150, 14, 8, 30
_STEP = 13  # height of a line of a row, in pixels
_TICKS = 6  # at most


@dataclass(frozen=True)
class Line:
    """A mean with its interval, and the values behind it.

    Attributes:
        mean: drawn as a dot on a line.
        colour: number of the colour.
        values: drawn as faint dots.
    """

    mean: Mean
    colour: int
    values: Sequence[float] = field(default_factory=tuple)


def interval_chart(rows: Sequence[tuple[str, Sequence[Line]]], unit: str, zero: bool = False) -> str:
    """Draw lines of rows below each other, over one axis.

    Args:
        rows: name and lines of each row.
        unit: what the axis shows.
        zero: mark zero, and let the axis contain it.

    Returns:
        SVG, or "" if no line has a value.
    """
    ends = [x for _, lines in rows for line in lines if np.isfinite(line.mean.value)
            for x in (line.mean.value, *(end for end in line.mean.interval if np.isfinite(end)), *line.values)]
    known = [x for x in ends if np.isfinite(x)] + ([0.0] if zero else [])
    if not ends:
        return ""
    ticks = _ticks(min(known), max(known))
    low, high = min(*ticks, *known), max(*ticks, *known)
    place = lambda x: _LEFT + (_WIDTH - _LEFT - _RIGHT) * (x - low) / (high - low)
    parts, y = [], _TOP
    for name, lines in rows:
        middle = y + len(lines) * _STEP / 2
        parts.append(f'<text x="{_LEFT - 10}" y="{middle + 4:.1f}" class="name">{escape(name)}</text>')
        for line in lines:
            y += _STEP
            parts.append(_line(line, y - _STEP / 2, place))
        y += 8
    grid = "".join(f'<line x1="{place(x):.1f}" x2="{place(x):.1f}" y1="{_TOP - 4}" y2="{y}" '
                   f'class="{"zero" if zero and x == 0 else "grid"}"/>'
                   f'<text x="{place(x):.1f}" y="{y + 14}" class="tick">{_short(x)}</text>' for x in ticks)
    return (f'<svg viewBox="0 0 {_WIDTH} {y + _AXIS}" role="img" aria-label="{escape(unit, quote=True)}">{grid}'
            f'{"".join(parts)}<text x="{_WIDTH - _RIGHT}" y="{y + 27}" class="unit">{escape(unit)}</text></svg>')


def _line(line: Line, y: float, place) -> str:
    """A dot with its interval, over the faint dots of the values."""
    faint = "".join(f'<circle cx="{place(x):.1f}" cy="{y:.1f}" r="2" class="c{line.colour} faint"/>'
                    for x in line.values if np.isfinite(x))
    if not np.isfinite(line.mean.value):
        return faint
    low, high = line.mean.interval
    bar = "" if not np.isfinite(low + high) else (
        f'<line x1="{place(low):.1f}" x2="{place(high):.1f}" y1="{y:.1f}" y2="{y:.1f}" class="c{line.colour}"/>')
    return f'{faint}{bar}<circle cx="{place(line.mean.value):.1f}" cy="{y:.1f}" r="4" class="c{line.colour}"/>'


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers that cover a range."""
    span = max(high - low, 1e-6 * max(abs(high), abs(low)), 1e-9)
    unit = 10 ** np.floor(np.log10(span / _TICKS))
    step = next(unit * factor for factor in (1, 2, 5, 10, 20) if span / (unit * factor) <= _TICKS)
    first = int(np.floor(low / step))
    return [float(n * step) for n in range(first, max(int(np.ceil(high / step)), first + 1) + 1)]


def _short(x: float) -> str:
    return f"{x:.6g}".replace("-", "−")
