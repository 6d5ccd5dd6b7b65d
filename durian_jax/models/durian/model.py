"""Durian: dual-reference portrait animation with attribute transfer (arXiv 2509.04434).

Axis letters: B clips, F frames, A attributes, G reference groups (1 + A), H x W pixels, h x w latents,
N = h * w tokens, C channels, D width of an embedding, K keypoints, M blends.
"""

from collections.abc import Sequence

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from durian_jax.errors import InputError
from durian_jax.faces.draw import keypoint_image
from durian_jax.models.attention import KeyValues, ReferenceSet
from durian_jax.models.codecs.autoencoder_kl import AutoencoderKL
from durian_jax.models.codecs.autoencoder_tiny import AutoencoderTiny
from durian_jax.models.codecs.config import AutoencoderKLConfig, AutoencoderTinyConfig, CodecConfig
from durian_jax.models.codecs.small import Codec
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.durian.keypoint_encoder import KeypointEncoder
from durian_jax.models.durian.pruning import KeptTokens, keep_tokens
from durian_jax.models.image_encoder import ImageEncoder
from durian_jax.models.layers import dense, merge_frames, split_frames
from durian_jax.models.unet.unet import UNet

CODEC_CLASSES = {CodecConfig: Codec, AutoencoderKLConfig: AutoencoderKL, AutoencoderTinyConfig: AutoencoderTiny}


@flax.struct.dataclass
class EncodedReferences:
    """What the networks take of the reference images: all that can be computed before training.

    Attributes:
        portrait, attributes: latents (B, h, w, c) and (B, A, h, w, c) of the masked images.
        portrait_mask, attribute_masks: (B, h, w, 1) and (B, A, h, w, 1), the masks at the latents' size.
        portrait_embedding: (B, D) phi_port: identity embedding, or the image encoder's; None: there is none.
        attribute_embeddings: (B, A, D) phi_attr; None: there is none.
    """

    portrait: jax.Array
    portrait_mask: jax.Array
    attributes: jax.Array
    attribute_masks: jax.Array
    portrait_embedding: jax.Array | None = None
    attribute_embeddings: jax.Array | None = None


@flax.struct.dataclass
class References:
    """What the denoiser attends to, computed once a clip and used by every frame and step.

    Attributes:
        key_values: of every attention site; None in reference_mode "tokens".
        latents: (B, G, h, w, c') that accompany every frame in reference_mode "tokens"; else None.
        context: (B, A, context_dim) embeddings of the attributes; None: there are none.
    """

    key_values: tuple[KeyValues, ...] | None
    latents: jax.Array | None
    context: jax.Array | None


def select_references(config: DurianConfig, attribute_valid: jax.Array, weights: jax.Array | None = None
                      ) -> ReferenceSet:
    """Which references a clip's frames attend to.

    Args:
        attribute_valid: (B, A), 0 for an unused slot.
        weights: None composes: the portrait and every valid attribute together (paper, "composition"). (B, A)
            summing to 1 over A interpolates: one selection an attribute, blended (paper, "interpolation").

    Raises:
        InputError: interpolation in reference_mode "tokens", which has no attention to blend.
    """
    if weights is not None and config.reference_mode == "tokens":
        raise InputError('interpolation blends attentions to references, and reference_mode "tokens" has none; leave '
                         'interpolate out or use another checkpoint')
    valid = attribute_valid > 0
    b, a = valid.shape
    chosen = valid[:, None] if weights is None else jnp.eye(a, dtype=bool)[None] & valid[:, None]   # B M A
    if config.reference_mode == "single":
        # A group is the portrait with one attribute; without any valid one, the portrait with an empty slot.
        first = jnp.arange(a) == 0
        groups = chosen | (first & ~chosen.any(-1, keepdims=True))
    else:
        groups = jnp.concatenate([jnp.ones((*chosen.shape[:2], 1), bool), chosen], -1)
    return ReferenceSet(valid=groups, weight=jnp.ones((b, 1)) if weights is None else weights, attributes=chosen)


