"""Durian: dual-reference portrait animation with attribute transfer (arXiv 2509.04434).

Axis letters: B clips, F frames, A attributes, G = 1 + A reference groups, H x W pixels, h x w latents,
N = h * w tokens, C channels, K keypoints, M blends.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from durian_jax.faces.draw import keypoint_image
from durian_jax.models.attention import KeyValues, ReferenceSet
from durian_jax.models.codec import Codec
from durian_jax.models.config import DurianConfig
from durian_jax.models.keypoint_encoder import KeypointEncoder
from durian_jax.models.layers import merge_frames, split_frames
from durian_jax.models.unet import UNet


def compose(attribute_valid: jax.Array) -> ReferenceSet:
    """The portrait and every valid attribute together, (B, A) -> one selection (paper, "composition")."""
    valid = jnp.pad(attribute_valid > 0, ((0, 0), (1, 0)), constant_values=True)
    return ReferenceSet(valid=valid[:, None], weight=jnp.ones((valid.shape[0], 1)))


def interpolate(attribute_valid: jax.Array, weights: jax.Array) -> ReferenceSet:
    """One selection an attribute, blended by weights (paper, "attribute interpolation").

    Args:
        attribute_valid: (B, A).
        weights: (B, A), summing to 1 over A.
    """
    b, a = attribute_valid.shape
    one_each = jnp.eye(a, dtype=bool)[None] & (attribute_valid > 0)[:, None]
    portrait = jnp.ones((b, a, 1), bool)
    return ReferenceSet(valid=jnp.concatenate([portrait, one_each], -1), weight=weights)


class Durian(nn.Module):
    """DNet, ARNet, PRNet, keypoint encoder and codec. Every method is pure; features go in and out as values."""

    config: DurianConfig

    def setup(self):
        cfg = self.config
        self.codec = Codec(cfg.codec, cfg.dtype)
        self.denoiser = UNet(cfg.unet, cfg.codec.latent_channels, cfg.temporal_heads, cfg.dtype)
        self.attribute_reference = UNet(cfg.unet, None, dtype=cfg.dtype)
        self.portrait_reference = UNet(cfg.unet, None, dtype=cfg.dtype)
        self.keypoint_encoder = KeypointEncoder(cfg.unet.channels[0], cfg.keypoint_channels, cfg.keypoint_patch,
                                                cfg.dtype)

    def _context(self, context: jax.Array | None, clips: int) -> jax.Array | None:
        """The image embedding, or zeros where the networks expect one and none is given."""
        width = self.config.unet.context_dim
        return jnp.zeros((clips, 1, width)) if width is not None and context is None else context

    def encode(self, images: jax.Array) -> jax.Array:
        """Images (..., H, W, 3) in [-1, 1] -> latents (..., h, w, c)."""
        return self.codec.encode(images.astype(self.config.dtype))

    def decode(self, latents: jax.Array) -> jax.Array:
        """Latents (..., h, w, c) -> images (..., H, W, 3) float32, about [-1, 1].

        Not clipped: a loss must see, and correct, what lies beyond.
        """
        return self.codec.decode(latents.astype(self.config.dtype)).astype(jnp.float32)

    def encode_references(self, portrait: jax.Array, portrait_mask: jax.Array, attributes: jax.Array,
                          attribute_masks: jax.Array, portrait_context: jax.Array | None = None,
                          attribute_context: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """Reference features of a clip: F_port and F_attr of every attention site (paper, "Dual ReferenceNet").

        Args:
            portrait: (B, H, W, 3) portrait with the region M_port blanked, I_port * (1 - M_port).
            portrait_mask: (B, H, W, 1) M_port.
            attributes: (B, A, H, W, 3) attribute pixels only, I_attr * M_attr.
            attribute_masks: (B, A, H, W, 1) M_attr.
            portrait_context, attribute_context: (B, L, context_dim) image embeddings phi_port and phi_attr,
                if the networks have cross-attention.

        Returns:
            One (B, 1 + A, N, C) array an attention site: the portrait, then the attributes.
        """
        def run(network, images, masks, context):
            context = self._context(context, images.shape[0])
            masks = merge_frames(masks).astype(self.config.dtype)
            shape = (masks.shape[0], self.config.latent_size, self.config.latent_size, 1)
            masks = split_frames(jax.image.resize(masks, shape, "linear"), images.shape[1])
            latents = jnp.concatenate([jax.lax.stop_gradient(self.encode(images)), masks], -1)
            return network(latents, jnp.zeros(images.shape[:2]), context=context)[1]

        portrait_features = run(self.portrait_reference, portrait[:, None], portrait_mask[:, None], portrait_context)
        attribute_features = run(self.attribute_reference, attributes, attribute_masks, attribute_context)
        return tuple(jnp.concatenate(pair, 1) for pair in zip(portrait_features, attribute_features, strict=True))

    def project_references(self, features: Sequence[jax.Array]) -> tuple[KeyValues, ...]:
        """Keys and values of reference features: computed once a clip, used by every frame and step."""
        return self.denoiser.project_references(features)

    def encode_keypoints(self, keypoints: jax.Array) -> jax.Array:
        """Driving keypoints (B, F, K, 3) -> (B, F, h, w, C_0), to be added to DNet's first features."""
        size = self.config.image_size
        images = keypoint_image(merge_frames(keypoints), size, size, xp=jnp).astype(self.config.dtype)
        return split_frames(self.keypoint_encoder(images), keypoints.shape[1])

    def denoise(self, latents: jax.Array, timesteps: jax.Array, keypoint_features: jax.Array,
                references: Sequence[KeyValues] | None = None, selection: ReferenceSet | None = None,
                context: jax.Array | None = None, temporal: bool = False) -> jax.Array:
        """DNet's prediction.

        Args:
            latents: (B, F, h, w, c) noisy latents.
            timesteps: (B, F) in [0, 1000].
            keypoint_features: from `encode_keypoints`.
            references, selection: from `project_references`, `compose` or `interpolate`. None is the
                unconditional branch: reference attention is not computed at all.
            context: (B, L, context_dim).
            temporal: run the motion modules (stage 2 and inference).

        Returns:
            (B, F, h, w, c) float32 in the parametrisation the model was trained with.
        """
        prediction, _ = self.denoiser(latents.astype(self.config.dtype), timesteps, bias=keypoint_features,
                                      references=references, selection=selection,
                                      context=self._context(context, latents.shape[0]), temporal=temporal)
        return prediction.astype(jnp.float32)

    def __call__(self, frames, keypoints, portrait, portrait_mask, attributes, attribute_masks, attribute_valid):
        """Touch every parameter once, for initialisation; arguments as in the training batch."""
        latents = self.encode(frames)
        self.decode(latents)
        features = self.encode_references(portrait, portrait_mask, attributes, attribute_masks)
        return self.denoise(latents, jnp.zeros(frames.shape[:2]), self.encode_keypoints(keypoints),
                            self.project_references(features), compose(attribute_valid), temporal=True)
