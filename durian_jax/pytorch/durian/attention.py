"""Reference attention as processors of diffusers' attention modules (Durian, section 3.2).

    SA = Attention(Q = W_Q F_t,  K = W_K F_ref,  V = W_V F_ref),  F_ref = concat(F_t, F_port, F_attr)

A `Site` holds what depends on the references alone. It is computed once per clip, for all frames and steps. It leaves
out groups of references that no clip of the batch uses, so a mask is needed only if the clips of a batch differ.

Axis letters: B clips, F frames, M blends, G reference groups (the portrait first), A attributes, N tokens of a frame,
S tokens of references, H heads, D channels of a head, C = H * D channels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import nn

from durian_jax.models.positions import POSITION_SCALE, grid_position_code


@dataclass
class Blend:
    """One selection of references.

    Attributes:
        key, value: (B, H, S, D).
        mask: (B, 1, S) bool, False hides a token; None: no token is hidden.
        weight: (B * F, 1, 1) weight of this selection's result in every frame; None: it is the only selection.
    """

    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    weight: torch.Tensor | None


@dataclass
class Site:
    """Inputs of one attention site besides the frames.

    Attributes:
        spatial: keys and values of the references for each selection; (): self-attention only.
        cross: keys and values of the image embeddings. If every selection sees one embedding only, it is the result
            itself, (B, 1, C) or (B * F, 1, C), because the softmax over one key is 1 for any query.
        guided: the second half of the batch is the unconditional branch of classifier-free guidance. It sees no
            references: `spatial` and `cross` are for the first half.
        features: list that collects the site's features (B * F, N, C), for a ReferenceNet; None: do not collect.
    """

    spatial: tuple[Blend, ...] = ()
    cross: tuple[Blend, ...] | torch.Tensor | None = None
    guided: bool = False
    features: list[torch.Tensor] | None = None

    def rows(self, size: int) -> int:
        """Return the number of rows, from the first one, that see `spatial` and `cross` in a batch of this size."""
        return size // 2 if self.guided else size


class ReferenceAttention:
    """Processor of `attn1`: a frame attends to itself and to the references of its clip."""

    def __call__(self, attn: Attention, hidden_states: torch.Tensor, encoder_hidden_states=None, attention_mask=None,
                 site: Site | None = None) -> torch.Tensor:
        """(B * F, N, C) -> (B * F, N, C)."""
        site = site or Site()
        if site.features is not None:
            site.features.append(hidden_states)
        query, (key, value) = project_query(attn, hidden_states), project_key_value(attn, hidden_states)
        seen, parts = site.rows(len(query)) if site.spatial else 0, []
        if seen:
            parts.append(sum(_with_references(query[:seen], key[:seen], value[:seen], blend) for blend in site.spatial))
        if seen < len(query):
            parts.append(F.scaled_dot_product_attention(query[seen:], key[seen:], value[seen:]))
        return attn.to_out[0](merge_heads(torch.cat(parts) if len(parts) > 1 else parts[0]))


class EmbeddingAttention:
    """Processor of `attn2`: tokens attend to the image embeddings."""

    def __call__(self, attn: Attention, hidden_states: torch.Tensor, encoder_hidden_states=None, attention_mask=None,
                 site: Site | None = None) -> torch.Tensor:
        """(B * F, N, C) -> (B * F, N, C), or (B * F, 1, C) if all tokens have the same result."""
        size = len(hidden_states)
        if site is None or site.cross is None:
            return attn.to_out[0].bias.expand(size, 1, -1)
        seen = site.rows(size)
        if isinstance(site.cross, torch.Tensor):
            mixed = repeated(site.cross, seen)
        else:
            query = split_heads(attn.to_q(hidden_states[:seen]), attn.heads)
            mixed = attn.to_out[0](merge_heads(sum(
                _attend(query, repeated(blend.key, seen), repeated(blend.value, seen), blend.mask, blend.weight)
                for blend in site.cross)))
        return torch.cat([mixed, attn.to_out[0].bias.expand_as(mixed)]) if site.guided else mixed


class PlacedAttention(Attention):
    """diffusers' attention with a position code in queries, keys and values.

    Args:
        width: C.
        heads: H.
        side: h = w of the tokens.
    """

    def __init__(self, width: int, heads: int, side: int):
        super().__init__(width, heads=heads, dim_head=width // heads, bias=False, processor=ReferenceAttention())
        self.to_v_position = nn.Linear(width, width, bias=False)
        code = torch.from_numpy(grid_position_code(side, width // heads)).repeat(1, heads)
        self.register_buffer("code", code, persistent=False)


def project_query(attn: Attention, x: torch.Tensor) -> torch.Tensor:
    """Project tokens (..., N, C) to queries (..., H, N, D)."""
    return split_heads(attn.to_q(_placed(attn, x)), attn.heads)


def project_key_value(attn: Attention, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Project tokens (..., N, C) to keys and values (..., H, N, D)."""
    value = attn.to_v(x)
    if isinstance(attn, PlacedAttention):
        value = value + attn.to_v_position(attn.code)
    return split_heads(attn.to_k(_placed(attn, x)), attn.heads), split_heads(value, attn.heads)


def _placed(attn: Attention, x: torch.Tensor) -> torch.Tensor:
    return x + POSITION_SCALE * attn.code if isinstance(attn, PlacedAttention) else x


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Split channels into heads: (..., N, C) -> (..., H, N, D)."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def merge_heads(x: torch.Tensor) -> torch.Tensor:
    """Merge heads into channels: (..., H, N, D) -> (..., N, C)."""
    return x.transpose(-3, -2).flatten(-2)


def repeated(x: torch.Tensor, size: int) -> torch.Tensor:
    """Repeat each clip's row for its frames: (B, ...) -> (B * F, ...), without a copy if B = 1; `size` is B * F."""
    if len(x) == 1:
        return x.expand(size, *x.shape[1:])
    return x.repeat_interleave(size // len(x), 0)


def _with_references(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, blend: Blend) -> torch.Tensor:
    """Attend to the frame's own keys and to those of a blend; return (B * F, H, N, D)."""
    size = len(query)
    keys = torch.cat([key, repeated(blend.key, size)], 2)
    values = torch.cat([value, repeated(blend.value, size)], 2)
    mask = None if blend.mask is None else F.pad(blend.mask, (key.shape[2], 0), value=True)
    return _attend(query, keys, values, mask, blend.weight)


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None,
            weight: torch.Tensor | None) -> torch.Tensor:
    """Attend from queries (B * F, H, N, D) to keys (B * F, H, S, D), with each clip's mask (B, 1, S) and the weight
    of every frame."""
    size = len(query)
    mask = None if mask is None else repeated(mask, size)[:, None]
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return mixed if weight is None else mixed * weight[:, None]
