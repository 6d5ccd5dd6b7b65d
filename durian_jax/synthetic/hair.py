"""Paint hairstyles: the back hair behind the head, and the cap in front with its fringe and locks."""

from dataclasses import dataclass

import numpy as np

from durian_jax.synthetic.attributes import Hair
from durian_jax.synthetic.colours import shade
from durian_jax.synthetic.face import Face
from durian_jax.synthetic.figure import SKULL_Y, skull_outline
from durian_jax.synthetic.geometry import Points, ball, join, reverse, round_outline, smooth, solid, take
from durian_jax.synthetic.sketch import Sketch

HAT_LINE = -0.135  # y of a hat's lower edge; hair above it lies flat under the hat


@dataclass(frozen=True)
class Cut:
    """Shape of a cut; lengths in picture widths.

    Attributes:
        crown: thickness at the top.
        side: thickness at the temples.
        fall: y of the ends of the front locks.
        behind: y of the end of the back hair; None: no back hair.
        flare: extra half width of the back hair at its end.
        edge: outline, "smooth", "curls" or "spikes".
        bumps: number of curls or spikes.
    """

    crown: float
    side: float
    fall: float
    behind: float | None = None
    flare: float = 0.0
    edge: str = "smooth"
    bumps: int = 0


CUTS = {
    "crop": Cut(0.018, 0.010, 0.005), "side_part": Cut(0.042, 0.020, 0.03),
    "quiff": Cut(0.060, 0.010, -0.01), "spiky": Cut(0.045, 0.018, 0.0, edge="spikes", bumps=11),
    "bob": Cut(0.045, 0.045, 0.17, 0.20, 0.03), "long": Cut(0.040, 0.036, 0.36, 0.43, 0.03),
    "wavy": Cut(0.050, 0.052, 0.30, 0.38, 0.06, "curls", 9),
    "curly": Cut(0.062, 0.066, 0.12, 0.20, 0.03, "curls", 13),
    "afro": Cut(0.105, 0.110, 0.04, None, 0.0, "curls", 15), "bun": Cut(0.026, 0.016, 0.01),
    "ponytail": Cut(0.030, 0.018, 0.015), "pigtails": Cut(0.032, 0.020, 0.02),
}


def paint_back(sketch: Sketch, face: Face, hair: Hair, hat: bool) -> None:
    """Paint the hair behind the neck, buns and tails."""
    cut, dark = CUTS[hair.cut], shade(hair.colour, -0.3)
    angle = np.linspace(0, 2 * np.pi, 19)[:-1]
    if hair.cut == "bun" and not hat:
        r = 0.088 + 0.014 * hair.volume
        top = (0.0, SKULL_Y - face.height - 0.045, 0.06)
        sketch.fill(ball(top, r * np.cos(angle), 0.88 * r * np.sin(angle)), hair.colour, curved=False)
        sketch.fill(ball(top, r * np.cos(angle / 2), 0.88 * r * np.sin(angle / 2)), shade(hair.colour, -0.14),
                    curved=False)
        swirl = np.linspace(3.4, 5.6, 7)
        sketch.line(ball(top, 0.62 * r * np.cos(swirl), 0.52 * r * np.sin(swirl)), shade(hair.colour, 0.25),
                    0.014)
    if hair.cut in ("ponytail", "pigtails"):
        for sign in (-1, 1) if hair.cut == "pigtails" else (np.sign(hair.part),):
            _paint_tail(sketch, face, hair, sign)
    if cut.behind is None:
        return
    end = cut.behind + (0.035 if cut.behind > 0.15 else 0.0) * hair.length
    x, y, follow = _back_outline(face, cut, hair, end)
    sketch.fill(_flat_under_hat(face, round_outline(x, y, 0.06, follow), hat), dark)


def _back_outline(face: Face, cut: Cut, hair: Hair, end: float):
    wide = face.width + cut.side * (1 + 0.25 * hair.volume)
    v = np.linspace(0, 1, 6)
    y = SKULL_Y + v * (end - SKULL_Y)
    x = wide + cut.flare * v**1.5 - 0.2 * wide * np.clip(v - 0.8, 0, 1)
    if cut.edge == "curls":
        x = x + 0.014 * np.sin(9 * v)
    x = np.concatenate([-x[::-1], np.array([-.6, 0, .6]) * wide, x, np.array([.5, 0, -.5]) * wide])
    top = SKULL_Y - face.height * np.array([.6, .75, .6])
    y = np.concatenate([y[::-1], top, y, np.array([1.02, 1.03, 1.02]) * end])
    return x, y, _follow(y)


def _follow(y) -> np.ndarray:
    """Return `follow` per y: hair ends that lie on the shoulders move with the shoulders."""
    return 1 - 0.75 * np.clip((np.asarray(y) - 0.12) / 0.28, 0, 1)


