"""`durian import`: make an initial checkpoint from pretrained parts, which are folders or hub ids."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from durian_jax.checkpoints.description import Description
from durian_jax.errors import InputError
from durian_jax.faces.arcface import IDENTITY_FILE, IdentityEncoder
from durian_jax.families import DEFAULT, get_family
from durian_jax.files import atomic_file, writable_folder
from durian_jax.models.family import ModelConfig


def import_files(out: str | Path, parts: Mapping[str, str | None], *, identity_model: str | None = None,
                 size: int | None = None, dtype: str = "float32", like: Description | None = None,
                 overwrite: bool = False) -> ModelConfig:
    """Make an initial checkpoint, see the family's `import_checkpoint`.

    Args:
        out: folder of the checkpoint to write.
        parts: name of a part -> folder or hub id; None: the part is missing.
        identity_model: ONNX file of an ArcFace network to copy into the checkpoint.
        size: side of the pictures; None: that of `like`, or 512.
        dtype: of the file: "float32", "float16" or "bfloat16".
        like: the model to make; None: a model of the default family with the sizes of the parts.
        overwrite: replace a checkpoint in `out`.

    Raises:
        InputError: see `FamilyConversion.import_checkpoint`.
    """
    if (Path(out) / "config.json").exists() and not overwrite:
        raise InputError(f"{out} holds a checkpoint already; name another folder, or pass --overwrite")
    writable_folder(out)
    identity_dim = IdentityEncoder(identity_model).width if identity_model else None
    changes = {"identity_dim": identity_dim} if identity_dim is not None else {}
    changes |= {"image_size": size} if size is not None else {}
    family = DEFAULT if like is None else like.config.family
    given = {name: part for name, part in parts.items() if part is not None}
    model = get_family(family).load("convert").import_checkpoint(out, given, like=like, dtype=dtype, changes=changes)
    if identity_model:
        with atomic_file(Path(out) / IDENTITY_FILE) as temporary:
            shutil.copyfile(identity_model, temporary)
    return model
