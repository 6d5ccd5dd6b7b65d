"""Paint glasses, beards and hats."""

import numpy as np

from durian_jax.synthetic.attributes import Beard, Glasses, Hat
from durian_jax.synthetic.colours import WHITE, mix, shade
from durian_jax.synthetic.face import Face
from durian_jax.synthetic.figure import SKULL_Y
from durian_jax.synthetic.geometry import BACK, Points, join, reverse, round_outline, smooth, solid, take
from durian_jax.synthetic.sketch import Sketch

# A hat's edge is a ring around the head: y of its front, and its slope towards the front. The slope shows the
# upper side of a brim even when the head looks up.
HAT_FRONT, HAT_TIP = -0.094, 0.30
# Lens outlines in units of the half size; x points to the temple.
_LENSES = {
    "square": ((-.95, -.85), (-.2, -.97), (.9, -.92), (1.05, -.1), (.88, .85), (0, .97), (-.85, .85),
               (-1, 0)),
    "cat": ((-.95, -.62), (-.1, -.85), (1.3, -1.22), (1.12, 0), (.7, .78), (0, .95), (-.72, .75), (-1, .1)),
    "aviator": ((-.92, -.78), (0, -.92), (1.02, -.8), (1.12, 0), (.82, .95), (.1, 1.22), (-.62, .82),
                (-.95, .05)),
    "hexagon": ((-.55, -.95), (.55, -.95), (1.08, 0), (.55, .97), (-.55, .97), (-1.08, 0)),
}
_CURVED = {"round", "cat", "aviator"}


def paint_temples(sketch: Sketch, face: Face, glasses: Glasses) -> None:
    """Paint the arms from the rims to the ears; hair may cover them."""
    y = face.eye_y - 0.012
    for sign in (-1, 1):
        x = sign * np.array([0.148 * glasses.size, 1.02 * face.width])
        sketch.line(solid(x, np.array([y, y - 0.004]), np.array([-0.10, 0.02])), shade(glasses.colour, -0.15),
                    0.75 * glasses.width, curved=False)


