"""How attention is computed: the implementation, and how its kernels are divided among devices."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from durian_jax.errors import InputError

if TYPE_CHECKING:
    from jax.sharding import Mesh

# "xla" holds all logits at once; "chunked" bounds memory; "splash" is Pallas' kernel for TPUs, "cudnn" NVIDIA's.
IMPLEMENTATIONS = ("xla", "chunked", "splash", "cudnn")


@dataclass(frozen=True)
class Partition:
    """How the arrays of an attention are divided among devices. XLA cannot divide a kernel by itself.

    Attributes:
        mesh: of the devices.
        clips, frames, heads: mesh axes that divide each axis; an axis that they do not divide evenly stays whole.
    """

    mesh: "Mesh"
    clips: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()


@dataclass(frozen=True)
class AttentionMethod:
    """How a model computes attention in space.

    Attributes:
        implementation: one of `IMPLEMENTATIONS`.
        partition: for kernels; None: all arrays are on one device.
        interpret: run Pallas kernels in their interpreter, on any platform.
    """

    implementation: str = "xla"
    partition: Partition | None = None
    interpret: bool = False

    def __post_init__(self):
        if self.implementation not in IMPLEMENTATIONS:
            raise InputError(f"unknown attention {self.implementation!r}; expected one of "
                             f"{', '.join(IMPLEMENTATIONS)}")


def choose_implementation(name: str, platform: str, dtype: str, capability: str = "") -> str:
    """Resolve "auto": splash on TPUs, cuDNN on NVIDIA GPUs that have it in half precision, else XLA.

    Args:
        name: "auto" or one of `IMPLEMENTATIONS`.
        platform: of the devices: "cpu", "gpu" or "tpu".
        dtype: of the activations.
        capability: compute capability of the GPU, such as "8.0".

    Raises:
        InputError: the platform does not run this implementation.
    """
    wanted = {"splash": "tpu", "cudnn": "gpu"}.get(name, platform)
    if wanted != platform:
        raise InputError(f"attention={name} runs on a {wanted}, found a {platform}; choose auto, xla or chunked")
    if name != "auto":
        return name
    if platform == "gpu" and dtype != "float32" and re.fullmatch(r"([89]|\d\d)\.\d", capability):
        return "cudnn"
    return "splash" if platform == "tpu" else "xla"