def _paint_tail(sketch: Sketch, face: Face, hair: Hair, sign: float) -> None:
    high = hair.cut == "ponytail"
    v = np.linspace(0, 1, 6)
    long = 0.33 + 0.06 * hair.length
    root_x, root_y = face.width * (0.75 if high else 1.0), (-0.16 if high else -0.02)
    middle_x = root_x + 0.115 * np.sin(np.pi * (0.08 + 0.72 * v)) + 0.02 * v
    middle_y = root_y - 0.02 + long * v**1.1
    half = (0.05 + 0.010 * hair.volume) * (np.sin(np.pi * (0.16 + 0.8 * v)) ** 0.7)
    x = np.concatenate([middle_x - half, (middle_x + half)[::-1]])
    y = np.concatenate([middle_y, middle_y[::-1]])
    sketch.fill(solid(sign * x, y, 0.07, _follow(y)), hair.colour)
    x = np.concatenate([middle_x - half, (middle_x - 0.2 * half)[::-1]])
    sketch.fill(solid(sign * x, y, 0.07, _follow(y)), shade(hair.colour, -0.16))
    x, y = sign * (middle_x[1:4] + 0.35 * half[1:4]), middle_y[1:4]
    sketch.line(solid(x, y, 0.07, _follow(y)), shade(hair.colour, 0.25), 0.013)


