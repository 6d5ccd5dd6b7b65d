"""What a model family provides for conversion. Imports no jax."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from durian_jax.checkpoints.description import Description
from durian_jax.convert.names import Tensor
from durian_jax.models.family import ModelConfig


class Part(NamedTuple):
    """One folder of an export.

    Attributes:
        config: its config.json.
        tensors: name and values, read as they are iterated over.
        stem: of the name of the weights' file.
    """

    config: dict[str, Any]
    tensors: Iterator[tuple[str, np.ndarray]]
    stem: str


class FamilyConversion(Protocol):
    """What a family's package in `convert.families` has.

    A family without pretrained parts has no `import_checkpoint`, `PARTS` and `BASE_PARTS`.

    Attributes:
        PARTS: name of a part of `import_checkpoint` -> its folder in a pipeline's repository.
        BASE_PARTS: the parts that an import must have. The first one tells the family.
    """

    PARTS: Mapping[str, str]
    BASE_PARTS: Sequence[str]

    def check_exportable(self, config: ModelConfig) -> None:
        """Refuse models that only JAX runs, with an InputError that names the field."""

    def export_parts(self, config: ModelConfig, shapes: Mapping[str, tuple[int, ...]],
                     read: Callable[[Tensor], np.ndarray], dtype: np.dtype) -> dict[str, Part]:
        """Folder -> its part.

        Args:
            shapes: path -> shape of the model's parameters.
            read: a tensor of the checkpoint -> its values, in their layout.
            dtype: of the values.
        """

    def import_checkpoint(self, out: str | Path, parts: Mapping[str, str], *, like: Description | None, dtype: str,
                          changes: Mapping[str, Any]) -> ModelConfig:
        """Make an initial checkpoint from pretrained parts.

        Args:
            parts: name -> folder or hub id.
            like: the model to make; None: it follows from the parts.
            dtype: of the file.
            changes: fields of the model that override `like` or the parts.

        Returns:
            The model's config.
        """
