"""SVDP's pipeline: reenacts a portrait by a video, on a GPU or CPU, without JAX."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from durian_jax.models.svdp.config import MOVED, SVDPConfig
from durian_jax.pytorch.codecs import resized
from durian_jax.pytorch.pipeline import Pipeline
from durian_jax.pytorch.svdp.conditions import Branch, Part, References, attribute_parts
from durian_jax.pytorch.svdp.model import SVDP
from durian_jax.pytorch.svdp.retouch import Pixels

# Branches of guidance, from the least to the most conditioned: u, s, d, p of the paper.
_SOURCE, _DRIVING, _HISTORY = 1, 2, 3


class SVDPPipeline(Pipeline):
    """An exported SVDP, ready to reenact."""

    model: SVDP

    @staticmethod
    def make_model(config: SVDPConfig) -> SVDP:
        """Build the networks."""
        return SVDP(config)

    @property
    def denoiser(self) -> nn.Module:
        """The transformer."""
        return self.model.transformer

    def compile(self) -> "SVDPPipeline":
        """Compile the transformer's blocks (torch.compile, block by block: the first step takes a minute or two)."""
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
        for block in (*self.model.transformer.transformer_blocks, *self.model.transformer.video_blocks):
            block.compile(dynamic=False)
        return self

    def encode(self, pictures: np.ndarray) -> torch.Tensor:
        """Pictures (..., H, W, 3) in [-1, 1] -> latents (..., c, h, w), `decode_chunk` at a time."""
        images = self.to_tensor(pictures.reshape(-1, *pictures.shape[-3:]))
        with self.at_work(self.model.vae):
            latents = torch.cat([self.model.encode(part) for part in images.split(self.decode_chunk)])
        return latents.unflatten(0, pictures.shape[:-3])

    def masked(self, pictures: np.ndarray, masks: np.ndarray, visible: np.ndarray | None = None
               ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode masked pictures.

        Args:
            pictures: (..., H, W, 3) in [-1, 1].
            masks: (..., H, W, 1).
            visible: (..., H, W, 1) factor of the pictures; None: the masks.

        Returns:
            Their latents (..., c, h, w) and masks (..., 1, h, w), the latter in float32.
        """
        side = self.config.latent_size
        if not pictures.size:
            lead = pictures.shape[:-3]
            empty = lambda channels: torch.zeros(*lead, channels, side, side, device=self.device)
            return empty(self.config.codec.latent_channels).to(self.dtype), empty(1)
        # On the CPU: which tokens are kept must not depend on the device.
        small = resized(torch.from_numpy(masks.reshape(-1, *masks.shape[-3:])).movedim(-1, -3), side, "bilinear")
        return (self.encode(pictures * (masks if visible is None else visible)),
                small.unflatten(0, masks.shape[:-3]).to(self.device))

    @torch.inference_mode()
    def references(self, batch: Mapping[str, np.ndarray]) -> References:
        """Compute what all segments of a video share.

        Args:
            batch: portrait, portrait_mask, attributes and attribute_masks.
        """
        self.warn_if_slow()
        batch = {name: np.asarray(x, np.float32) for name, x in batch.items()}
        source = self.masked(batch["portrait"], batch["portrait_mask"], 1 - batch["portrait_mask"])
        attributes = self.masked(batch["attributes"], batch["attribute_masks"])
        with self.at_work(self.model.transformer):
            found = self.model.references(*source, *attributes)
        if self.config.retouches:
            known = 1 - batch["portrait_mask"]
            found.picture, found.known = (self.to_tensor(x, torch.float32) for x in (batch["portrait"] * known, known))
        return found

    def condition(self, batch: Mapping[str, np.ndarray], references: References, branches: Sequence[int]
                  ) -> list[Branch]:
        """See `Pipeline.condition`. Only what these branches see is computed."""
        model, weights = self.model, batch.get("attribute_weights")
        source, driver, history, frames_seen, under, features, pixels = [], [], None, None, [], None, None
        if max(branches) >= _SOURCE:
            source = [Part(references.source),
                      *attribute_parts(references.attributes, batch["attribute_valid"] > 0, weights)]
        if max(branches) >= _DRIVING:
            regions = self.masked(batch["driving_regions"], batch["driving_masks"])
            driver = [Part(model.driving(*regions))]
            if self.config.aligned_pictures:
                under = [*(self.masked(batch[name], batch[f"{name}_masks"]) for name in MOVED), regions]
            if self.config.has_stem:
                features, pixels = self._pixels(batch, references)
        if max(branches) >= _HISTORY and (batch["history_valid"] > 0).any():
            latents = self.to_tensor(batch["history_latents"]) if "history_latents" in batch \
                else self.encode(batch["history"])
            history, valid = model.history(latents), batch["history_valid"] > 0
            if not valid.all():
                frames = batch["driving_regions"].shape[1]
                frames_seen = np.repeat(np.stack([np.ones_like(valid), valid], 1), (frames, latents.shape[1]), 1)
        parts = [[], source, [*source, *driver], [*source, *driver]]
        frames = batch["driving_regions"].shape[1]
        return [model.branch(
            parts[i], weights if i >= _SOURCE else None, *((history, frames_seen) if i == _HISTORY else (None, None)),
            model.aligned(frames, references if i >= _SOURCE else None,
                          *((under, features) if i >= _DRIVING else ([], None))), pixels if i >= _DRIVING else None)
                for i in branches]

    def _pixels(self, batch: Mapping[str, np.ndarray], references: References) -> tuple[torch.Tensor, Pixels | None]:
        """The stem's coarse features (B, F, C, h, w), and by what decoded frames are retouched."""
        moved, masks = ([self.to_tensor(x, torch.float32) for x in found] for found in (
            [batch[name] * batch[f"{name}_masks"] for name in MOVED], [batch[f"{name}_masks"] for name in MOVED]))
        driven = self.to_tensor(batch["driving_regions"] * batch["driving_masks"])
        fine, coarse = self.model.transformer.stem(torch.cat([*(x.to(self.dtype) for x in moved), driven], 2))
        if not self.config.retouches:
            return coarse, None
        whole = lambda x, like: x[:, None].expand(*like.shape[:2], -1, -1, -1)
        return coarse, Pixels(torch.stack([whole(references.picture, moved[0]), *moved], 2),
                              torch.stack([whole(references.known, masks[0]), *masks], 2), fine)

    def finished(self, frames: torch.Tensor, condition: list[Branch]) -> torch.Tensor:
        """See `Pipeline.finished`."""
        pixels = condition[-1].pixels
        if pixels is None:
            return frames
        with self.at_work(self.model.transformer):
            return self.model.transformer.retouch(frames, pixels)

    def predict(self, z: torch.Tensor, moment: float, condition: list[Branch], *, frames: int, temporal: bool
                ) -> list[torch.Tensor]:
        """See `Pipeline.predict`. Branches see different numbers of tokens and run one after the other."""
        noisy = z.unflatten(0, (-1, frames)).to(self.dtype)
        return [self.model.denoise(noisy, moment, branch, temporal).flatten(0, 1).float() for branch in condition]
