"""Durian's pipeline: animates a portrait with attributes, on a GPU or CPU, without JAX."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from durian_jax.faces.draw import keypoint_image
from durian_jax.models.durian.config import DurianConfig
from durian_jax.pytorch.durian.attention import Site
from durian_jax.pytorch.durian.model import Durian, References
from durian_jax.pytorch.pipeline import Pipeline

_ENCODERS = ("vae", "image_encoder", "identity_projection")
# The branch of guidance without references, see `Durian.branches` of JAX.
_WITHOUT_REFERENCES = 0


@dataclass
class Condition:
    """The denoiser's inputs besides noisy latents and time.

    Attributes:
        keypoint_features: (B * F, C_0, h, w).
        sites: inputs of each attention site.
        branches: indices of the guidance branches that run.
    """

    keypoint_features: torch.Tensor
    sites: list[Site]
    branches: tuple[int, ...]


class DurianPipeline(Pipeline):
    """An exported Durian, ready to animate."""

    model: Durian

    @staticmethod
    def make_model(config: DurianConfig) -> Durian:
        """Build the networks."""
        return Durian(config)

    @property
    def denoiser(self) -> nn.Module:
        """DNet."""
        return self.model.denoising_unet

    def compile(self) -> "DurianPipeline":
        """Compile the denoiser's blocks (torch.compile, block by block: the first step takes a minute or two)."""
        # Blocks of one kind share their code; each width and resolution is compiled once.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
        unet = self.model.denoising_unet
        for level in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
            for block in (*level.resnets, *level.attentions, *level.motion_modules):
                block.compile(dynamic=False)
        return self

    @torch.inference_mode()
    def references(self, batch: Mapping[str, np.ndarray]) -> References:
        """Compute what the denoiser attends to; several calls of `generate` can share the result.

        Args:
            batch: portrait, portrait_mask, attributes, attribute_masks and, if the model uses it, identity.
        """
        self.warn_if_slow()
        model = self.model
        pictures = (self.to_tensor(batch[name]) for name in ("portrait", "portrait_mask", "attributes",
                                                             "attribute_masks"))
        identity = torch.tensor(batch["identity"]).to(self.device, self.dtype) if "identity" in batch else None
        with self.at_work(*[getattr(model, name) for name in _ENCODERS if hasattr(model, name)]):
            encoded = model.encode_references(*pictures, identity)
        with self.at_work(model.portrait_reference):
            portrait = model.portrait_features(encoded)
        with self.at_work(model.attribute_reference):
            attributes = model.attribute_features(encoded)
        with self.at_work(model.denoising_unet):
            return model.project_references(portrait, attributes, encoded.attribute_embeddings)

    def condition(self, batch: Mapping[str, np.ndarray], references: References, branches: Sequence[int]) -> Condition:
        """See `Pipeline.condition`."""
        with self.at_work(self.model.keypoint_encoder):
            features = self.keypoint_features(batch["keypoints"])
        sites = self.model.select(references, batch["attribute_valid"], batch.get("attribute_weights"))
        return Condition(features, sites, tuple(branches))

    def keypoint_features(self, keypoints: np.ndarray) -> torch.Tensor:
        """Encode driving keypoints: (B, F, K, 3) -> (B * F, C_0, h, w)."""
        size = self.config.image_size
        drawn = keypoint_image(keypoints.reshape(-1, *keypoints.shape[2:]), size, size)
        return self.model.keypoint_encoder(self.to_tensor(drawn))

    def predict(self, z: torch.Tensor, moment: float, condition: Condition, *, frames: int, temporal: bool
                ) -> list[torch.Tensor]:
        """See `Pipeline.predict`. Two branches run as one batch, so that weights are read once."""
        features, sites, count = condition.keypoint_features, condition.sites, len(condition.branches)
        if condition.branches == (_WITHOUT_REFERENCES,):
            sites = None
        elif count == 2:  # the second half sees no references
            z, features = torch.cat([z, z]), torch.cat([features, features])
            sites = [replace(site, guided=True) for site in sites]
        moments = torch.full((len(z),), moment, device=z.device)
        prediction = self.model.denoising_unet(z.to(self.dtype), moments, frames=frames, sites=sites, bias=features,
                                               temporal=temporal).float()
        return list(reversed(prediction.chunk(count)))
