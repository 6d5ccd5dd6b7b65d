"""Reading an export (`durian export`) into PyTorch's modules."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from tqdm import tqdm
from transformers import CLIPVisionModelWithProjection

from durian_jax.errors import InputError
from durian_jax.models.config import DurianConfig
from durian_jax.tensor_files import weight_files
from durian_jax.torch.model import Durian
from durian_jax.torch.unet import UNet


def load_model(folder: Path, config: DurianConfig, dtype: torch.dtype) -> Durian:
    """The networks of an export, whose files are known to be whole (`convert.bundle.read_bundle`).

    Raises:
        InputError: tensors that do not fit the sizes, each named.
    """
    with torch.device("meta"):
        model = Durian(config)
    for part, network in tqdm(list(model.named_children()), desc="loading", unit="network"):
        if isinstance(network, CLIPVisionModelWithProjection):  # has constants that no file holds
            model.image_encoder = CLIPVisionModelWithProjection.from_pretrained(folder / part, dtype=dtype)
            continue
        tensors = {}
        for path in weight_files(folder / part):
            try:
                tensors |= load_file(path)
            except (OSError, SafetensorError) as error:
                raise InputError(f"{path} is damaged: {error}; copy or export it again") from error
        _load(network, tensors, str(folder / part), dtype)
    return model.eval().requires_grad_(False)


def _load(network: nn.Module, tensors: dict[str, torch.Tensor], origin: str, dtype: torch.dtype) -> None:
    expected = {name: tuple(x.shape) for name, x in network.state_dict().items()}
    problems = [f"missing {name}" for name in sorted(expected.keys() - tensors.keys())]
    problems += [f"{name} has shape {tuple(tensors[name].shape)}, expected {expected[name]}"
                 for name in sorted(expected.keys() & tensors.keys()) if tuple(tensors[name].shape) != expected[name]]
    unexpected = tensors.keys() - expected.keys()
    if not (isinstance(network, UNet) and network.is_reference):  # those have the tail that diffusers' class wants
        problems += [f"unexpected {name}" for name in sorted(unexpected)]
    if problems:
        raise InputError(f"{origin} does not fit the model ({len(problems)} tensors): {'; '.join(problems)}; export "
                         "the checkpoint again")
    network.load_state_dict({name: tensors[name].to(dtype) for name in expected}, assign=True)
