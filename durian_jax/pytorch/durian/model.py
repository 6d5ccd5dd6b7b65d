"""DNet, ARNet, PRNet, keypoint encoder, codec and image encoder in PyTorch; see `models.durian.model`.

Axis letters: B clips, F frames, A attributes, G reference groups (1 + A), I images, H x W pixels, h x w latents,
N = h * w tokens, c latent channels, C channels, D width of an embedding, M selections of references.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from durian_jax.convert import sizes
from durian_jax.convert.families.durian.exporting import check_exportable
from durian_jax.inference.references import blended_selections
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.image_encoder_config import CLIP_MEAN, CLIP_STD
from durian_jax.pytorch.codecs import make_codec, resized
from durian_jax.pytorch.durian.attention import Blend, Site, project_key_value, repeated, split_heads
from durian_jax.pytorch.durian.keypoint_encoder import KeypointEncoder
from durian_jax.pytorch.durian.unet import UNet
from durian_jax.pytorch.networks import Networks


@dataclass
class EncodedReferences:
    """Inputs of the ReferenceNets.

    Attributes:
        inputs: (B, G, c', h, w) latents; with mask_channel, the masks are an additional channel.
        portrait_embedding: (B, D) of the identity network, or of the image encoder; None: not used.
        attribute_embeddings: (B, A, D); None: not used.
    """

    inputs: torch.Tensor
    portrait_embedding: torch.Tensor | None
    attribute_embeddings: torch.Tensor | None


@dataclass
class References:
    """Inputs of the denoiser's attention, computed once per video.

    Attributes:
        key_values: keys and values (B, G, H, N, D) of every attention site.
        context: (B, A, D) embeddings of the attributes; None: not used.
    """

    key_values: list[tuple[torch.Tensor, torch.Tensor]]
    context: torch.Tensor | None


class Durian(Networks):
    """All networks of a model; a submodule is a folder of an export.

    Args:
        config: sizes.

    Raises:
        InputError: a model that only JAX runs.
    """

    def __init__(self, config: DurianConfig):
        super().__init__()
        check_exportable(config)
        self.config, unet, channels = config, config.unet, config.codec.latent_channels
        self.denoising_unet = UNet(unet, channels, channels, config.latent_size, config.temporal_heads,
                                   config.max_frames)
        with_mask = channels + config.mask_channel
        self.portrait_reference = UNet(unet, with_mask, None, config.latent_size)
        self.attribute_reference = UNet(unet, with_mask, None, config.latent_size)
        if not sizes.beyond_diffusers(unet):
            # Files of ReferenceNets fit diffusers' class, which also has the layers after the last site.
            names = {name for name in self.denoising_unet.state_dict() if "motion_modules" not in name}
            for network in (self.portrait_reference, self.attribute_reference):
                network.unused_tensors = frozenset(names - network.state_dict().keys())
        self.keypoint_encoder = KeypointEncoder(unet.channels[0], config.keypoint_channels, config.keypoint_patch)
        self.vae = make_codec(config.codec, config.image_size)
        if config.image_encoder is not None:
            self.image_encoder = CLIPVisionModelWithProjection(
                CLIPVisionConfig(**sizes.image_encoder_json(config.image_encoder)))
        if config.identity_dim is not None:
            self.identity_projection = nn.Linear(config.identity_dim, unet.context_dim)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Return the image encoder's embeddings (I, D) of images (I, 3, H, W) in [-1, 1]."""
        side, like = self.config.image_encoder.image_size, self.image_encoder.visual_projection.weight
        x = resized(images.float(), side, "bicubic") * 0.5 + 0.5
        mean, std = (torch.tensor(values, device=x.device)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
        return self.image_encoder(((x - mean) / std).to(like.dtype)).image_embeds

    def encode_references(self, portrait: torch.Tensor, portrait_mask: torch.Tensor, attributes: torch.Tensor,
                          attribute_masks: torch.Tensor, identity: torch.Tensor | None = None) -> EncodedReferences:
        """Compute the inputs of the ReferenceNets; mask the pictures, unless the config has masked_references=False.

        Args:
            portrait, portrait_mask: (B, 3, H, W) in [-1, 1] and (B, 1, H, W) M_port.
            attributes, attribute_masks: (B, A, 3, H, W) and (B, A, 1, H, W) M_attr.
            identity: (B, identity_dim) of the portrait, if the config has an identity_dim.
        """
        b, a = attributes.shape[:2]
        images = torch.cat([portrait[:, None], attributes], 1).flatten(0, 1)
        masks = torch.cat([portrait_mask[:, None], attribute_masks], 1)
        if self.config.masked_references:
            images = images * torch.cat([1 - masks[:, :1], masks[:, 1:]], 1).flatten(0, 1)
        latents = self.encode(images).unflatten(0, (b, 1 + a))
        inputs = latents
        if self.config.mask_channel:
            small = resized(masks.flatten(0, 1).float(), latents.shape[-1], "bilinear")
            inputs = torch.cat([latents, small.unflatten(0, (b, 1 + a)).to(latents.dtype)], 2)
        embeddings = None
        if self.config.image_encoder is not None:
            embeddings = self.embed(images).unflatten(0, (b, 1 + a))
        of_portrait = None if embeddings is None else embeddings[:, 0]
        if self.config.identity_dim is not None:
            of_portrait = self.identity_projection(identity)
        return EncodedReferences(inputs, of_portrait, None if embeddings is None else embeddings[:, 1:])

    def portrait_features(self, encoded: EncodedReferences) -> tuple[torch.Tensor, ...]:
        """Compute F_port (B, 1, N, C) of every attention site (paper, "Dual ReferenceNet")."""
        features = _features(self.portrait_reference, encoded.inputs[:, 0], encoded.portrait_embedding)
        return tuple(x[:, None] for x in features)

    def attribute_features(self, encoded: EncodedReferences) -> tuple[torch.Tensor, ...]:
        """Compute F_attr (B, A, N, C) of every attention site."""
        inputs, embeddings = encoded.inputs[:, 1:], encoded.attribute_embeddings
        features = _features(self.attribute_reference, inputs.flatten(0, 1),
                             None if embeddings is None else embeddings.flatten(0, 1))
        return tuple(x.unflatten(0, inputs.shape[:2]) for x in features)

    def project_references(self, portrait: Sequence[torch.Tensor], attributes: Sequence[torch.Tensor],
                           context: torch.Tensor | None) -> References:
        """Project `portrait_features` and `attribute_features` to the denoiser's keys and values.

        Args:
            context: (B, A, D) embeddings of the attributes; None: not used.
        """
        blocks = self.denoising_unet.sites()
        key_values = [project_key_value(block.attn1, torch.cat([x, y], 1))
                      for block, x, y in zip(blocks, portrait, attributes, strict=True)]
        return References(key_values, context)

    def select(self, references: References, valid: np.ndarray, weights: np.ndarray | None = None) -> list[Site]:
        """Return the inputs of each attention site for the attributes in use.

        Args:
            references: from `project_references`.
            valid: (B, A), 0 for an unused slot.
            weights: (B, F, A) interpolate: one selection per attribute, blended in every frame. Those of at least 0 sum
                to 1 over A; attributes of negative weight are in all selections. None: compose all attributes in one
                selection.
        """
        valid = valid > 0
        b, a = valid.shape
        chosen = valid[:, None] if weights is None else blended_selections(valid, weights)     # B M A
        groups = np.concatenate([np.ones((*chosen.shape[:2], 1), bool), chosen], -1)
        place = lambda x, like: torch.from_numpy(np.ascontiguousarray(x)).to(like.device)
        example = references.key_values[0][0]
        share = lambda m: place(np.maximum(weights[..., m].reshape(-1, 1, 1), 0), example).to(example.dtype)
        shares = [None if weights is None else share(m)
                  for m in range(chosen.shape[1])]

        def blend(key, value, taking_part, share):
            """(B, G, H, N, D) -> (B, H, S, D) of the groups that any clip uses."""
            kept = taking_part.any(0)
            seen = taking_part[:, kept]
            index = place(np.flatnonzero(kept), key)
            key, value = (x[:, index].transpose(1, 2).flatten(2, 3) for x in (key, value))
            mask = None if seen.all() else place(np.repeat(seen, key.shape[2] // seen.shape[1], 1)[:, None], key)
            return Blend(key.contiguous(), value.contiguous(), mask, share)

        sites = []
        for block, (key, value) in zip(self.denoising_unet.sites(), references.key_values, strict=True):
            spatial = tuple(blend(key, value, groups[:, m], share) for m, share in enumerate(shares))
            cross = None
            if references.context is not None:
                cross = self._cross(block.attn2, references.context * place(chosen.any(1)[..., None], key), chosen,
                                    shares, place)
            sites.append(Site(spatial, cross))
        return sites

    def _cross(self, attn, context: torch.Tensor, chosen: np.ndarray, shares: list, place):
        """Return `Site.cross`."""
        seen = chosen | ~chosen.any(-1, keepdims=True)                                                    # B M A
        value = attn.to_v(context)
        if (seen.sum(-1) == 1).all():
            single = [(value * place(seen[:, m, :, None], value)).sum(1, keepdim=True) for m in range(len(shares))]
            return attn.to_out[0](sum(x if share is None else repeated(x, len(share)) * share
                                      for x, share in zip(single, shares, strict=True)))
        key, value = split_heads(attn.to_k(context), attn.heads), split_heads(value, attn.heads)
        return tuple(Blend(key, value, None if seen[:, m].all() else place(seen[:, m, None], key), share)
                     for m, share in enumerate(shares))


def _features(network: UNet, x: torch.Tensor, embeddings: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    """Return a ReferenceNet's features (I, N, C) of every site, for images (I, c', h, w) and embeddings (I, D)."""
    sites = None
    if embeddings is not None:  # attention to one embedding returns its value
        attentions = [block.attn2 for block in network.sites()[:-1]]
        sites = [Site(cross=attn.to_out[0](attn.to_v(embeddings))[:, None]) for attn in attentions]
    return network(x, torch.zeros(len(x), device=x.device), sites=sites)