def _outer(face: Face, hair: Hair, cut: Cut, fall: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the cap's outline from the left lock's end over the crown to the right lock's end."""
    volume = 1 + 0.25 * hair.volume
    reach = 112 if hair.cut == "afro" else 92
    angle = np.radians(np.linspace(-reach, reach, 27))
    bulge = cut.side + (cut.crown - cut.side) * np.cos(np.clip(0.95 * angle, -np.pi / 2, np.pi / 2)) ** 2
    if hair.cut in ("side_part", "quiff"):
        bulge = bulge + 0.016 * np.sin(angle) * -hair.part + (hair.cut == "quiff") * 0.02 * np.exp(
            -((angle + 0.25 * hair.part) / 0.5) ** 2)
    radius_x = 1.03 * face.width + bulge * volume
    radius_y = face.height - 0.005 + bulge * volume
    x, y = radius_x * np.sin(angle), SKULL_Y - radius_y * np.cos(angle)
    if hair.cut == "afro":
        return _edge(x, y, cut)
    steps = max(2, round((fall - SKULL_Y) / 0.05))
    v = np.linspace(0, 1, steps + 1)[1:]
    down = SKULL_Y + v * (fall - SKULL_Y)
    swell = cut.flare * v**1.5 - (0.012 if cut.behind is None else 0.0) * v
    side_x = radius_x[-1] + swell
    if cut.fall > 0.1:  # locks end in a round tip
        side_x[-1] -= 0.012
        side_x, down = np.append(side_x, 0.5 * (side_x[-1] + 0.9 * face.width)), np.append(down, fall + 0.02)
    x = np.concatenate([-side_x[::-1], x, side_x])
    y = np.concatenate([down[::-1], y, down])
    return _edge(x, y, cut)


def _edge(x: np.ndarray, y: np.ndarray, cut: Cut) -> tuple[np.ndarray, np.ndarray]:
    """Add evenly spaced curls or spikes to an outline."""
    if cut.edge == "smooth":
        return x, y
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    per = 6 if cut.edge == "curls" else 2
    at = np.linspace(0, length[-1], cut.bumps * per + 1)
    x, y = np.interp(at, length, x), np.interp(at, length, y)
    normal = np.stack([x, y - SKULL_Y])
    normal /= np.maximum(np.hypot(*normal), 1e-6)
    phase = np.arange(len(at)) / per
    if cut.edge == "curls":
        push = 0.030 * np.abs(np.sin(np.pi * phase)) ** 0.7 - 0.012
    else:
        push = np.where(np.arange(len(at)) % 2 == 1, 0.045, -0.012) * np.clip((0.06 - y) / 0.1, 0, 1)
    return x + normal[0] * push, y + normal[1] * push


def _hairline(face: Face, hair: Hair, fall: float, inset: float) -> Points:
    """Return the hair's edge on the face, from the right lock's end over the forehead to the left lock's end."""
    u = np.linspace(0.84, -0.84, 15)
    top = -0.84 * face.height
    if hair.fringe == "straight":
        y = np.full_like(u, -0.112) + 0.012 * u**2
    elif hair.fringe == "swept":
        along = (u * hair.part + 1) / 2  # 1 at the parting
        y = -0.105 + (top + 0.118) * np.clip(along, 0, 1) ** 0.8 + 0.05 * np.clip(along - 0.82, 0, 1)
    elif hair.fringe == "curtain":
        y = top - 0.005 + 0.125 * np.abs(u / 0.84) ** 0.9
    else:
        y = top + 0.055 * np.abs(u / 0.84) ** 2.5
    x = u * face.width
    temple = np.linspace(0, 1, 5)[1:]
    side_y = y[0] + temple * (fall - y[0]), y[-1] + temple * (fall - y[-1])
    side_x = (0.84 + (inset - 0.84) * np.clip(temple * 2.2, 0, 1)) * face.width
    front = face.on(x, y, 0.008)

    def side(sign: int, down: np.ndarray) -> Points:
        deep = np.interp(down, [-0.1, 0.0, 0.2], [-0.055, -0.02, 0.0])
        return solid(sign * side_x, down, np.minimum(deep, face.surface(side_x, 0) + 0.02), _follow(down))

    return join(reverse(side(1, side_y[0])), front, side(-1, side_y[1]))


def _flat_under_hat(face: Face, points: Points, hat: bool) -> Points:
    """Press the points above the hat's edge onto the skull."""
    if not hat:
        return points
    x = points.anchor[..., 0] + points.spread[..., 0]
    y = points.anchor[..., 1]
    reach = np.hypot(x / (1.05 * face.width), (y - SKULL_Y) / face.height)
    press = np.clip((HAT_LINE + 0.05 - y) / 0.05, 0, 1)
    factor = 1 - press * (1 - np.minimum(1, 1 / np.maximum(reach, 1e-6)))
    anchor, spread = points.anchor.copy(), points.spread * factor[..., None]
    anchor[..., 0] *= factor
    anchor[..., 1] = SKULL_Y + (y - SKULL_Y) * factor
    return Points(anchor, spread, points.follow)


def paint_front(sketch: Sketch, face: Face, hair: Hair, hat: bool) -> None:
    """Paint the cap: crown, fringe and side locks, with strands or curls and highlights."""
    cut = CUTS[hair.cut]
    fall = cut.fall + (0.035 if cut.fall > 0.1 else 0.015) * hair.length
    x, y = _outer(face, hair, cut, fall)
    outer = _flat_under_hat(face, round_outline(x, y, 0.02, _follow(y)), hat)
    inset = 0.93 if cut.behind is None else 0.88
    hairline = _hairline(face, hair, fall, inset)
    edge = outer if cut.edge == "spikes" else smooth(outer, closed=False, steps=2)
    sketch.fill(join(edge, smooth(hairline, closed=False, steps=2)), hair.colour, curved=False)
    if hat:
        return
    if cut.edge == "curls":
        _paint_curls(sketch, face, hair, cut)
    else:
        _paint_strands(sketch, face, hair, cut, hairline)


def _paint_curls(sketch: Sketch, face: Face, hair: Hair, cut: Cut) -> None:
    bright, dark = shade(hair.colour, 0.24), shade(hair.colour, -0.2)
    arc = np.linspace(3.3, 5.9, 6)
    for degrees, grow in ((-62, 0.3), (-28, 0.45), (6, 0.3), (40, 0.45), (70, 0.3)):
        x, y = skull_outline(face, grow * cut.crown - 0.03, degrees, degrees + 1, 2)
        sketch.line(ball((x[0], y[0], -0.05), 0.03 * np.cos(arc), 0.03 * np.sin(arc)), bright, 0.013)
        x, y = skull_outline(face, grow * cut.crown - 0.06, degrees + 15, degrees + 16, 2)
        if abs(degrees) < 50:
            sketch.line(ball((x[0], y[0], -0.06), 0.026 * np.cos(arc), 0.026 * np.sin(arc)), dark, 0.011)


def _paint_strands(sketch: Sketch, face: Face, hair: Hair, cut: Cut, hairline: Points) -> None:
    bright, dark = shade(hair.colour, 0.26), shade(hair.colour, -0.18)
    front = take(hairline, np.argsort(hairline.anchor[:, 0]))
    grow = 0.3 * cut.crown

    def between(degrees, amount) -> Points:
        """Return points between the crown's outline (amount 0) and the hairline (amount 1)."""
        degrees, amount = np.broadcast_arrays(np.asarray(degrees, float), amount)
        angle = np.radians(degrees)
        top_x = (1.03 * face.width + grow) * np.sin(angle)
        top_y = SKULL_Y - (face.height + grow) * np.cos(angle)
        to_x = 0.8 * face.width * np.clip(degrees / 62, -1, 1)
        to_y = np.interp(to_x, front.anchor[:, 0], front.anchor[:, 1])
        x, y = top_x + amount * (to_x - top_x), top_y + amount * (to_y - top_y)
        return solid(x, y, 0.02 - 0.12 * np.sin(0.5 * np.pi * amount) * np.cos(angle))

    v = np.linspace(0.3, 0.9, 4)
    for degrees in (-46, -24, 4, 28, 50):
        sketch.line(between(degrees + 6 * (v - 0.5), v), dark, 0.008)
    side = -1 if face.identity.light < 0 else 1
    degrees = np.linspace(8, 56, 7)
    thick = 0.13 * np.sin(np.pi * np.linspace(0.08, 0.92, 7))
    above, below = between(side * degrees, 0.42 - thick), between(side * degrees, 0.42 + thick)
    sketch.fill(join(above, reverse(below)), bright)
