"""Regions to generate, and what generates them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from durian_jax.faces.clip import Clip


@dataclass(frozen=True)
class Wanted:
    """A region to generate: where an attribute of this kind and of another shape lies.

    Attributes:
        photo: the clip's frame, without margin: the keypoints to generate at, and a portrait.
        kind: of the attribute; the person wears one of this kind.
        rng: random numbers of this region alone, so that regions do not depend on each other.
    """

    photo: Clip
    kind: str
    rng: np.random.Generator


class Generator(Protocol):
    """Makes regions: `transfer.TransferGenerator` or `diffusers.DiffusersGenerator`."""

    def __call__(self, wanted: Sequence[Wanted]) -> list[np.ndarray | None]:
        """Return the region in the photo for each, in order: (h, w) bool of any size; None: no region."""
