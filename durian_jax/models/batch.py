"""The batch contract: name, shape and kind of every field, from which all other rooms derive what they need.

Sharding, device conversion, initialisation, plans and encoded samples read a family's spec
(`models.family.ModelConfig.batch_spec`); no other place lists the fields. Imports no jax.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# Kind of a field -> its type in a loader's batch. Models take float32 of every kind.
#   picture  0..255, in models -1..1
#   mask     0 or 1
#   share    0..255, in models 0..1: the share of a latent that a mask covers
#   latent   latents and embeddings, in half precision
#   value    anything else
STORED_TYPES = {"picture": "uint8", "mask": "uint8", "share": "uint8", "latent": "float16", "value": "float32"}

# Who reads a field: the loss alone; the references, once per video; the condition of each clip.
ROLES = ("target", "reference", "clip")


@dataclass(frozen=True)
class Field:
    """One field of a batch.

    Attributes:
        axes: of the array, in order: a letter ("B" clips, "F" frames, "A" attributes, ...) or a fixed size.
        kind: a key of `STORED_TYPES`.
        role: one of `ROLES`.
        optional: sampling may leave the field out, and training batches do not have it.
    """

    axes: tuple[str | int, ...]
    kind: str
    role: str
    optional: bool = False

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The field's shape, from the size of each letter."""
        return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in self.axes)


Spec = Mapping[str, Field]


def training_fields(spec: Spec) -> dict[str, Field]:
    """The fields that every training batch has."""
    return {name: field for name, field in spec.items() if not field.optional}


def sampling_fields(spec: Spec, with_references: bool = True) -> dict[str, Field]:
    """The fields that sampling reads.

    Args:
        with_references: False leaves out the fields that the model has already turned into references.
    """
    roles = ("reference", "clip") if with_references else ("clip",)
    return {name: field for name, field in spec.items() if field.role in roles}


def axis_letters(spec: Spec) -> set[str]:
    """The letters of all axes without a fixed size."""
    return {axis for field in spec.values() for axis in field.axes if isinstance(axis, str)}


def axis_sizes(spec: Spec, batch: Mapping) -> dict[str, int]:
    """Letter -> size, read from the arrays of a batch."""
    return {axis: size for name, field in spec.items() if name in batch
            for axis, size in zip(field.axes, batch[name].shape, strict=True) if isinstance(axis, str)}


def model_inputs(batch: Mapping, spec: Spec, xp=np) -> dict:
    """Convert a loader's batch to what models take: float32, pictures in [-1, 1], masks in [0, 1].

    Args:
        batch: fields with the types of `STORED_TYPES`.
        spec: of these fields.
        xp: numpy or jax.numpy.
    """
    def convert(value, kind: str):
        value = value.astype(xp.float32)
        if kind == "picture":
            return value * xp.float32(1 / 127.5) - xp.float32(1)
        return value * xp.float32(1 / 255) if kind == "share" else value
    return {name: convert(value, spec[name].kind) for name, value in batch.items()}


def stored(values: Mapping, spec: Spec, xp=np) -> dict:
    """Convert a model's outputs to the types in which a loader's batch holds them; no pictures.

    The inverse of `model_inputs`, up to rounding.
    """
    def convert(value, kind: str):
        value = xp.round(255 * value) if kind == "share" else value
        return value.astype(STORED_TYPES[kind])
    return {name: convert(value, spec[name].kind) for name, value in values.items()}
