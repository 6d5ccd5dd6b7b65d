"""Durian to and from the layout of diffusers and transformers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from durian_jax.convert.families.durian.exporting import check_exportable, export_parts
from durian_jax.models.durian.config import DurianConfig

__all__ = ["BASE_PARTS", "PARTS", "check_exportable", "export_parts", "import_checkpoint"]

# Name of a part of an import -> its folder in a pipeline's repository; and the parts that it must have.
PARTS = {"unet": "unet", "vae": "vae", "motion": "motion_adapter", "image_encoder": "image_encoder"}
BASE_PARTS = ("unet", "vae")


def import_checkpoint(out: str | Path, parts: Mapping[str, str], **options: Any) -> DurianConfig:
    """See `importing.import_checkpoint`, which needs JAX."""
    from durian_jax.convert.families.durian import importing

    return importing.import_checkpoint(out, parts, **options)
