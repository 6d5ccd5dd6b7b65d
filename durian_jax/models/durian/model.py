"""Durian: dual-reference portrait animation with attribute transfer (arXiv 2509.04434).

Axis letters: B clips, F frames, A attributes, G reference groups (1 + A), H x W pixels, h x w latents,
N = h * w tokens, c latent channels, C channels, D width of an embedding, K keypoints.
"""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from durian_jax.faces.draw import keypoint_image
from durian_jax.models.attention import AttentionMethod, ReferenceSet
from durian_jax.models.attention.kept_tokens import KeptTokens, keep_tokens
from durian_jax.models.codecs.latent_model import LatentModel
from durian_jax.models.codecs.make import make_codec
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.durian.keypoint_encoder import KeypointEncoder
from durian_jax.models.durian.references import Condition, EncodedReferences, References, reference_set, selected
from durian_jax.models.image_encoder import ImageEncoder
from durian_jax.models.layers import dense, merge_frames, split_frames
from durian_jax.models.unet.unet import UNet


class Durian(LatentModel):
    """DNet, ARNet, PRNet, keypoint encoder, codec and image encoder.

    Every method is pure; features go in and out as values. The paper's ablations are subclasses (`durian.ablations`).

    Attributes:
        config: sizes.
        remat: what the backward pass recomputes, see `layers.REMAT_POLICIES`.
        attention: how attention in space is computed.
    """

    config: DurianConfig
    remat: str = "none"
    attention: AttentionMethod = AttentionMethod()

    def setup(self):
        cfg = self.config
        self.codec = make_codec(cfg.codec, cfg.dtype)
        self.denoiser = self.make_denoiser()
        self.make_reference_networks()
        self.keypoint_encoder = KeypointEncoder(cfg.unet.channels[0], cfg.keypoint_channels, cfg.keypoint_patch,
                                                cfg.dtype)
        if cfg.image_encoder is not None:
            self.image_encoder = ImageEncoder(cfg.image_encoder, cfg.dtype)
        if cfg.identity_dim is not None:
            self.identity_projection = dense(cfg.unet.context_dim, dtype=cfg.dtype)

    @nn.nowrap
    def make_denoiser(self) -> UNet:
        """DNet."""
        cfg = self.config
        return UNet(cfg.unet, cfg.codec.latent_channels, cfg.temporal_heads, cfg.dtype, self.remat, self.attention)

    @nn.nowrap
    def make_reference_networks(self) -> None:
        """ARNet and PRNet: U-Nets of DNet's shape with separate weights."""
        self.attribute_reference, self.portrait_reference = self.reference_network(), self.reference_network()

    @nn.nowrap
    def reference_network(self) -> UNet:
        """A ReferenceNet."""
        return UNet(self.config.unet, None, dtype=self.config.dtype, remat=self.remat, attention=self.attention)

    # --- pictures, latents, embeddings ----------------------------------------------------------------

    def embed(self, images: jax.Array) -> jax.Array:
        """Images (..., H, W, 3) in [-1, 1] -> the image encoder's embeddings (..., context_dim)."""
        x = self.image_encoder.embed(images.reshape(-1, *images.shape[-3:]))
        return x.reshape(*images.shape[:-3], x.shape[-1])

    def probe(self, images: jax.Array) -> dict[str, jax.Array]:
        """Name -> output of every encoding network for images (M, H, W, 3) in [-1, 1]."""
        outputs = {"latents": self.encode(images)}
        return outputs if self.config.image_encoder is None else {**outputs, "embeddings": self.embed(images)}

    # --- references -----------------------------------------------------------------------------------

    def encode_references(self, portrait: jax.Array, portrait_mask: jax.Array, attributes: jax.Array,
                          attribute_masks: jax.Array, identity: jax.Array | None = None) -> EncodedReferences:
        """Latents and embeddings of the reference images. Nothing here is trained.

        The portrait is masked here, I_port * (1 - M_port), and so are the attributes, I_attr * M_attr, unless the
        config has masked_references=False.

        Args:
            portrait: (B, H, W, 3).
            portrait_mask: (B, H, W, 1) M_port.
            attributes: (B, A, H, W, 3).
            attribute_masks: (B, A, H, W, 1) M_attr.
            identity: (B, identity_dim) of the portrait, if the config has an identity_dim.
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

    def encoded_references(self, batch: Mapping[str, jax.Array]) -> EncodedReferences:
        """The encoded references of a batch of pictures, or of a batch of encoded samples."""
        if "portrait_latents" in batch:
            return EncodedReferences(
                batch["portrait_latents"], batch["portrait_mask"], batch["attribute_latents"],
                batch["attribute_masks"], batch.get("portrait_embedding"), batch.get("attribute_embeddings"))
        return self.encode_references(batch["portrait"], batch["portrait_mask"], batch["attributes"],
                                      batch["attribute_masks"], batch.get("identity"))

    def encode_batch(self, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """A batch of pictures -> the fields of an encoded batch (`DurianConfig.batch_spec`)."""
        latents = self.encode(batch["frames"])
        encoded = self.encoded_references(batch)
        fields = {"frame_latents": latents, "portrait_latents": encoded.portrait,
                  "attribute_latents": encoded.attributes, "portrait_embedding": encoded.portrait_embedding,
                  "attribute_embeddings": encoded.attribute_embeddings,
                  "frame_masks": jax.image.resize(batch["frame_masks"], (*latents.shape[:-1], 1), "linear"),
                  "portrait_mask": encoded.portrait_mask, "attribute_masks": encoded.attribute_masks,
                  "keypoints": batch["keypoints"], "attribute_valid": batch["attribute_valid"]}
        return {name: x for name, x in fields.items() if x is not None}

    def reference_inputs(self, encoded: EncodedReferences) -> tuple[jax.Array, jax.Array]:
        """Inputs of PRNet (B, 1, h, w, c + 1) and ARNet (B, A, h, w, c + 1): latents with the mask as a channel."""
        def inputs(latents, masks):
            parts = [latents.astype(self.config.dtype), masks.astype(self.config.dtype)]
            return jnp.concatenate(parts if self.config.mask_channel else parts[:1], -1)

        return (inputs(encoded.portrait, encoded.portrait_mask)[:, None],
                inputs(encoded.attributes, encoded.attribute_masks))

    def run_reference_network(self, network: UNet, x: jax.Array, embeddings: jax.Array | None) -> list[jax.Array]:
        """A ReferenceNet's features (B, G, N, C) of every attention site, for inputs (B, G, h, w, c')."""
        # Every image attends to its own embedding, so the network sees images as clips of one frame.
        b, g = x.shape[:2]
        context = None if embeddings is None else merge_frames(embeddings)[:, None]
        features = network(merge_frames(x)[:, None], jnp.zeros((b * g, 1)), context=self._context(context, b * g))[1]
        return [split_frames(f[:, 0], g) for f in features]

    def reference_features(self, encoded: EncodedReferences) -> tuple[jax.Array, ...]:
        """F_port and F_attr of every attention site (paper, "Dual ReferenceNet").

        Returns:
            One (B, G, N, C) array per attention site: the portrait, then the attributes.
        """
        portrait, attributes = self.reference_inputs(encoded)
        identity = encoded.portrait_embedding
        if self.config.identity_dim is not None:
            identity = self.identity_projection(identity)
        portrait_features = self.run_reference_network(self.portrait_reference, portrait,
                                                       None if identity is None else identity[:, None])
        attribute_features = self.run_reference_network(self.attribute_reference, attributes,
                                                        encoded.attribute_embeddings)
        return tuple(jnp.concatenate(pair, 1) for pair in zip(portrait_features, attribute_features, strict=True))

    def project_references(self, encoded: EncodedReferences) -> References:
        """Project the reference features to the denoiser's keys and values."""
        features = self.reference_features(encoded)
        kept = self.kept_tokens(encoded, [x.shape[2] for x in features])
        return References(self.denoiser.project_references(features, kept), encoded.attribute_embeddings)

    def kept_tokens(self, encoded: EncodedReferences, tokens: Sequence[int]) -> tuple[KeptTokens, ...] | None:
        """The reference tokens that frames attend to; None: all.

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

    def select(self, attribute_valid: jax.Array, weights: jax.Array | None = None) -> ReferenceSet:
        """Which references a clip's frames attend to: the portrait, and the attributes of `references.selected`."""
        chosen = selected(attribute_valid, weights)
        portrait = jnp.ones((*chosen.shape[:2], 1), bool)
        return reference_set(chosen, jnp.concatenate([portrait, chosen], -1), weights)

    # --- conditions and denoising ---------------------------------------------------------------------

    def encode_keypoints(self, keypoints: jax.Array) -> jax.Array:
        """Driving keypoints (B, F, K, 3) -> (B, F, h, w, C_0), to be added to DNet's first features."""
        size = self.config.image_size
        images = keypoint_image(merge_frames(keypoints), size, size, xp=jnp).astype(self.config.dtype)
        return split_frames(self.keypoint_encoder(images), keypoints.shape[1])

    def references(self, batch: Mapping[str, jax.Array]) -> References:
        """What all clips of a video attend to."""
        return self.project_references(self.encoded_references(batch))

    def condition(self, batch: Mapping[str, jax.Array], references: References | None = None) -> Condition:
        """All that `denoise` needs besides latents and time; `references` None: computed here."""
        keypoint_features = self.encode_keypoints(batch["keypoints"])
        references = self.references(batch) if references is None else references
        return Condition(keypoint_features, references,
                         self.select(batch["attribute_valid"], batch.get("attribute_weights")))

    def branches(self, condition: Condition) -> tuple[Condition, Condition]:
        """The two conditions of classifier-free guidance: without and with references."""
        return condition.replace(references=None, selection=None), condition

    def denoise(self, latents: jax.Array, timesteps: jax.Array, condition: Condition, temporal: bool = False
                ) -> jax.Array:
        """DNet's prediction.

        Args:
            latents: (B, F, h, w, c) noisy latents.
            timesteps: (B, F) in [0, 1000].
            condition: from `condition` or `branches`.
            temporal: run the motion modules (stage 2 and inference).

        Returns:
            (B, F, h, w, c) float32 in the parametrisation that the model was trained with.
        """
        references, selection, context, sites = condition.references, condition.selection, None, None
        if references is not None:
            sites = references.sites
            if references.context is not None:
                # Attributes that take no part are 0, see `attention.embedding_attention`.
                context = references.context * selection.attributes.any(1)[..., None]
        prediction, _ = self.denoiser(
            latents.astype(self.config.dtype), timesteps, bias=condition.keypoint_features, references=sites,
            selection=selection, context=self._context(context, latents.shape[0]), temporal=temporal)
        return prediction.astype(jnp.float32)

    def _context(self, context: jax.Array | None, clips: int) -> jax.Array | None:
        """The embeddings (B, A, context_dim); zeros if the networks have cross-attention and no embedding is given."""
        width = self.config.unet.context_dim
        return jnp.zeros((clips, 1, width)) if width is not None and context is None else context

    def __call__(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        """Run every network once on a training batch, for initialisation."""
        latents = self.encode(batch["frames"])
        self.decode(latents)
        return self.denoise(latents, jnp.zeros(latents.shape[:2]), self.condition(batch), temporal=True)
