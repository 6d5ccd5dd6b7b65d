"""SVDP to and from the layout of diffusers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from durian_jax.convert.families.svdp.exporting import check_exportable, export_parts
from durian_jax.models.svdp.config import SVDPConfig

__all__ = ["BASE_PARTS", "PARTS", "check_exportable", "export_parts", "import_checkpoint"]

# Name of a part of an import -> its folder in a pipeline's repository; and the parts that it must have.
PARTS = {"transformer": "transformer", "vae": "vae"}
BASE_PARTS = ("transformer", "vae")


def import_checkpoint(out: str | Path, parts: Mapping[str, str], **options: Any) -> SVDPConfig:
    """See `importing.import_checkpoint`, which needs JAX."""
    from durian_jax.convert.families.svdp import importing

    return importing.import_checkpoint(out, parts, **options)
