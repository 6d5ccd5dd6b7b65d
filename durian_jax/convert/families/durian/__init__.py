"""Durian to and from the layout of diffusers and transformers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from durian_jax.convert.families.durian.exporting import check_exportable, export_parts
from durian_jax.models.durian.config import DurianConfig

__all__ = ["check_exportable", "export_parts", "import_checkpoint"]


def import_checkpoint(out: str | Path, parts: Mapping[str, str], **options: Any) -> DurianConfig:
    """See `importing.import_checkpoint`, which needs JAX."""
    from durian_jax.convert.families.durian import importing

    return importing.import_checkpoint(out, parts, **options)
