"""A timeline: how an attribute changes from photo to photo in the course of a video.

A timeline is a JSON file:

    {"attribute": "hair",
     "photos": ["short.png", "long.png"],
     "keys": [{"seconds": 0, "weights": [1, 0]}, {"seconds": 2.5, "weights": [0, 1]}]}

Between keys, weights change linearly. Before the first key and after the last one they stay. Names of photos are
relative to the file.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from durian_jax.errors import InputError
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.fields import FieldError, Items, NotNegative, OneOf, Range, check_fields, inside, read_fields
from durian_jax.files import read_json
from durian_jax.video import local_path

_Photos = Annotated[tuple[str, ...], Items(2, 16)]


@dataclass(frozen=True)
class Key:
    """The weights at one time.

    Attributes:
        seconds: since the beginning of the video.
        weights: of each photo; they sum to 1.
    """

    seconds: NotNegative
    weights: tuple[Annotated[float, Range(0, 1)], ...]

    def __post_init__(self):
        check_fields(self)
        if abs(sum(self.weights) - 1) > 1e-4:
            raise FieldError("weights", f"expected numbers that sum to 1, found {sum(self.weights):g}")


@dataclass(frozen=True)
class Timeline:
    """The weights of photos over time.

    Attributes:
        attribute: kind.
        photos: of people who wear it.
        keys: in the order of time, at least one.
    """

    attribute: Annotated[str, OneOf(ATTRIBUTE_KINDS)]
    photos: _Photos
    keys: tuple[Key, ...]

    def __post_init__(self):
        check_fields(self)
        if not self.keys:
            raise FieldError("keys", "expected at least one, found none")
        for number, key in enumerate(self.keys):
            if len(key.weights) != len(self.photos):
                raise FieldError(f"keys[{number}].weights", f"expected one for each of {len(self.photos)} photos, "
                                 f"found {len(key.weights)}")
        times = [key.seconds for key in self.keys]
        if any(later <= earlier for earlier, later in zip(times, times[1:], strict=False)):
            raise FieldError("keys", f"expected rising times, found {', '.join(f'{time:g}' for time in times)}")

    def at(self, seconds: np.ndarray) -> np.ndarray:
        """The weights (T, P) of the P photos at times (T,)."""
        times, weights = [key.seconds for key in self.keys], np.array([key.weights for key in self.keys])
        return np.stack([np.interp(seconds, times, row) for row in weights.T], 1).astype(np.float32)


def read_timeline(path: str | Path) -> Timeline:
    """Read a timeline from its file. The names of its photos become paths.

    Raises:
        InputError: an unreadable file, or one that is no timeline.
    """
    path = Path(path)
    values = read_json(path, "write it as docs/animate.md shows")
    try:
        found = _read(values)
    except FieldError as error:
        raise InputError(f"{path}: {error}; docs/animate.md shows a timeline") from error
    return Timeline(found.attribute, tuple(str(path.parent / local_path(photo)) for photo in found.photos), found.keys)


def describe(timeline: Timeline, every: float) -> str:
    """Return a table of the weights over time, a line per `every` seconds up to the last key; at most 1,000 lines."""
    last = timeline.keys[-1].seconds
    times = np.linspace(0, last, min(int(np.ceil(last / every)), 999) + 1)
    names = [Path(photo).name for photo in timeline.photos]
    rows = [f"{timeline.attribute}: " + ", ".join(f"{number} {name}" for number, name in enumerate(names, start=1)),
            "seconds " + " ".join(f"{number:>6}" for number in range(1, len(names) + 1))]
    return "\n".join([*rows, *(f"{time:7.2f} " + " ".join(f"{weight:6.2f}" for weight in weights)
                               for time, weights in zip(times, timeline.at(times), strict=True))])


def _read(values: dict[str, Any]) -> Timeline:
    keys = values.get("keys")
    if isinstance(keys, list):
        read = []
        for number, key in enumerate(keys):
            with inside(f"keys[{number}]"):
                read.append(read_fields(Key, key))
        values = {**values, "keys": tuple(read)}
    return read_fields(Timeline, values)
