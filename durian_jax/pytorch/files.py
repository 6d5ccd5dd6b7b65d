"""Load the files of an export into PyTorch's modules."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from durian_jax.errors import InputError
from durian_jax.progress import progress_bar
from durian_jax.tensor_files import check_paths, weight_files


def load_model(model: nn.Module, folder: Path, dtype: torch.dtype) -> None:
    """Load the networks of an export. `convert.bundle.read_bundle` has checked its files.

    Args:
        model: on the meta device; the weights of a child are in the folder of the child's name. A child may have
            `unused_tensors`: names of tensors in its files that it does not load.

    Raises:
        InputError: a damaged file, or tensors that do not fit the model; lists all of them.
    """
    for part, network in progress_bar(list(model.named_children()), desc="loading", unit="network"):
        tensors = {}
        for path in weight_files(folder / part):
            try:
                tensors |= load_file(path)
            except (OSError, SafetensorError) as error:
                raise InputError(f"{path} is damaged: {error}; copy or export it again") from error
        unused = getattr(network, "unused_tensors", frozenset())
        _load(network, {name: x for name, x in tensors.items() if name not in unused}, str(folder / part), dtype)
    model.eval().requires_grad_(False)


def _load(network: nn.Module, tensors: dict[str, torch.Tensor], origin: str, dtype: torch.dtype) -> None:
    expected = {name: tuple(x.shape) for name, x in network.state_dict().items()}
    check_paths(expected, {name: tuple(x.shape) for name, x in tensors.items()}, origin)
    network.load_state_dict({name: x.to(dtype) for name, x in tensors.items()}, assign=True)
    for module in network.modules():
        for name, x in module.named_buffers(recurse=False):
            if x.is_meta and name == "position_ids":  # CLIP's position numbers are in no file
                setattr(module, name, torch.arange(x.numel()).view(x.shape))
            elif x.is_floating_point():
                setattr(module, name, x.to(dtype))
