"""The reference images on their way through Durian's networks.

Axis letters: B clips, F frames, A attributes, G reference groups (1 + A), h x w latents, c latent channels,
D width of an embedding, M blends.
"""

import flax.struct
import jax
import jax.numpy as jnp

from durian_jax.models.attention import KeyValues, ReferenceSet


@flax.struct.dataclass
class EncodedReferences:
    """Inputs of the ReferenceNets: latents and embeddings of the reference images, which no training changes.

    Attributes:
        portrait, attributes: latents (B, h, w, c) and (B, A, h, w, c) of the masked images.
        portrait_mask, attribute_masks: (B, h, w, 1) and (B, A, h, w, 1), the masks at the latents' size.
        portrait_embedding: (B, D) phi_port: the identity embedding, or the image encoder's; None: not used.
        attribute_embeddings: (B, A, D) phi_attr; None: not used.
    """

    portrait: jax.Array
    portrait_mask: jax.Array
    attributes: jax.Array
    attribute_masks: jax.Array
    portrait_embedding: jax.Array | None = None
    attribute_embeddings: jax.Array | None = None


@flax.struct.dataclass
class References:
    """What the denoiser attends to, computed once per video and used by every frame and step.

    Attributes:
        sites: of every attention site, what its frames attend to besides themselves; an ablation without
            ReferenceNets keeps the array (B, G, h, w, c') that accompanies every frame.
        context: (B, A, context_dim) embeddings of the attributes; None: not used.
    """

    sites: tuple[KeyValues, ...]
    context: jax.Array | None


@flax.struct.dataclass
class Condition:
    """Everything that the denoiser needs besides noisy latents and time.

    Attributes:
        keypoint_features: (B, F, h, w, C_0), added to DNet's first features.
        references, selection: what frames attend to, and which of it; None: nothing, reference attention is not
            computed at all (the unconditional branch of guidance).
    """

    keypoint_features: jax.Array
    references: References | None = None
    selection: ReferenceSet | None = None

    def keep_references(self, clips: jax.Array) -> "Condition":
        """Hide all references from the clips (B,) that are False (drop-out for guidance)."""
        return self.replace(selection=self.selection.keep(clips))


def selected(attribute_valid: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    """(B, M, A) bool: the attributes of every selection.

    Args:
        attribute_valid: (B, A), 0 for an unused slot.
        weights: None composes: all valid attributes are one selection (paper, "composition"). (B, F, A) interpolates:
            one selection per attribute, to be blended by its weight in every frame (paper, "interpolation"). Weights of
            at least 0 sum to 1 over A. Attributes of negative weight, in all frames, take part in all selections.
    """
    valid = attribute_valid > 0
    if weights is None:
        return valid[:, None]
    return (jnp.eye(valid.shape[1], dtype=bool)[None] | (weights[:, :1] < 0)) & valid[:, None]


def reference_set(chosen: jax.Array, groups: jax.Array, weights: jax.Array | None) -> ReferenceSet:
    """The selection of groups (B, M, G), with the attributes (B, M, A) that take part and their blend weights."""
    weight = jnp.ones((len(chosen), 1, 1)) if weights is None else jnp.maximum(weights, 0)
    return ReferenceSet(valid=groups, weight=weight, attributes=chosen)
