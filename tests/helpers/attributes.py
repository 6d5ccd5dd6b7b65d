"""Attribute files of hand-made people."""

from dataclasses import replace

from durian_jax.prepare.attribute_file import SIZES, Attribute, Origin
from tests.helpers.faces import clip

ORIGIN = Origin("friend.jpg", "0" * 64, 640, 480, 200.0, 420.0, "largest", "default", 1.5, "0.1.0",
                "2026-12-01T03:40:00+00:00")


def attribute(kind: str = "hair", index: int = 0, **changes) -> Attribute:
    """Return an attribute of a noise clip; `changes` are fields of its origin."""
    return Attribute.of(kind, {size: clip(index, 1, size) for size in SIZES}, replace(ORIGIN, **changes))
