"""Our checkpoints as folders of diffusers and transformers: the way back of `importer`."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from durian_jax.convert import sizes
from durian_jax.convert.names import Tensor
from durian_jax.convert.networks import network_maps
from durian_jax.files import atomic_file, write_json
from durian_jax.models.layers import sequence_position_code
from durian_jax.weights import Checkpoint


def export_folders(checkpoint: Checkpoint, out: str | Path) -> dict[str, Path]:
    """Write the networks that diffusers and transformers have classes for.

    Args:
        checkpoint: a model of Stable Diffusion 1.5's layout.
        out: folder in which to write unet/ (UNet2DConditionModel), motion_adapter/, vae/ and image_encoder/.

    Returns:
        Part -> its folder.

    Raises:
        InputError: a model of another layout.
    """
    config, params = checkpoint.config, checkpoint.params
    maps = network_maps(config, {path: x.shape for path, x in params.items()})
    motion = their_tensors(maps["motion"], params)
    modules = sorted({tensor.name.split(".transformer_blocks.")[0] for tensor in maps["motion"]
                      if ".transformer_blocks." in tensor.name})
    for module in modules:
        width = motion[f"{module}.norm.weight"].shape[0]
        code = np.asarray(sequence_position_code(config.max_frames, width))[None]
        motion[f"{module}.transformer_blocks.0.pos_embed.pe"] = code
    parts = {
        "unet": (sizes.unet_json(config), their_tensors(maps["denoiser"], params), "diffusion_pytorch_model"),
        "motion_adapter": (sizes.motion_json(config), motion, "diffusion_pytorch_model"),
        "vae": (sizes.codec_json(config), their_tensors(maps["codec"], params), "diffusion_pytorch_model"),
    }
    if config.image_encoder is not None:
        parts["image_encoder"] = (sizes.image_encoder_json(config.image_encoder),
                                  their_tensors(maps["image_encoder"], params), "model")
    folders = {}
    for part, (values, tensors, stem) in parts.items():
        folders[part] = Path(out) / part
        with atomic_file(folders[part] / f"{stem}.safetensors") as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
        write_json(folders[part] / "config.json", values)
    return folders


def their_tensors(tensors: list[Tensor], params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A network's parameters under their names and in their layout."""
    return {tensor.name: np.ascontiguousarray(tensor.to_theirs(np.asarray(params[tensor.path])))
            for tensor in tensors}
