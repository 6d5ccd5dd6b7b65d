"""Paint the person without attributes: body and clothes, neck, head, face."""

import numpy as np

from durian_jax.synthetic.colours import INK, WHITE, mix, shade
from durian_jax.synthetic.face import Face
from durian_jax.synthetic.geometry import Points, ball, join, reverse, round_outline, smooth, solid, take
from durian_jax.synthetic.person import Identity
from durian_jax.synthetic.sketch import Sketch

SKULL_Y = -0.05  # centre of the skull
NECK_Y = 0.325  # where the neck meets the clothes


def skull_outline(face: Face, grow: float = 0.0, start: float = -180, stop: float = 180, count: int = 25):
    """Return (x, y) on the skull's outline, grown by `grow`; angles in degrees from the crown, clockwise."""
    angle = np.radians(np.linspace(start, stop, count))
    return (1.03 * face.width + grow) * np.sin(angle), SKULL_Y - (face.height - 0.005 + grow) * np.cos(angle)


def paint_body(sketch: Sketch, face: Face, identity: Identity) -> None:
    """Paint shoulders, neck and neckline."""
    skin, clothes, trim = identity.skin, identity.clothes, identity.trim
    dark = shade(clothes, -0.22)
    neck = 0.089 + 0.008 * identity.jaw
    if identity.neckline == "hood":
        x = np.array([-.10, -.22, -.25, -.15, 0, .15, .25, .22, .10])
        y = np.array([.20, .22, .33, .42, .45, .42, .33, .22, .20])
        sketch.fill(solid(x, y, .03, follow=0.15), dark)
    x = np.array([.095, .17, .27, .37, .45, .50, .54])
    y = np.array([.300, .335, .365, .40, .45, .53, .75])
    shoulders = solid(np.concatenate([-x[::-1], x]), np.concatenate([y[::-1], y]), 0, follow=0)
    sketch.fill(smooth(shoulders, closed=False), clothes, curved=False)
    side = np.sign(identity.light)
    x, y = np.array([.54, .52, .45, .37, .30, .33, .36]), np.array([.75, .53, .45, .40, .374, .52, .75])
    sketch.fill(solid(-side * x, y, 0, follow=0), shade(clothes, -0.13), curved=False)

    # The neckline's opening shows skin.
    if identity.neckline == "boat":
        x = np.array([-.18, -.12, 0, .12, .18, .06, -.06])
        y = np.array([.342, .385, .405, .385, .342, .27, .27])
    elif identity.neckline in ("vee", "collar", "hood"):
        x = np.array([-.106, -.06, 0, .06, .106, .06, -.06])
        y = np.array([.312, .37, .435, .37, .312, .27, .27])
    else:
        x = np.array([-.108, -.07, 0, .07, .108, .06, -.06])
        y = np.array([.312, .355, .37, .355, .312, .27, .27])
    opening = solid(x, y, 0, follow=0)
    sketch.fill(opening, skin)
    if identity.neckline in ("crew", "boat", "vee"):
        sketch.line(take(opening, slice(0, 5)), trim, 0.02)

    # The neck's upper end moves with the head, its lower end with the shoulders.
    v = np.linspace(0, 1, 5)
    y = 0.06 + v * (NECK_Y - 0.06)
    wide = neck * (1 - 0.10 * np.sin(np.pi * v))
    follow = 1 - v**1.2
    left, right = (round_outline(x, y, 0.04 * (1 - v), follow) for x in (-wide, wide))
    sketch.fill(join(left, reverse(right)), skin, curved=False)
    # The jaw's shadow on the neck.
    low = np.array([.205, .262, .285, .262, .205, .06, .06])
    across = np.array([-1.0, -.72, 0, .72, 1.0, .96, -.96]) * neck
    sketch.fill(round_outline(across, low, 0.02, 0.62), shade(skin, -0.3))

    if identity.neckline == "turtleneck":
        x = np.array([-1.06, 0, 1.06, 1.28, 0, -1.28]) * neck
        y = np.array([.245, .268, .245, .37, .405, .37])
        sketch.fill(smooth(solid(x, y, 0, follow=0.12), True, 3), shade(clothes, 0.1), curved=False)
        sketch.line(solid(x[:3], y[:3], 0, follow=0.12), dark, 0.01)
    elif identity.neckline == "collar":
        for sign in (-1, 1):
            x, y = np.array([.085, .135, .165, .085, .012]), np.array([.262, .285, .35, .45, .425])
            sketch.fill(solid(sign * x, y, 0, follow=0), trim, curved=False)
            sketch.line(solid(sign * x[2:], y[2:], 0, follow=0), shade(trim, -0.3), 0.008, curved=False)
    elif identity.neckline == "hood":
        for sign in (-1, 1):
            sketch.line(solid(sign * np.array([.045, .05]), np.array([.40, .50]), 0, follow=0), trim, 0.014)


