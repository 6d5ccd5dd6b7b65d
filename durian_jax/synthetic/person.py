"""People: an identity with the attributes it wears, sampled from a seed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from durian_jax.errors import InputError
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.synthetic.attributes import FREQUENCY, SAMPLERS, Beard, Glasses, Hair, Hat
from durian_jax.synthetic.colours import BACKGROUNDS, CLOTHES, HAIRS, IRISES, SKINS, Colour, mix, shade, vary

SPLITS = ("train", "validation", "benchmark")
NECKLINES = ("crew", "vee", "collar", "turtleneck", "hood", "boat")
Attribute = Hair | Glasses | Beard | Hat


@dataclass(frozen=True)
class Identity:
    """A face without attributes. Shapes are factors around 1 or offsets in [-1, 1]; see `face.Face`."""

    skin: Colour
    face_width: float
    face_height: float
    jaw: float  # offset: 1 square, -1 narrow
    chin: float  # offset: 1 pointed, -1 broad
    ears: float
    eye_size: float
    eye_distance: float
    eye_tilt: float  # offset: 1 outer corners high
    eye_round: float
    iris: Colour
    brow: Colour
    brow_thickness: float
    brow_arch: float  # offset
    brow_tilt: float  # offset
    nose_width: float
    nose_length: float
    mouth_width: float
    lips: float
    lip_colour: Colour
    blush: float
    lashes: float
    neckline: str
    clothes: Colour
    trim: Colour
    background: Colour
    background_low: Colour
    backdrop: str  # "plain" gradient or "disc"
    light: float  # negative: from the picture's left, positive: from its right


@dataclass(frozen=True)
class Person:
    """An identity and the attributes it wears.

    Attributes:
        identity: face, clothes, background and light.
        attributes: kind -> attribute, for the worn kinds.
        name: name of the identity; equal names show the same person.
    """

    identity: Identity
    attributes: dict[str, Attribute] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self):
        _check_kinds(self.attributes)

    def wear(self, **others: "Person") -> "Person":
        """Return this person with attributes of other people: `a.wear(hair=b, hat=c)`.

        Raises:
            InputError: a kind is unknown, or the other person does not wear it.
        """
        _check_kinds(others)
        for kind, other in others.items():
            if kind not in other.attributes:
                raise InputError(f"{other.name or 'the other person'} wears no {kind} (found "
                                 f"{', '.join(other.attributes) or 'nothing'}); sample that person with "
                                 f"require=({kind!r},) or use without({kind!r})")
        taken = {kind: other.attributes[kind] for kind, other in others.items()}
        return replace(self, attributes={**self.attributes, **taken})

    def without(self, *kinds: str) -> "Person":
        """Return this person without some attribute kinds; kinds that are not worn are ignored."""
        _check_kinds(kinds)
        return replace(self, attributes={k: a for k, a in self.attributes.items() if k not in kinds})


def _check_kinds(kinds) -> None:
    for kind in kinds:
        if kind not in ATTRIBUTE_KINDS:
            raise InputError(f"unknown attribute kind {kind!r}; expected one of {', '.join(ATTRIBUTE_KINDS)}")


def split_rng(split: str, index: int, stream: int) -> np.random.Generator:
    """Return a random generator that is independent for every (split, index, stream).

    Raises:
        InputError: the split is unknown or the index is negative.
    """
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}; expected one of {', '.join(SPLITS)}")
    if index < 0:
        raise InputError(f"index of a {split} sample: expected 0, 1, 2, ..., found {index}; choose another index")
    return np.random.default_rng([SPLITS.index(split), int(index), stream])


def sample_identity(rng: np.random.Generator) -> Identity:
    """Sample a face, clothes, background and light."""
    def around(spread: float) -> float:
        return float(1 + rng.uniform(-spread, spread))

    def offset() -> float:
        return float(rng.uniform(-1, 1))

    def pick(colours) -> Colour:
        return tuple(colours)[rng.integers(len(colours))]

    tone = rng.uniform(0, len(SKINS) - 1)
    skin = vary(mix(SKINS[int(tone)], SKINS[min(int(tone) + 1, len(SKINS) - 1)], tone % 1), rng, 0.008, 0.04)
    brow = shade(vary(pick([HAIRS[n] for n in ("black", "brown", "chestnut", "red", "grey")]), rng), -0.25)
    clothes = vary(pick(CLOTHES), rng)
    background = vary(pick(BACKGROUNDS), rng, value=0.05)
    light = float(rng.choice((-1.0, 1.0)) * rng.uniform(0.5, 1))
    lip = mix(skin, (196, 60, 78), rng.uniform(0.4, 0.75))
    return Identity(
        skin=skin, face_width=around(0.07), face_height=around(0.04), jaw=offset(), chin=offset(),
        ears=around(0.15), eye_size=1.1 * around(0.1), eye_distance=around(0.05), eye_tilt=offset(),
        eye_round=around(0.14), iris=vary(pick(list(IRISES.values())), rng), brow=brow,
        brow_thickness=around(0.3), brow_arch=offset(), brow_tilt=offset(), nose_width=around(0.2),
        nose_length=around(0.12), mouth_width=around(0.14), lips=around(0.25), lip_colour=shade(lip, -0.1),
        blush=float(rng.uniform(0.1, 0.35)), lashes=around(0.3),
        neckline=NECKLINES[rng.integers(len(NECKLINES))], clothes=clothes, trim=vary(pick(CLOTHES), rng),
        background=background, background_low=shade(background, rng.uniform(-0.16, 0.3)),
        backdrop=("plain", "disc")[rng.integers(2)], light=light)


def sample_person(split: str, index: int, require: Sequence[str] = ()) -> Person:
    """Return the `index`-th person of a split; equal arguments return equal people.

    Args:
        split: "train", "validation" or "benchmark". Only benchmark people wear held-out combinations, and
            they wear no others (see `attributes.held_out`).
        index: 0, 1, 2, ...
        require: kinds that the person must wear; the rest of the person does not depend on it.

    Raises:
        InputError: the split or a kind is unknown, or the index is negative.
    """
    _check_kinds(require)
    identity = sample_identity(split_rng(split, index, 0))
    attributes = {}
    for number, kind in enumerate(ATTRIBUTE_KINDS):
        rng = split_rng(split, index, 1 + number)
        worn = rng.random() < FREQUENCY[kind]
        attribute = SAMPLERS[kind](rng, split == "benchmark")
        if worn or kind in require:
            attributes[kind] = attribute
    return Person(identity, attributes, name=f"{split}-{index}")


# Drivers are people with numbers from here on, which no clip of a person has.
_FIRST_DRIVER = 1 << 40


def sample_driver(split: str, index: int, person: Person) -> Person:
    """Return the person who makes the motion of the `index`-th person of a split.

    Every second one wears glasses or a beard that the person does not wear, if there is one to add: a model must not
    copy them. Drivers wear no other glasses or beards and no hats, which would hide eyes and mouth.

    Raises:
        InputError: as `sample_person`.
    """
    missing = [kind for kind in ("glasses", "beard") if kind not in person.attributes]
    extra = (missing[index // 2 % len(missing)],) if missing and index % 2 else ()
    driver = sample_person(split, _FIRST_DRIVER + index, require=extra)
    return driver.without(*({"glasses", "beard", "hat"} - {*extra}))
