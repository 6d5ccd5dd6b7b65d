"""`durian import`: from files to a checkpoint."""

import shutil
from pathlib import Path

from ml_collections import ConfigDict

from durian_jax.convert.importer import STABLE_DIFFUSION, import_checkpoint
from durian_jax.errors import InputError
from durian_jax.faces.arcface import IDENTITY_FILE, IdentityEncoder
from durian_jax.files import atomic_file, writable_folder
from durian_jax.models.durian.config import DurianConfig
from durian_jax.training.loop import validate


def import_files(out: str | Path, *, unet: str, vae: str, motion: str | None = None, image_encoder: str | None = None,
                 identity_model: str | None = None, size: int | None = None, dtype: str = "float32",
                 config: ConfigDict | None = None, overwrite: bool = False) -> DurianConfig:
    """`durian import`: see `import_checkpoint`.

    Args:
        identity_model: ONNX file of an ArcFace network, which is copied into the checkpoint.
        size: side of the pictures; None: the config's, or 512.
        config: training config whose model the checkpoint gets; None: the model follows from the parts.
        overwrite: replace a checkpoint in `out`.

    Raises:
        InputError: see `import_checkpoint`; also a config that contradicts itself.
    """
    if (Path(out) / "config.json").exists() and not overwrite:
        raise InputError(f"{out} holds a checkpoint already; name another folder, or pass --overwrite")
    writable_folder(out)
    identity_dim = IdentityEncoder(identity_model).width if identity_model else None
    changes = {"identity_dim": identity_dim} if identity_dim is not None else {}
    changes |= {"image_size": size} if size is not None else {}
    model = None
    objective = STABLE_DIFFUSION
    if config is not None:
        model, _, objective = validate(config)
    model = import_checkpoint(out, unet=unet, vae=vae, motion=motion, image_encoder=image_encoder, config=model,
                              objective=objective, dtype=dtype, changes=changes)
    if identity_model:
        with atomic_file(Path(out) / IDENTITY_FILE) as temporary:
            shutil.copyfile(identity_model, temporary)
    return model
