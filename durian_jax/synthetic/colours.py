"""Colours of the procedural world, as RGB tuples of floats in 0..255, and functions that mix them."""

import colorsys

import numpy as np

Colour = tuple[float, float, float]

WHITE = (255.0, 255.0, 255.0)
INK = (38.0, 30.0, 36.0)  # the darkest line of a drawing; pure black looks like a hole

# Skin from light to dark, warm to neutral.
SKINS = ((250, 220, 198), (243, 203, 172), (228, 180, 143), (205, 152, 112), (172, 118, 82), (132, 86, 60),
         (98, 63, 46))
IRISES = {"brown": (104, 62, 34), "hazel": (134, 104, 42), "green": (66, 134, 84), "blue": (58, 120, 190),
          "grey": (108, 126, 140), "violet": (110, 84, 160)}
HAIRS = {"black": (44, 38, 46), "brown": (98, 62, 42), "chestnut": (146, 84, 46), "blond": (232, 190, 108),
         "red": (204, 86, 40), "grey": (182, 184, 190), "pink": (236, 120, 160), "blue": (66, 108, 196)}
BEARDS = ("black", "brown", "chestnut", "blond", "red", "grey")
FRAMES = {"black": (36, 34, 42), "red": (206, 48, 56), "blue": (40, 92, 204), "gold": (226, 170, 48),
          "white": (246, 244, 240), "green": (32, 142, 96), "purple": (134, 66, 178)}
TINTS = {"clear": None, "smoke": (52, 52, 62), "amber": (206, 124, 36), "rose": (214, 92, 130),
         "ocean": (52, 120, 188), "forest": (56, 120, 84)}
HATS = ((214, 66, 66), (52, 92, 178), (240, 190, 72), (66, 150, 112), (128, 84, 160), (232, 226, 214),
        (66, 66, 78), (222, 130, 66), (152, 104, 72), (110, 178, 210))
BANDS = {"none": None, "light": (246, 240, 226), "dark": (44, 42, 54), "warm": (238, 108, 60),
         "cool": (44, 150, 190)}
CLOTHES = ((58, 84, 130), (196, 76, 74), (236, 232, 222), (64, 118, 102), (238, 182, 88), (92, 76, 120),
           (62, 64, 76), (128, 170, 198), (220, 140, 128), (150, 160, 110))
BACKGROUNDS = ((196, 214, 226), (226, 214, 198), (206, 220, 204), (228, 206, 208), (210, 206, 226),
               (222, 222, 222), (176, 196, 200), (236, 226, 204))


def mix(a: Colour, b: Colour, amount: float) -> Colour:
    """Blend two colours: `a` at amount 0, `b` at amount 1."""
    return tuple(float((1 - amount) * p + amount * q) for p, q in zip(a, b, strict=True))


def shade(colour: Colour, amount: float) -> Colour:
    """Lighten (amount > 0) or darken (amount < 0) a colour; `amount` is in [-1, 1]."""
    return mix(colour, WHITE, amount) if amount > 0 else mix(colour, INK, -amount)


def vary(colour: Colour, rng: np.random.Generator, hue: float = 0.015, value: float = 0.08) -> Colour:
    """Vary a colour at random: hue by up to `hue` turns, saturation and value by up to a share of `value`."""
    h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
    h = (h + rng.uniform(-hue, hue)) % 1
    s = float(np.clip(s * (1 + rng.uniform(-value, value)), 0, 1))
    v = float(np.clip(v * (1 + rng.uniform(-value, value)), 0, 1))
    return tuple(255.0 * c for c in colorsys.hsv_to_rgb(h, s, v))
