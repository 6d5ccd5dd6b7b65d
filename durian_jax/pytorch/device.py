"""Devices and precisions of PyTorch."""

import torch

from durian_jax.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# CPU instruction sets, under PyTorch's names, without arithmetic in 16 bits.
SLOW_IN_16_BITS = ("DEFAULT", "NO AVX", "AVX2")


def choose_device(name: str | torch.device | None) -> torch.device:
    """Return a device by name; None: the first NVIDIA or AMD GPU, else the CPU.

    Raises:
        InputError: a device that this machine does not have.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {str(name)!r}: {str(error).splitlines()[0]}; expected one such as cpu or "
                         "cuda") from error
