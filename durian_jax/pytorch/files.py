"""Reading an export (`durian export`) into PyTorch's modules."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from tqdm import tqdm

from durian_jax.convert.sizes import beyond_diffusers
from durian_jax.errors import InputError
from durian_jax.models.durian.config import DurianConfig
from durian_jax.pytorch.durian.model import Durian
from durian_jax.pytorch.durian.unet import UNet
from durian_jax.tensor_files import check_paths, weight_files


def load_model(folder: Path, config: DurianConfig, dtype: torch.dtype) -> Durian:
    """The networks of an export, whose files are known to be whole (`convert.bundle.read_bundle`).

    Raises:
        InputError: tensors that do not fit the sizes, each named.
    """
    with torch.device("meta"):
        model = Durian(config)
    denoiser = {name for name in model.denoising_unet.state_dict() if "motion_modules" not in name}
    for part, network in tqdm(list(model.named_children()), desc="loading", unit="network"):
        tensors = {}
        for path in weight_files(folder / part):
            try:
                tensors |= load_file(path)
            except (OSError, SafetensorError) as error:
                raise InputError(f"{path} is damaged: {error}; copy or export it again") from error
        # Where diffusers' class fits, it wants what our ReferenceNets end before.
        has_tail = isinstance(network, UNet) and network.is_reference and not beyond_diffusers(config.unet)
        tail = denoiser - network.state_dict().keys() if has_tail else set()
        _load(network, {name: x for name, x in tensors.items() if name not in tail}, str(folder / part), dtype)
    return model.eval().requires_grad_(False)


def _load(network: nn.Module, tensors: dict[str, torch.Tensor], origin: str, dtype: torch.dtype) -> None:
    expected = {name: tuple(x.shape) for name, x in network.state_dict().items()}
    check_paths(expected, {name: tuple(x.shape) for name, x in tensors.items()}, origin)
    network.load_state_dict({name: x.to(dtype) for name, x in tensors.items()}, assign=True)
    for module in network.modules():
        for name, x in module.named_buffers(recurse=False):
            if x.is_meta and name == "position_ids":  # CLIP counts its positions, and no file holds that
                setattr(module, name, torch.arange(x.numel()).view(x.shape))
            elif x.is_floating_point():
                setattr(module, name, x.to(dtype))