def drop_references(selection: ReferenceSet, keep: jax.Array) -> ReferenceSet:
    """The selection where `keep` (B,) is True; nothing at all elsewhere (for classifier-free guidance)."""
    keep = keep[:, None, None]
    return selection.replace(valid=selection.valid & keep, attributes=selection.attributes & keep)


class Durian(nn.Module):
    """DNet, ARNet, PRNet, keypoint encoder, codec and image encoder.

    Every method is pure; features go in and out as values.

    Attributes:
        config: sizes.
        remat: what the backward pass recomputes, see `unet.REMAT_POLICIES`.
        attention: how attention in space is computed, see `attention.IMPLEMENTATIONS`.
    """

    config: DurianConfig
    remat: str = "none"
    attention: str = "xla"

    def setup(self):
        cfg = self.config
        self.codec = CODEC_CLASSES[type(cfg.codec)](cfg.codec, cfg.dtype)
        self.denoiser = UNet(cfg.unet, cfg.codec.latent_channels, cfg.temporal_heads, cfg.dtype, self.remat,
                             self.attention)
        reference = lambda: UNet(cfg.unet, None, dtype=cfg.dtype, remat=self.remat, attention=self.attention)
        if cfg.reference_mode == "dual":
            self.attribute_reference, self.portrait_reference = reference(), reference()
        elif cfg.reference_mode == "single":
            self.reference = reference()
        self.keypoint_encoder = KeypointEncoder(cfg.unet.channels[0], cfg.keypoint_channels, cfg.keypoint_patch,
                                                cfg.dtype)
        if cfg.image_encoder is not None:
            self.image_encoder = ImageEncoder(cfg.image_encoder, cfg.dtype)
        if cfg.identity_dim is not None:
            self.identity_projection = dense(cfg.unet.context_dim, dtype=cfg.dtype)

    def _context(self, context: jax.Array | None, clips: int) -> jax.Array | None:
        """The embeddings (B, A, context_dim), or zeros where the networks expect some and none are given."""
        width = self.config.unet.context_dim
        return jnp.zeros((clips, 1, width)) if width is not None and context is None else context

    def encode(self, images: jax.Array) -> jax.Array:
        """Images (..., H, W, 3) in [-1, 1] -> latents (..., h, w, c)."""
        x = self.codec.encode(images.reshape(-1, *images.shape[-3:]).astype(self.config.dtype))
        return x.reshape(*images.shape[:-3], *x.shape[1:])

    def decode(self, latents: jax.Array) -> jax.Array:
        """Latents (..., h, w, c) -> images (..., H, W, 3) float32, about [-1, 1].

        Not clipped: a loss must see, and correct, what lies beyond.
        """
        x = self.codec.decode(latents.reshape(-1, *latents.shape[-3:]).astype(self.config.dtype))
        return x.reshape(*latents.shape[:-3], *x.shape[1:]).astype(jnp.float32)

    def embed(self, images: jax.Array) -> jax.Array:
        """Images (..., H, W, 3) in [-1, 1] -> the image encoder's embeddings (..., context_dim)."""
        x = self.image_encoder.embed(images.reshape(-1, *images.shape[-3:]))
        return x.reshape(*images.shape[:-3], x.shape[-1])

    def encode_references(self, portrait: jax.Array, portrait_mask: jax.Array, attributes: jax.Array,
                          attribute_masks: jax.Array, identity: jax.Array | None = None) -> EncodedReferences:
        """Latents and embeddings of the reference images; nothing here is trained.

        Args:
            portrait: (B, H, W, 3) portrait; the region M_port is blanked here, I_port * (1 - M_port), unless the
                config has masked_references=False.
            portrait_mask: (B, H, W, 1) M_port.
            attributes: (B, A, H, W, 3); all but the attribute is blanked here, I_attr * M_attr.
            attribute_masks: (B, A, H, W, 1) M_attr.
            identity: (B, identity_dim) of the portrait, if the config has such.
        """
        cfg = self.config
        images = jnp.concatenate([portrait[:, None], attributes], 1)
        masks = jnp.concatenate([portrait_mask[:, None], attribute_masks], 1)
        if cfg.masked_references:
            seen = jnp.concatenate([1 - masks[:, :1], masks[:, 1:]], 1)
            images *= seen
        latents = jax.lax.stop_gradient(self.encode(images))
        small = jax.image.resize(masks, (*latents.shape[:-1], 1), "linear")
        embeddings = None
        if cfg.image_encoder is not None:
            embeddings = jax.lax.stop_gradient(self.embed(images))
        return EncodedReferences(
            portrait=latents[:, 0], portrait_mask=small[:, 0], attributes=latents[:, 1:], attribute_masks=small[:, 1:],
            portrait_embedding=identity if cfg.identity_dim is not None
            else None if embeddings is None else embeddings[:, 0],
            attribute_embeddings=None if embeddings is None else embeddings[:, 1:])

    def references_of(self, batch: dict[str, jax.Array]) -> EncodedReferences:
        """The encoded references of a batch of pictures, or those that a batch of encoded samples brings."""
        if "portrait_latents" in batch:
            return EncodedReferences(
                batch["portrait_latents"], batch["portrait_mask"], batch["attribute_latents"],
                batch["attribute_masks"], batch.get("portrait_embedding"), batch.get("attribute_embeddings"))
        return self.encode_references(batch["portrait"], batch["portrait_mask"], batch["attributes"],
                                      batch["attribute_masks"], batch.get("identity"))

    def reference_features(self, encoded: EncodedReferences) -> tuple[jax.Array, ...]:
        """F_port and F_attr of every attention site (paper, "Dual ReferenceNet").

        Returns:
            One (B, G, N, C) array an attention site: the portrait, then the attributes. With a single
            ReferenceNet: one group an attribute. In reference_mode "tokens": one array, what accompanies a frame.
        """
        cfg = self.config

        def inputs(latents, masks):
            parts = [latents.astype(cfg.dtype), masks.astype(cfg.dtype)]
            return jnp.concatenate(parts if cfg.mask_channel else parts[:1], -1)

        def run(network, x, embeddings):
            # Every image has an embedding of its own, so that images are clips here.
            b, g = x.shape[:2]
            context = None if embeddings is None else merge_frames(embeddings)[:, None]
            features = network(merge_frames(x)[:, None], jnp.zeros((b * g, 1)),
                               context=self._context(context, b * g))[1]
            return [split_frames(f[:, 0], g) for f in features]

        portrait = inputs(encoded.portrait, encoded.portrait_mask)[:, None]
        attributes = inputs(encoded.attributes, encoded.attribute_masks)
        if cfg.reference_mode == "tokens":
            return (jnp.concatenate([portrait, attributes], 1),)
        if cfg.reference_mode == "single":
            both = jnp.concatenate([jnp.broadcast_to(portrait, attributes.shape), attributes], -1)
            return tuple(run(self.reference, both, encoded.attribute_embeddings))
        identity = encoded.portrait_embedding
        if cfg.identity_dim is not None:
            identity = self.identity_projection(identity)
        portrait_features = run(self.portrait_reference, portrait, None if identity is None else identity[:, None])
        attribute_features = run(self.attribute_reference, attributes, encoded.attribute_embeddings)
        return tuple(jnp.concatenate(pair, 1) for pair in zip(portrait_features, attribute_features, strict=True))

    def project_references(self, encoded: EncodedReferences) -> References:
        """What the denoiser attends to: keys and values of the reference features, and embeddings."""
        features = self.reference_features(encoded)
        if self.config.reference_mode == "tokens":
            return References(None, features[0], encoded.attribute_embeddings)
        kept = self.kept_tokens(encoded, [x.shape[2] for x in features])
        return References(self.denoiser.project_references(features, kept), None, encoded.attribute_embeddings)

    def kept_tokens(self, encoded: EncodedReferences, tokens: Sequence[int]) -> tuple[KeptTokens, ...] | None:
        """Which tokens of the references are attended to; None: all.

        Args:
            tokens: N of every attention site.
        """
        cfg = self.config
        if cfg.portrait_capacity == cfg.attribute_capacity == 1:
            return None
        relevance = jnp.concatenate([1 - encoded.portrait_mask[:, None], encoded.attribute_masks], 1)[..., 0]
        capacities = (cfg.portrait_capacity, *[cfg.attribute_capacity] * (relevance.shape[1] - 1))
        kept = {n: keep_tokens(relevance, n, capacities) for n in dict.fromkeys(tokens)}
        return tuple(kept[n] for n in tokens)

    def encode_keypoints(self, keypoints: jax.Array) -> jax.Array:
        """Driving keypoints (B, F, K, 3) -> (B, F, h, w, C_0), to be added to DNet's first features."""
        size = self.config.image_size
        images = keypoint_image(merge_frames(keypoints), size, size, xp=jnp).astype(self.config.dtype)
        return split_frames(self.keypoint_encoder(images), keypoints.shape[1])

    def denoise(self, latents: jax.Array, timesteps: jax.Array, keypoint_features: jax.Array,
                references: References | None = None, selection: ReferenceSet | None = None,
                temporal: bool = False) -> jax.Array:
        """DNet's prediction.

        Args:
            latents: (B, F, h, w, c) noisy latents.
            timesteps: (B, F) in [0, 1000].
            keypoint_features: from `encode_keypoints`.
            references, selection: from `project_references` and `select_references`. None is the unconditional
                branch: reference attention is not computed at all.
            temporal: run the motion modules (stage 2 and inference).

        Returns:
            (B, F, h, w, c) float32 in the parametrisation the model was trained with.
        """
        x, context, companions = latents.astype(self.config.dtype), None, None
        group = 1
        if references is not None and references.context is not None:
            # Those that do not take part are 0, see `attention.embedding_attention`.
            context = references.context * selection.attributes.any(1)[..., None]
        if self.config.reference_mode == "tokens":
            if self.config.mask_channel:
                x = jnp.pad(x, ((0, 0),) * 4 + ((0, 1),))
            if references is not None:
                companions = jnp.pad(selection.valid[:, 0], ((0, 0), (1, 0)), constant_values=True)
                group = companions.shape[1]
                x = _accompany(x, references.latents)
                timesteps = _accompany(timesteps, jnp.zeros((x.shape[0], group - 1)))
                keypoint_features = _accompany(keypoint_features, jnp.zeros(
                    (x.shape[0], group - 1, *keypoint_features.shape[2:]), keypoint_features.dtype))
        prediction, _ = self.denoiser(
            x, timesteps, bias=keypoint_features, selection=None if references is None else selection,
            references=None if references is None else references.key_values,
            context=self._context(context, latents.shape[0]), companions=companions, temporal=temporal)
        return prediction[:, ::group].astype(jnp.float32)

    def __call__(self, frames, keypoints, portrait, portrait_mask, attributes, attribute_masks, attribute_valid,
                 identity=None):
        """Touch every parameter once, for initialisation; arguments as in the training batch."""
        latents = self.encode(frames)
        self.decode(latents)
        encoded = self.encode_references(portrait, portrait_mask, attributes, attribute_masks, identity)
        return self.denoise(latents, jnp.zeros(frames.shape[:2]), self.encode_keypoints(keypoints),
                            self.project_references(encoded), select_references(self.config, attribute_valid),
                            temporal=True)


def _accompany(frames: jax.Array, references: jax.Array) -> jax.Array:
    """(B, F, ...) frames and (B, G, ...) references -> (B, F * (1 + G), ...): every frame, then all references."""
    b, f = frames.shape[:2]
    repeated = jnp.broadcast_to(references[:, None], (b, f, *references.shape[1:]))
    both = jnp.concatenate([frames[:, :, None], repeated], 2)
    return both.reshape(b, -1, *frames.shape[2:])
