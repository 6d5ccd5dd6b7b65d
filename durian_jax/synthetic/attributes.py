"""Attributes that a person can wear (hair, glasses, beard, hat), and the combinations that are held out.

Each attribute has a form and a colour family. `held_out` reserves two families per form for the benchmark:
training and validation people never wear them, benchmark people wear only them.
"""

from dataclasses import dataclass

import numpy as np

from durian_jax.synthetic.colours import BANDS, BEARDS, FRAMES, HAIRS, HATS, TINTS, Colour, shade, vary

CUTS = ("crop", "side_part", "quiff", "spiky", "bob", "long", "wavy", "curly", "afro", "bun", "ponytail",
        "pigtails")
FRINGES = ("none", "straight", "swept", "curtain")
FRAME_SHAPES = ("round", "square", "cat", "aviator", "hexagon")
BEARD_FORMS = ("moustache", "goatee", "circle", "chinstrap", "boxed", "full")
HAT_FORMS = ("beanie", "cap", "fedora", "sunhat", "bucket", "tophat")

# Kind -> (forms, colour families) of the pairs that `held_out` divides.
PAIRS = {"hair": (CUTS, tuple(HAIRS)), "glasses": (FRAME_SHAPES, tuple(TINTS)),
         "beard": (BEARD_FORMS, BEARDS), "hat": (HAT_FORMS, tuple(BANDS))}


@dataclass(frozen=True)
class Hair:
    """A hairstyle. `length`, `volume` and `part` are in [-1, 1]; `part` -1 is a parting on the picture's left."""

    cut: str
    family: str
    colour: Colour
    fringe: str
    length: float
    volume: float
    part: float


@dataclass(frozen=True)
class Glasses:
    """Eyeglasses. `tint` "clear" has no lens colour; `width` is the rim's in picture widths; `size` is about 1."""

    shape: str
    tint: str
    tint_colour: Colour | None
    colour: Colour
    width: float
    size: float


@dataclass(frozen=True)
class Beard:
    """A beard; `length` is in [-1, 1]."""

    form: str
    family: str
    colour: Colour
    length: float


@dataclass(frozen=True)
class Hat:
    """A hat; `band_colour` None is a hat without a band; `height` is in [-1, 1]."""

    form: str
    band: str
    colour: Colour
    band_colour: Colour | None
    height: float


def held_out(kind: str, form: str, family: str) -> bool:
    """Return whether a (form, colour family) pair is reserved for the benchmark."""
    forms, families = PAIRS[kind]
    i, j = forms.index(form), families.index(family)
    return (j - i) % len(families) in (0, 2)


def _pair(kind: str, rng: np.random.Generator, benchmark: bool) -> tuple[str, str]:
    forms, families = PAIRS[kind]
    form = forms[rng.integers(len(forms))]
    allowed = [family for family in families if held_out(kind, form, family) == benchmark]
    return form, allowed[rng.integers(len(allowed))]


def sample_hair(rng: np.random.Generator, benchmark: bool) -> Hair:
    """Sample hair; `benchmark` chooses among the held-out (form, colour family) pairs instead of the others."""
    cut, family = _pair("hair", rng, benchmark)
    fringes = FRINGES[:1] + FRINGES[2:3] if cut in ("quiff", "spiky", "crop") else FRINGES
    fringe = fringes[rng.integers(len(fringes))]
    if cut == "side_part":
        fringe = "swept"
    return Hair(cut, family, vary(HAIRS[family], rng), fringe, *rng.uniform(-1, 1, 2).tolist(),
                part=float(rng.choice((-1.0, 1.0)) * rng.uniform(0.5, 1)))


def sample_glasses(rng: np.random.Generator, benchmark: bool) -> Glasses:
    """Sample glasses, see `sample_hair`; their colour family is the tint."""
    shape, tint = _pair("glasses", rng, benchmark)
    frame = vary(tuple(FRAMES.values())[rng.integers(len(FRAMES))], rng)
    lens = None if TINTS[tint] is None else vary(TINTS[tint], rng)
    return Glasses(shape, tint, lens, frame, float(rng.uniform(0.024, 0.032)), float(rng.uniform(0.94, 1.1)))


def sample_beard(rng: np.random.Generator, benchmark: bool) -> Beard:
    """Sample a beard, see `sample_hair`."""
    form, family = _pair("beard", rng, benchmark)
    return Beard(form, family, shade(vary(HAIRS[family], rng), -0.08), float(rng.uniform(-1, 1)))


def sample_hat(rng: np.random.Generator, benchmark: bool) -> Hat:
    """Sample a hat, see `sample_hair`; its colour family is the band."""
    form, band = _pair("hat", rng, benchmark)
    colour = vary(HATS[rng.integers(len(HATS))], rng)
    band_colour = None if BANDS[band] is None else vary(BANDS[band], rng)
    return Hat(form, band, colour, band_colour, float(rng.uniform(-1, 1)))


SAMPLERS = {"hair": sample_hair, "glasses": sample_glasses, "beard": sample_beard, "hat": sample_hat}
# Probability that a person wears a kind.
FREQUENCY = {"hair": 0.88, "glasses": 0.55, "beard": 0.45, "hat": 0.45}
