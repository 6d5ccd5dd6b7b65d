"""What noisy frames see besides themselves; see `models.svdp.conditions`.

Axis letters: B clips, F frames, T history frames, A attributes, M blended selections, S tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from durian_jax.inference.references import blended_selections
from durian_jax.pytorch.svdp.blocks import Blend, Keys, LayerKeys, Seen
from durian_jax.pytorch.svdp.mmdit import Aligned, Group
from durian_jax.pytorch.svdp.retouch import Pixels

# Tokens (B, G, S, C) in "joint", else the keys (B, G, H, S, D) of every layer.
Tokens = Group | list[LayerKeys]


@dataclass
class References:
    """Source and attributes, computed once per video.

    Attributes:
        source: one picture.
        attributes: A times one picture.
        latents, visible: (B, c, h, w) and (B, 1, h, w) of the source, for models with
            `aligned_pictures`.
        picture, known: (B, 3, H, W) and (B, 1, H, W) of the source, for models that retouch frames.
    """

    source: Tokens
    attributes: list[Tokens]
    latents: torch.Tensor | None = None
    visible: torch.Tensor | None = None
    picture: torch.Tensor | None = None
    known: torch.Tensor | None = None


@dataclass
class Part:
    """Tokens that frames see.

    Attributes:
        tokens: of one picture for all frames, or of one picture for each frame.
        shown: (B, M) bool, the clips and selections that see it; None: all.
    """

    tokens: Tokens
    shown: np.ndarray | None = None

    @property
    def size(self) -> int:
        """S."""
        return self.tokens.tokens.shape[2] if isinstance(self.tokens, Group) else self.tokens[0][0].key.shape[3]


@dataclass
class Branch:
    """What one branch of guidance sees.

    Attributes:
        parts: tokens that some clip sees.
        seen: which of them every clip sees; None: all.
        history: tokens (B, T, N, C) of earlier frames in "joint", else the keys of every video attention; None: none.
        frames_seen: (B, F + T) bool, the frames that video attention sees; None: all.
        aligned: pictures under the noisy frames, for models with `aligned_pictures`.
        pixels: by which decoded frames are retouched, for models that do this.
    """

    parts: list[Part]
    seen: Seen | None
    history: Group | list[Keys] | None = None
    frames_seen: torch.Tensor | None = None
    aligned: Aligned | None = None
    pixels: Pixels | None = None


def attribute_parts(attributes: Sequence[Tokens], valid: np.ndarray, weights: np.ndarray | None) -> list[Part]:
    """The attributes that any clip uses.

    Args:
        attributes: A.
        valid: (B, A) bool.
        weights: (B, F, A) interpolate: one selection per attribute, and attributes of negative weight in all of them.
            None: all are in one selection.
    """
    shown = valid[:, None] if weights is None else blended_selections(valid, weights)  # B M A
    return [Part(tokens, shown[..., i]) for i, tokens in enumerate(attributes) if shown[..., i].any()]


def selections(parts: Sequence[Part], frame: int, weights: np.ndarray | None, joint: bool, like: torch.Tensor
               ) -> Seen | None:
    """Which parts every clip sees, without masks where all clips see the same.

    Args:
        parts: from `attribute_parts`, and others.
        frame: number of tokens of a frame itself.
        weights: (B, F, M) of the selections; None: M = 1.
        joint: the parts are in the frame's sequence.
        like: for device and dtype.
    """
    b = next((len(part.shown) for part in parts if part.shown is not None), 1)
    count = 1 if weights is None else weights.shape[2]
    everyone = np.ones((b, count), bool)
    shown = [everyone, *(everyone if part.shown is None else part.shown for part in parts)]
    if count == 1 and all(x.all() for x in shown):
        return None
    sizes, blends = (frame, *(part.size for part in parts)), []
    for m in range(count):
        used = tuple(i for i, x in enumerate(shown) if x[:, m].any())
        mask = np.concatenate([np.repeat(shown[i][:, m, None], sizes[i], 1) for i in used], 1)
        weight = None if count == 1 else torch.tensor(np.maximum(weights[..., m], 0), dtype=like.dtype,
                                                      device=like.device)
        blends.append(Blend(used, None if mask.all() else torch.from_numpy(mask).to(like.device),
                            None if weight is None else weight[..., None, None, None]))
    return Seen(sizes if joint else sizes[:1], tuple(blends))