def paint_head(sketch: Sketch, face: Face, identity: Identity) -> None:
    """Paint ears, skull, face outline and its shadow, cheeks, nose."""
    skin = identity.skin
    dark, deep = shade(skin, -0.14), shade(skin, -0.3)
    light = np.sign(identity.light)
    for sign in (-1, 1):
        ear, inner = _ear(face, sign, identity.ears)
        tone = dark if sign != light else skin
        sketch.fill(ear, shade(tone, -0.06))
        sketch.fill(inner, shade(tone, -0.22))
    x, y = skull_outline(face)
    sketch.fill(round_outline(x[:-1], y[:-1]), skin, curved=False)
    contour = face.parts["contour"]
    sketch.fill(contour, skin)
    # Two steps of shadow on the side away from the light.
    half = take(contour, np.arange(2, 19) if light < 0 else np.arange(34, 17, -1))
    for depth, tone in ((0.36, shade(skin, -0.06)), (0.24, dark)):
        x, y = half.anchor[..., 0], half.anchor[..., 1]
        fade = depth * (0.35 + 0.65 * np.sin(np.pi * np.linspace(0.05, 0.97, 17)))
        inside = x - np.sign(x) * np.minimum(np.abs(x), fade * face.width * 1.1)
        edge = solid(inside, y - 0.05 * (y > 0.12) * fade, face.surface(inside, y))
        sketch.fill(join(half, reverse(edge)), tone, curved=False)

    blush = mix(skin, (232, 92, 96), identity.blush)
    angle = np.linspace(0, 2 * np.pi, 13)[:-1]
    for sign in (-1, 1):
        cx, cy = sign * 0.60 * face.width, face.nose_y - 0.002
        for radius, tone in ((0.042, mix(skin, blush, 0.5)), (0.03, blush)):
            x, y = cx + radius * np.cos(angle), cy + 0.72 * radius * np.sin(angle)
            sketch.fill(face.on(x, y), tone, curved=False)
    _paint_nose(sketch, face, light, dark, deep)


def _ear(face: Face, sign: int, size: float) -> tuple[Points, Points]:
    angle = np.linspace(0, 2 * np.pi, 13)[:-1]
    x = sign * (1.0 * face.width + 0.006 + 0.028 * size * np.cos(angle))
    y = 0.008 + 0.05 * size * np.sin(angle) - 0.006 * np.cos(angle)
    inner_x = sign * (1.02 * face.width + 0.006 + 0.014 * size * np.cos(angle))
    return solid(x, y, 0.015), solid(inner_x, 0.008 + 0.03 * size * np.sin(angle), 0.012)


def _paint_nose(sketch: Sketch, face: Face, light: float, dark, deep) -> None:
    bridge, base = face.parts["nose_bridge"], face.parts["nose_base"]
    # A wedge of shadow beside the bridge, away from the light, and under the tip.
    end = take(base, [0] if light > 0 else [4])
    wedge = join(take(bridge, [1, 3, 5]), take(base, [2]), end)
    sketch.fill(wedge, dark, curved=False)
    x, y, z = base.anchor.T
    below = solid(x[::-1] * 0.8, y[::-1] + np.array([.004, .009, .012, .009, .004]), z[::-1])
    sketch.fill(join(base, below), dark)
    for index in (1, 3):
        hole = take(base, [index]).anchor[0]
        angle = np.linspace(0, 2 * np.pi, 9)[:-1]
        sketch.fill(ball(tuple(hole), 0.0085 * np.cos(angle), 0.005 * np.sin(angle)), deep, curved=False)
    tip = bridge.anchor[-1]
    angle = np.linspace(0, 2 * np.pi, 9)[:-1]
    tip = (tip[0] + 0.006 * light, tip[1] - 0.004, tip[2])
    sketch.fill(ball(tip, 0.008 * np.cos(angle), 0.007 * np.sin(angle)), shade(face.identity.skin, 0.3),
                curved=False)


