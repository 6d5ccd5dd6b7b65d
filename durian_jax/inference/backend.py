"""What can run a model: the interface of JAX and PyTorch to the rest of the program."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from durian_jax.diffusion import Sampling
from durian_jax.faces.arcface import IdentityEncoder
from durian_jax.models.family import ModelConfig


@dataclass(frozen=True)
class Segment:
    """What a model made.

    Attributes:
        images: (B, F, H, W, 3) uint8.
        latents: (B, F, h, w, c) float32, the images before decoding.
    """

    images: np.ndarray
    latents: np.ndarray


@runtime_checkable
class Backend(Protocol):
    """A model that can be run.

    Attributes:
        config: sizes.
        sampling: how to sample from it unless the user says otherwise.
        identity_encoder: embeds portraits' faces, if the config has identity_dim.
    """

    config: ModelConfig
    sampling: Sampling
    identity_encoder: IdentityEncoder | None

    def references(self, batch: Mapping[str, np.ndarray]) -> Any:
        """What all clips of a video share, from the fields with role "reference"."""

    def generate_segment(self, batch: Mapping[str, np.ndarray], sampling: Sampling, *, first_frame: int = 0,
                         references: Any = None, temporal: bool | None = None) -> Segment:
        """Sample a batch of clips; see `inference.generate.generate_segment`."""