def paint_glasses(sketch: Sketch, face: Face, glasses: Glasses) -> None:
    """Paint lenses and rims, in front of fringe and brows."""
    half_x, half_y = 0.063 * glasses.size, 0.054 * glasses.size
    centre_y = face.eye_y + 0.006
    if glasses.shape == "round":
        angle = np.linspace(0, 2 * np.pi, 17)[:-1]
        u, v = 1.02 * np.cos(angle), 1.14 * np.sin(angle)
    else:
        u, v = np.array(_LENSES[glasses.shape]).T
    rims = []
    for sign in (-1, 1):
        x = sign * (0.089 * glasses.size + half_x * u)
        points = solid(x, centre_y + half_y * v, -0.165 + 2.6 * x**2)
        rims.append(smooth(points) if glasses.shape in _CURVED else points)
    if glasses.tint_colour is not None:
        for sign, rim in zip((-1, 1), rims, strict=True):
            sketch.fill(rim, glasses.tint_colour, curved=False, opacity=0.84)
            x = sign * 0.089 * glasses.size + half_x * np.array([-.5, -.12, -.42, -.8])
            y = centre_y + half_y * np.array([-.62, -.62, .5, .5])
            sketch.fill(solid(x, y, -0.165 + 2.6 * x**2), mix(glasses.tint_colour, WHITE, 0.38), curved=False)
    x = np.array([-0.032, 0, 0.032]) * glasses.size
    sketch.line(solid(x, centre_y + np.array([-.010, -.022, -.010]), -0.17), glasses.colour, glasses.width)
    for rim in rims:
        sketch.line(rim, glasses.colour, glasses.width, closed=True, curved=False)
    for rim in rims:  # light on the upper rim
        top = take(rim, np.argsort(rim.anchor[:, 1])[:max(2, len(rim) // 6)])
        top = take(top, np.argsort(top.anchor[:, 0]))
        sketch.line(top, shade(glasses.colour, 0.28), 0.3 * glasses.width, curved=False)


def paint_beard(sketch: Sketch, face: Face, beard: Beard) -> None:
    """Paint the beard on chin and cheeks; the lips are painted over it later."""
    w, h, my = face.width, face.height, face.mouth_y
    colour, dark = beard.colour, shade(beard.colour, -0.22)
    if beard.form in ("goatee", "circle"):
        long = 0.03 + 0.03 * (beard.length + 1)
        wide = 0.060 if beard.form == "goatee" else 0.078
        top = my + 0.022 if beard.form == "goatee" else my - 0.05
        x = np.array([0, .62, 1.0, 1.02, .72, 0, -.72, -1.02, -1.0, -.62]) * wide
        y = np.array([top + .008, top, (top + h) / 2 - .03, h - .045, h + .4 * long,
                      h + long, h + .4 * long, h - .045, (top + h) / 2 - .03, top])
        sketch.fill(face.with_jaw(face.on(x, y, 0.012)), colour)
        low = take(face.with_jaw(face.on(x * 0.96, y, 0.012)), slice(3, 8))
        inner = face.with_jaw(face.on(x[[7, 6, 5, 4, 3]] * 0.8, y[[7, 6, 5, 4, 3]] - .03, 0.012))
        sketch.fill(join(low, inner), dark)
    elif beard.form in ("chinstrap", "boxed", "full"):
        _paint_jaw(sketch, face, beard, w, h, my, colour, dark)


def _paint_jaw(sketch: Sketch, face: Face, beard: Beard, w, h, my, colour, dark) -> None:
    long = {"chinstrap": 0.012, "boxed": 0.024, "full": 0.065 + 0.03 * beard.length}[beard.form]
    index = np.arange(7, 30)  # from one temple under the chin to the other
    contour = take(face.parts["contour"], index)
    down = np.sin(np.pi * np.linspace(0, 1, len(index)))
    anchor = contour.anchor.copy()
    anchor[..., 1] += long * down**1.5
    anchor[..., 0] *= 1 + 0.5 * long * down
    anchor[..., 2] -= 0.006
    outer = Points(anchor, contour.spread, contour.follow)
    if beard.form == "chinstrap":
        x = np.array([-.86, -.80, -.66, -.42, 0, .42, .66, .80, .86]) * w
        y = np.array([-.03, .06, .135, .185, .200, .185, .135, .06, -.03])
    else:
        x = np.array([-.88, -.80, -.64, -.42, -.20, 0, .20, .42, .64, .80, .88]) * w
        y = np.array([-.03, .035, .085, .100, .098, .104, .098, .100, .085, .035, -.03]) + (my - 0.143)
    inner = smooth(face.with_jaw(face.on(x, y, 0.008)), closed=False)
    edge = smooth(outer, closed=False, steps=2)
    sketch.fill(join(edge, inner), colour, curved=False)
    low = take(outer, slice(3, -3))
    raised = low.anchor * np.array([.94, 1, 1]) - np.array([0, .022 + .3 * long, 0])
    up = Points(raised, low.spread, low.follow)
    sketch.fill(join(low, reverse(up)), dark, curved=False)


def paint_moustache(sketch: Sketch, face: Face, beard: Beard) -> None:
    """Paint the moustache over the lips."""
    if beard.form in ("goatee", "chinstrap"):
        return
    big = beard.form == "moustache"
    wide = (0.092 + 0.012 * beard.length) if big else 0.072
    lip = take(face.parts["outer_lips"], [0, 19, 17, 15, 13, 11, 10])
    y = lip.anchor[..., 1]
    x = np.array([-1, -.72, -.36, 0, .36, .72, 1]) * wide
    thick = np.array([0, .026, .040, .028, .040, .026, 0]) * (1.12 if big else 0.85)
    base = y + np.array([-.012 if big else .012, .006, .005, -.001, .005, .006, -.012 if big else .012])
    high = np.maximum(base - thick, face.nose_y + 0.008)
    high = np.minimum(high, base - 0.2 * thick)
    z = face.surface(x, y) - 0.02
    upper, lower = solid(x, high, z), solid(x[::-1], base[..., ::-1], z[..., ::-1])
    sketch.fill(join(upper, take(lower, slice(1, -1))), shade(beard.colour, 0.06 if not big else 0.0))
    for side in (slice(1, 3), slice(4, 6)):
        x2 = x[side] * 0.95
        sketch.line(solid(x2, 0.5 * (high + base)[..., side], z[..., side]), shade(beard.colour, 0.24), 0.008)


def paint_hat(sketch: Sketch, face: Face, hat: Hat) -> None:
    """Paint crown, band and brim, over the hair."""
    band = hat.band_colour
    base_x = 1.03 * face.width + 0.022  # half width of the edge
    side_y = HAT_FRONT - HAT_TIP * base_x
    x, y = _crown_outline(face, hat, base_x, side_y)
    if hat.form == "beanie" and band is not None:
        angle = np.linspace(0, 2 * np.pi, 15)[:-1]
        top = y.min() - 0.018
        pompom = round_outline(0.048 * np.cos(angle), top + 0.042 * np.sin(angle), BACK)
        sketch.fill(pompom, band, curved=False)
    if hat.form in _BRIMS:
        _paint_brim(sketch, hat, base_x, side_y)
    ends = 2 if hat.form in ("beanie", "cap") else 1  # the ring closes the crown at the bottom
    edge = smooth(take(round_outline(x, y, BACK), slice(ends, -ends)), closed=False, steps=2)
    sketch.fill(join(edge, _ring(face, base_x, 0.0, 0, -180)), hat.colour, curved=False)
    _paint_crown_shadow(sketch, face, x, y, shade(hat.colour, -0.24))
    if hat.form == "beanie":
        _paint_cuff(sketch, face, base_x, shade(hat.colour, 0.2) if band is None else band)
        return
    if hat.form == "cap":
        _paint_seams(sketch, y.min(), shade(hat.colour, -0.24))
    if band is not None:
        sketch.fill(_band(face, 1.005 * base_x, 0.965 * base_x, -0.003, -0.054), band, curved=False)
    if hat.form == "cap":
        _paint_visor(sketch, base_x, shade(hat.colour, -0.1))


# Outline of the crown from its left end to its right end: x in half widths of the edge, y in crown heights.
# Then the crown's height in picture widths, and the width of its top relative to the edge.
_CROWNS = {
    "fedora": ((-1, -.97, -.90, -.70, -.40, 0, .40, .70, .90, .97, 1),
               (0, .3, .65, .96, 1.04, .90, 1.04, .96, .65, .3, 0), 0.205, 0.80),
    "tophat": ((-1, -.96, -.96, -1, -.60, 0, .60, 1, .96, .96, 1),
               (0, .35, .7, 1, 1.03, 1.04, 1.03, 1, .7, .35, 0), 0.25, 1.02),
    "sunhat": ((-1, -1, -.95, -.78, -.42, 0, .42, .78, .95, 1, 1),
               (0, .3, .62, .88, .98, 1.0, .98, .88, .62, .3, 0), 0.18, 0.86),
    "bucket": ((-1, -.96, -.91, -.84, -.50, 0, .50, .84, .91, .96, 1),
               (0, .3, .65, .97, 1.0, 1.0, 1.0, .97, .65, .3, 0), 0.185, 0.76),
}
# Radius of the brim relative to the edge's, and its slope towards the front.
_BRIMS = {"fedora": (1.42, 0.32), "sunhat": (1.74, 0.34), "bucket": (1.24, 0.42), "tophat": (1.34, 0.32)}


def _crown_outline(face: Face, hat: Hat, base_x: float, side_y: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (x, y) from the left end of the edge over the top to its right end."""
    if hat.form in _CROWNS:
        u, v, height, taper = _CROWNS[hat.form]
        u, v = np.array(u), np.array(v)
        return base_x * u * (1 + (taper - 1) * v), side_y - (height + 0.015 * hat.height) * v
    grow = 0.026 if hat.form == "cap" else 0.036 + 0.006 * hat.height
    angle, last = np.radians(np.linspace(-78, 78, 21)), np.radians(78)
    arch = (np.cos(angle) - np.cos(last)) / (1 - np.cos(last))
    return base_x * np.sin(angle) / np.sin(last), side_y - (face.height + grow - SKULL_Y + side_y) * arch


def _band(face: Face, low: float, high: float, low_lift: float, high_lift: float) -> Points:
    """Return the front of a band between two rings; a smaller upper ring keeps its ends from sticking out."""
    return join(_ring(face, low, low_lift, 0, -180), _ring(face, high, high_lift, -180, 0))


def _paint_cuff(sketch: Sketch, face: Face, base_x: float, colour) -> None:
    sketch.fill(_band(face, 1.05 * base_x, 0.985 * base_x, 0.012, -0.058), colour, curved=False)
    for angle in np.linspace(-160, -20, 8):
        rib = join(_ring(face, 1.045 * base_x, 0.006, angle, angle + 1, 2),
                   _ring(face, 0.99 * base_x, -0.05, angle, angle + 1, 2))
        sketch.line(rib, shade(colour, -0.2), 0.007, curved=False)


def _ring(face: Face, radius: float, lift: float, start: float, stop: float, count: int = 13) -> Points:
    """Return part of the ring at the hat's edge, as the camera sees it: 0 degrees is right, -90 the front."""
    angle = np.radians(np.linspace(start, stop, count))
    seen_x, seen_z = radius * np.cos(angle), radius * np.sin(angle)
    x = seen_x * np.cos(face.yaw) + seen_z * np.sin(face.yaw)
    z = seen_z * np.cos(face.yaw) - seen_x * np.sin(face.yaw)
    return solid(x, HAT_FRONT - HAT_TIP * (z + radius) + lift, BACK + z)


def _paint_brim(sketch: Sketch, hat: Hat, base_x: float, side_y: float) -> None:
    out, drop = _BRIMS[hat.form]
    angle = np.radians(np.linspace(0, 360, 31)[:-1])
    radius = out * base_x
    x, z = radius * np.cos(angle), 0.80 * radius * np.sin(angle)
    y = side_y - drop * z
    if hat.form == "fedora":
        y = y - 0.05 * np.abs(np.cos(angle)) ** 3
    elif hat.form in ("sunhat", "bucket"):
        y = y + 0.035 * np.abs(np.cos(angle)) ** 2
    for dy, tone in ((0.014, shade(hat.colour, -0.3)), (0.0, shade(hat.colour, -0.08))):
        brim = solid(x, y + dy, BACK + z)
        sketch.fill(brim, tone, curved=False)
        sketch.line(brim, tone, 0.016, closed=True, curved=False)


def _paint_visor(sketch: Sketch, base_x: float, colour) -> None:
    angle = np.radians(np.linspace(-8, -172, 13))
    x, z = 0.98 * base_x * np.cos(angle), 0.98 * base_x * np.sin(angle)
    reach = np.sin(-angle) ** 0.9
    y = HAT_FRONT - HAT_TIP * (z + base_x)
    back = solid(x, y, BACK + z)
    out = solid(1.0 * x[::-1], y[::-1] + 0.07 * reach[::-1], BACK + z[::-1] - 0.14 * reach[::-1])
    sketch.fill(join(back, out), colour, curved=False)
    sketch.line(out, shade(colour, -0.28), 0.014, curved=False)


def _paint_seams(sketch: Sketch, top: float, dark) -> None:
    v = np.linspace(0, 1, 5)
    for offset in (-0.5, 0.5):
        x = offset * 0.22 * np.sin(np.pi / 2 * v)
        sketch.line(solid(x, top + v * (HAT_FRONT - 0.03 - top), BACK - 0.17 * v), dark, 0.007)


def _paint_crown_shadow(sketch: Sketch, face: Face, x: np.ndarray, y: np.ndarray, dark) -> None:
    """Paint a shadow along the side away from the light."""
    order = slice(None) if face.identity.light > 0 else slice(None, None, -1)
    count = int(0.42 * len(x))
    x, y = x[order][:count], y[order][:count]
    inside = round_outline(0.72 * x, y + 0.012)
    sketch.fill(join(round_outline(x, y), reverse(inside)), dark, curved=False)
