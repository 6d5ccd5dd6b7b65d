"""Procedural people whose exact regions are known, and a stand-in generator, for the tests of expansion."""

import numpy as np

from durian_jax.data import RecordedClips
from durian_jax.faces.clip import Clip
from durian_jax.synthetic import Motion, Person, render, sample_motion, sample_person

SIZE = 128  # of the shipped checkpoint


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Return the intersection over the union of two masks."""
    return float((a & b).sum() / max((a | b).sum(), 1))


def person(index: int) -> Person:
    """Return a person with hair: odd indices wear a hat too, even ones glasses and a beard."""
    if index % 2:
        return sample_person("validation", index, require=("hair", "hat"))
    return sample_person("validation", index, require=("hair", "glasses", "beard")).without("hat")


def motion(index: int) -> Motion:
    """Return the motion of this person, three frames long."""
    return sample_motion("validation", index, 3, 6.0)


def exact(index: int, frame: int, kind: str, donor: Clip, size: int = SIZE) -> np.ndarray:
    """Render the donor's attribute on a person; return (size, size) bool, where it lies."""
    wearing = person(index).wear(**{kind: person(int(donor.identity.split("-")[1]))})
    return render(wearing, motion(index)[frame:frame + 1], size).mask(kind)[0]


def generated(folder) -> list[dict[int, np.ndarray]]:
    """Return the generated bit fields of each clip: frame -> (H, W) uint8."""
    clips = RecordedClips(folder)
    return [clips.open(index).generated() for index in range(len(clips))]


def same_regions(a, b) -> bool:
    """Whether two datasets have equal regions."""
    return all(x.keys() == y.keys() and all((x[frame] == y[frame]).all() for frame in x)
               for x, y in zip(generated(a), generated(b), strict=True))


class Echo:
    """A generator that returns what the photo shows, and records its calls.

    Args:
        dies_at: number of the call that raises KeyboardInterrupt, from 1; None: no call.
    """

    def __init__(self, dies_at: int | None = None):
        self.calls, self.wanted, self._dies_at = 0, [], dies_at

    def __call__(self, wanted):
        self.calls += 1
        if self.calls == self._dies_at:
            raise KeyboardInterrupt
        self.wanted += wanted
        return [each.photo.mask(each.kind)[0] for each in wanted]
