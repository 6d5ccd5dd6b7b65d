"""What SVDP's noisy frames see besides themselves.

Axis letters: B clips, F frames, T history frames, A attributes, N tokens of a picture, R tokens of source and
attributes, S tokens of a driving frame.
"""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp

from durian_jax.models.mmdit.blocks import Keys
from durian_jax.models.mmdit.mmdit import Group, LayerKeys
from durian_jax.models.mmdit.retouch import Pixels

# Branches of guidance, from the least to the most conditioned: u, s, d, p of the paper.
UNCONDITIONAL, SOURCE, DRIVING, HISTORY = range(4)


@flax.struct.dataclass
class References:
    """Source and attributes, computed once per video.

    Attributes:
        source, attributes: tokens (B, 1, N, C) and (B, A, N, C) if the mode is "joint"; else the keys of every layer.
            attributes is None if A is 0.
        latents, visible: (B, h, w, c) and (B, h, w, 1) of the source, for models with `aligned_pictures`; else
            None.
        picture, known: (B, H, W, 3) and (B, H, W, 1) of the source, for models that retouch frames; else None.
    """

    source: Group | tuple[LayerKeys, ...]
    attributes: Group | tuple[LayerKeys, ...] | None
    latents: jax.Array | None = None
    visible: jax.Array | None = None
    picture: jax.Array | None = None
    known: jax.Array | None = None


@flax.struct.dataclass
class Condition:
    """Everything that the transformer needs besides noisy latents and time.

    A part that is None is absent: nothing of it is computed. Hidden parts are computed, and no frame sees them.

    Attributes:
        references: of the video.
        attribute_valid: (B, A) bool, the attributes that take part.
        attribute_weights: (B, F, A): blend the attentions to each attribute (arXiv 2509.04434, "interpolation").
            Weights of at least 0 sum to 1 over A; attributes of negative weight are seen in all of them. None: all are
            seen at once ("composition").
        driving: tokens (B, F, S, C) in "joint", else the keys of every layer.
        under: latents (B, F, h, w, c) and mask (B, F, h, w, 1) of each reference on the driver's face (`config.MOVED`)
            and of the driver, for models with `aligned_pictures`; else None.
        features: (B, F, h, w, any) of the stem for the pictures in `under`, for models with a stem; else None.
        pixels: source and references on the driver's face as pixels, for models that retouch frames; else None.
        history: tokens (B, T, N, C) in "joint", else the keys of every video attention.
        history_timesteps: (B, T) of the noise on history.
        history_valid: (B,) bool.
        level: (B,) branch that every clip is at, see above; None: nothing is hidden.
    """

    references: References | None = None
    attribute_valid: jax.Array | None = None
    attribute_weights: jax.Array | None = None
    driving: Group | tuple[LayerKeys, ...] | None = None
    under: tuple[tuple[jax.Array, jax.Array], ...] | None = None
    features: jax.Array | None = None
    pixels: Pixels | None = None
    history: Group | tuple[Keys, ...] | None = None
    history_timesteps: jax.Array | None = None
    history_valid: jax.Array | None = None
    level: jax.Array | None = None

    def at_levels(self, level: jax.Array) -> "Condition":
        """Hide parts from each clip (B,): it sees what the branch of its number sees (drop-out for guidance)."""
        return self.replace(level=level)

    def branches(self) -> tuple["Condition", ...]:
        """u, s, d and, with history, p (paper, "signal fusion")."""
        driven = self.replace(history=None, history_timesteps=None, history_valid=None)
        source = driven.replace(driving=None, under=None, features=None, pixels=None)
        chain = (source.replace(references=None, attribute_valid=None, attribute_weights=None), source, driven)
        return chain if self.history is None else (*chain, self)

    @property
    def all_shown(self) -> bool:
        """Whether frames see all tokens for certain: no clip is at a lower level, and there are no attributes."""
        return self.level is None and (self.attribute_valid is None or not self.attribute_valid.shape[1])

    def shown(self, level: int, valid: jax.Array) -> jax.Array:
        """`valid` (B, ...) bool, and False for clips below a level."""
        if self.level is None:
            return valid
        return valid & (self.level >= level).reshape(-1, *[1] * (valid.ndim - 1))


def join_keys(parts: Sequence[tuple[LayerKeys, ...]]) -> tuple[LayerKeys, ...]:
    """Join the keys (B, 1 or F, S, H, D) of several groups, layer by layer."""
    if len(parts) == 1:
        return parts[0]
    frames = max(part[0][0].key.shape[1] for part in parts)

    def joined(*keys: Keys) -> Keys:
        wide = lambda x: jnp.broadcast_to(x, (x.shape[0], frames, *x.shape[2:]))
        return Keys(*(jnp.concatenate([wide(x) for x in xs], 2) for xs in
                      ([one.key for one in keys], [one.value for one in keys])))
    return tuple(tuple(joined(*keys) for keys in zip(*layer, strict=True)) for layer in zip(*parts, strict=True))


def one_frame(keys: tuple[LayerKeys, ...]) -> tuple[LayerKeys, ...]:
    """Keys (B, G, N, H, D) of several pictures -> (B, 1, G * N, H, D), the same for all frames."""
    flat = lambda x: x.reshape(x.shape[0], 1, -1, *x.shape[3:])
    return jax.tree.map(flat, keys)
