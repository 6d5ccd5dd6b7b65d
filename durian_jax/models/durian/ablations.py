"""Other ways for references to reach the denoiser: the paper's ablation "single ReferenceNet", and one of our own.

`DurianConfig.reference_mode` chooses the class. Only the methods that differ from `durian.model` are here.

Axis letters: B clips, F frames, A attributes, G reference groups (1 + A), h x w latents, N tokens, C channels.
"""

from collections.abc import Sequence

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from durian_jax.errors import InputError
from durian_jax.models.attention import AttentionMethod, ReferenceSet, self_attention
from durian_jax.models.durian.model import Durian
from durian_jax.models.durian.references import Condition, EncodedReferences, References, reference_set, selected
from durian_jax.models.unet.unet import UNet


class SingleReference(Durian):
    """One ReferenceNet sees the portrait and an attribute on its channels; a group is one attribute."""

    @nn.nowrap
    def make_reference_networks(self) -> None:
        """The one ReferenceNet."""
        self.reference = self.reference_network()

    def reference_features(self, encoded: EncodedReferences) -> tuple[jax.Array, ...]:
        """One (B, A, N, C) array per attention site."""
        portrait, attributes = self.reference_inputs(encoded)
        both = jnp.concatenate([jnp.broadcast_to(portrait, attributes.shape), attributes], -1)
        return tuple(self.run_reference_network(self.reference, both, encoded.attribute_embeddings))

    def select(self, attribute_valid: jax.Array, weights: jax.Array | None = None) -> ReferenceSet:
        """A group is the portrait with one attribute; without a valid one, the portrait with an empty slot."""
        chosen = selected(attribute_valid, weights)
        first = jnp.arange(chosen.shape[-1]) == 0
        return reference_set(chosen, chosen | (first & ~chosen.any(-1, keepdims=True)), weights)


@flax.struct.dataclass
class Companions:
    """References that accompany every frame as frames of their own.

    Frames come in groups of 1 + G: a frame, then its references. The valid members of a group attend to each other.

    Attributes:
        valid: (B, 1 + G) bool; False hides a member from the others.
    """

    valid: jax.Array

    @property
    def group(self) -> int:
        """1 + G."""
        return self.valid.shape[1]

    def attend(self, query: jax.Array, key: jax.Array, value: jax.Array, selection: ReferenceSet,
               method: AttentionMethod) -> jax.Array:
        """Attend within each group: (B, F * (1 + G), N, H, D) -> the same shape."""
        b, f, n = query.shape[:3]
        valid = jnp.repeat(jnp.repeat(self.valid, n, 1), f // self.group, 0)
        sequences = (x.reshape(b * f // self.group, self.group * n, *x.shape[3:]) for x in (query, key, value))
        return self_attention(*sequences, valid, method).reshape(query.shape)


class TokenUNet(UNet):
    """A denoiser whose references are frames beside every frame."""

    def run_motion(self, motion_module: nn.Module, x: jax.Array, frames: int,
                   references: Sequence[Companions] | None) -> jax.Array:
        """The motion modules see the frames only."""
        if references is None:
            return motion_module(x, frames)
        group = references[0].group
        return x.at[::group].set(motion_module(x[::group], frames // group))


class TokenConcatenation(Durian):
    """No ReferenceNet: the denoiser itself carries the references along, as more tokens of every frame."""

    @nn.nowrap
    def make_denoiser(self) -> TokenUNet:
        """DNet."""
        cfg = self.config
        return TokenUNet(cfg.unet, cfg.codec.latent_channels, cfg.temporal_heads, cfg.dtype, self.remat,
                         self.attention)

    @nn.nowrap
    def make_reference_networks(self) -> None:
        """None."""

    def project_references(self, encoded: EncodedReferences) -> References:
        """`sites` is the array (B, G, h, w, c') that accompanies every frame."""
        return References(jnp.concatenate(self.reference_inputs(encoded), 1), encoded.attribute_embeddings)

    def select(self, attribute_valid: jax.Array, weights: jax.Array | None = None) -> ReferenceSet:
        """As Durian's; composition only.

        Raises:
            InputError: interpolation, which blends attentions to references.
        """
        if weights is not None:
            raise InputError('interpolation blends attentions to references, and reference_mode "tokens" has none; '
                             'leave interpolate out or use another checkpoint')
        return super().select(attribute_valid)

    def denoise(self, latents: jax.Array, timesteps: jax.Array, condition: Condition, temporal: bool = False
                ) -> jax.Array:
        """See `Durian.denoise`."""
        if self.config.mask_channel:
            latents = jnp.pad(latents.astype(self.config.dtype), ((0, 0),) * 4 + ((0, 1),))
        if condition.references is None:
            return super().denoise(latents, timesteps, condition, temporal)
        references, selection, bias = condition.references, condition.selection, condition.keypoint_features
        companions = Companions(jnp.pad(selection.valid[:, 0], ((0, 0), (1, 0)), constant_values=True))
        b, g = len(latents), companions.group - 1
        condition = condition.replace(
            keypoint_features=accompany(bias, jnp.zeros((b, g, *bias.shape[2:]), bias.dtype)),
            references=references.replace(sites=[companions] * self.denoiser.site_count))
        prediction = super().denoise(accompany(latents.astype(self.config.dtype), references.sites),
                                     accompany(timesteps, jnp.zeros((b, g))), condition, temporal)
        return prediction[:, ::companions.group]


def accompany(frames: jax.Array, references: jax.Array) -> jax.Array:
    """(B, F, ...) frames and (B, G, ...) references -> (B, F * (1 + G), ...): every frame, then all references."""
    b, f = frames.shape[:2]
    repeated = jnp.broadcast_to(references[:, None], (b, f, *references.shape[1:]))
    both = jnp.concatenate([frames[:, :, None], repeated], 2)
    return both.reshape(b, -1, *frames.shape[2:])