def paint_mouth(sketch: Sketch, face: Face, identity: Identity) -> None:
    """Paint lips, teeth and tongue."""
    outer, inner = face.parts["outer_lips"], face.parts["inner_lips"]
    lip = identity.lip_colour
    sketch.fill(outer, shade(lip, 0.08))
    upper_lip = join(take(outer, [*range(10, 20), 0]), take(inner, [0, *range(19, 9, -1)]))
    sketch.fill(upper_lip, shade(lip, -0.16), curved=False)
    sketch.fill(inner, (92, 34, 44))
    low, up = take(inner, slice(1, 10)), take(inner, slice(19, 10, -1))
    teeth = _between(up, low, 0.36)
    sketch.fill(join(up, reverse(teeth)), (250, 247, 240), curved=False)
    tongue = _between(up, low, 0.72)
    sketch.fill(join(take(tongue, slice(2, 7)), take(low, slice(6, 1, -1))), (214, 96, 104), curved=False)
    sketch.line(up, shade(lip, -0.5), 0.007)
    shine = take(outer, slice(3, 7))
    gloss = _between(take(inner, slice(3, 7)), shine, 0.5)
    sketch.line(gloss, shade(lip, 0.35), 0.006)


def _between(a: Points, b: Points, amount: float) -> Points:
    return Points((1 - amount) * a.anchor + amount * b.anchor, a.spread, a.follow)


def paint_eyes(sketch: Sketch, face: Face, identity: Identity) -> None:
    """Paint whites, irises, lids that cover the eye outside its opening, lashes and brows."""
    lid = mix(shade(identity.skin, -0.12), (176, 96, 100), 0.12)
    angle = np.linspace(0, 2 * np.pi, 21)[:-1]
    turn = np.stack([np.cos(angle), np.sin(angle)])
    for side, sign in (("right", -1), ("left", 1)):
        eye, iris = face.parts[f"{side}_eye"], face.parts[f"{side}_iris"]
        sketch.fill(eye, (252, 250, 248))

        def disc(radius, dx=0.0, dy=0.0, iris=iris):
            centre = take(iris, [0] * len(angle))
            spread = (turn * radius + np.array([[dx], [dy]])).T.astype(np.float32)
            return Points(centre.anchor, spread, centre.follow)

        r = face.iris_radius
        sketch.fill(disc(r), shade(identity.iris, -0.42), curved=False)
        sketch.fill(disc(0.86 * r), identity.iris, curved=False)
        sketch.fill(disc(0.50 * r, 0, 0.42 * r), shade(identity.iris, 0.22), curved=False)
        sketch.fill(disc(0.46 * r), INK, curved=False)
        sketch.fill(disc(0.27 * r, 0.36 * r * np.sign(identity.light), -0.38 * r), WHITE, curved=False)

        low, up = take(eye, np.arange(9)), take(eye, [0, *range(15, 8, -1), 8])
        across = np.linspace(-1, 1, 9)
        arch = np.sqrt(1 - 0.75 * across**2)
        x = sign * (face.eye_x - 0.056 * identity.eye_size * across)
        z = face.surface(x, face.eye_y) - 0.003
        above = solid(x, face.eye_y - 0.05 * identity.eye_size * arch, z)
        below = solid(x, face.eye_y + 0.037 * identity.eye_size * arch, z)
        sketch.fill(join(low, reverse(below)), identity.skin, curved=False)
        sketch.fill(join(up, reverse(above)), lid, curved=False)
        sketch.line(low, shade(identity.skin, -0.3), 0.006)
        sketch.line(up, mix(INK, identity.brow, 0.3), 0.011 * identity.lashes)
        _paint_brow(sketch, face, identity, side)


def _paint_brow(sketch: Sketch, face: Face, identity: Identity, side: str) -> None:
    brow = face.parts[f"{side}_brow"]
    thick = 0.0115 * identity.brow_thickness * np.array([0.25, 0.75, 1.0, 1.0, 0.8])
    up, low = (Points(brow.anchor + np.stack([0 * thick, s * thick, 0 * thick], -1), brow.spread, brow.follow)
               for s in (-1, 1))
    sketch.fill(join(up, reverse(low)), identity.brow)


