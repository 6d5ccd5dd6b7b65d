"""`durian import`: make an initial checkpoint from pretrained parts, which are folders or hub ids."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from durian_jax.checkpoints.description import Description
from durian_jax.convert.files import check_name, has_folder
from durian_jax.errors import InputError
from durian_jax.faces.arcface import IDENTITY_FILE, IdentityEncoder
from durian_jax.families import FAMILIES, get_family
from durian_jax.files import atomic_file, check_folder
from durian_jax.models.family import ModelConfig


def import_files(out: str | Path, parts: Mapping[str, str | None], *, base: str | None = None,
                 identity_model: str | None = None, size: int | None = None, dtype: str = "float32",
                 like: Description | None = None, overwrite: bool = False) -> ModelConfig:
    """Make an initial checkpoint, see the family's `import_checkpoint`.

    Args:
        out: folder of the checkpoint to write.
        parts: name of a part -> folder or hub id; None: the part is missing.
        base: folder or hub id of a pipeline, which provides the parts that an import must have.
        identity_model: ONNX file of an ArcFace network to copy into the checkpoint.
        size: side of the pictures; None: that of `like`, or 512.
        dtype: of the file: "float32", "float16" or "bfloat16".
        like: the model to make; None: a model with the sizes of the parts, of the family that has these parts.
        overwrite: replace a checkpoint in `out`.

    Raises:
        InputError: parts of different families, or a missing part; see `FamilyConversion.import_checkpoint`.
    """
    given = {name: part for name, part in parts.items() if part is not None}
    for name in (*given.values(), *([] if base is None else [base])):
        check_name(name)
    family = _family_of(given, base) if like is None else like.config.family
    conversion = get_family(family).load("convert")
    for name in getattr(conversion, "BASE_PARTS", ()):
        if given.setdefault(name, base or "") == "":
            raise InputError(f"import: expected --{name}, or --base that has one; found neither")
    if os.path.exists(Path(out) / "config.json") and not overwrite:
        raise InputError(f"{out} holds a checkpoint already; name another folder, or pass --overwrite")
    check_folder(out)
    identity_dim = IdentityEncoder(identity_model).width if identity_model else None
    changes = {"identity_dim": identity_dim} if identity_dim is not None else {}
    changes |= {"image_size": size} if size is not None else {}
    model = conversion.import_checkpoint(out, given, like=like, dtype=dtype, changes=changes)
    if identity_model:
        with atomic_file(Path(out) / IDENTITY_FILE) as temporary:
            shutil.copyfile(identity_model, temporary)
    return model


def _family_of(parts: Mapping[str, str], base: str | None) -> str:
    """The family that is imported from these parts.

    Raises:
        InputError: no family has all of them.
    """
    conversions = {name: family.load("convert") for name, family in FAMILIES.items() if family.convert}
    known = {name: conversion.PARTS for name, conversion in conversions.items() if hasattr(conversion, "PARTS")}
    fitting = [name for name, its_parts in known.items() if set(parts) <= set(its_parts)]
    if not fitting:
        lists = "; or of ".join(", ".join(its_parts) for its_parts in known.values())
        raise InputError(f"import: expected some of the parts {lists}; found {', '.join(parts)}, which belong to "
                         "different models")
    denoisers = {name: conversions[name].BASE_PARTS[0] for name in fitting}
    if len(fitting) == 1:
        return fitting[0]
    if base is None:
        names = " or ".join(f"--{part}" for part in denoisers.values())
        raise InputError(f"import: expected {names}, or --base that has one of them; found none")
    return next((name for name in fitting if has_folder(base, known[name][denoisers[name]])), fitting[0])
