"""Blocks of the MMDiT, with the names of diffusers' SD3Transformer2DModel; see `models.mmdit.blocks`.

Axis letters: B clips, F frames, N tokens of a frame, L text tokens, S keys, C channels, H heads, D channels of a head.
Keys of tokens that are the same for all clips or frames have 1 in place of B or F.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from torch import nn

from durian_jax.models.mmdit.config import MMDiTConfig

_EPSILON = 1e-6


@dataclass
class Keys:
    """Keys and values of tokens.

    Attributes:
        key, value: (B, F, H, S, D).
    """

    key: torch.Tensor
    value: torch.Tensor

    def split(self, sizes: Sequence[int]) -> "list[Keys]":
        """The keys of consecutive parts of the tokens."""
        return [Keys(*pair) for pair in zip(self.key.split(sizes, 3), self.value.split(sizes, 3), strict=True)]

    def pictures(self) -> "list[Keys]":
        """The keys of each picture (B, G, H, S, D) alone: (B, 1, H, S, D)."""
        return [Keys(*pair) for pair in zip(self.key.split(1, 1), self.value.split(1, 1), strict=True)]


# Of one layer, the keys of every attention: one, two in dual blocks.
LayerKeys = tuple[Keys, ...]


@dataclass
class Blend:
    """One selection of parts.

    Attributes:
        parts: indices of the parts that any clip sees; 0 is the frame itself.
        mask: (B, S) bool of the tokens of these parts, False hides a token; None: all are seen.
        weight: (B, F, 1, 1, 1) of this selection's result in every frame; None: it is the only selection.
    """

    parts: tuple[int, ...]
    mask: torch.Tensor | None
    weight: torch.Tensor | None


@dataclass
class Seen:
    """Which parts are seen, in one or several attentions whose results are blended.

    Attributes:
        sizes: number of tokens of each part that is in a frame's sequence.
        blends: the selections.
    """

    sizes: tuple[int, ...]
    blends: tuple[Blend, ...]


def attend(query: torch.Tensor, own: Keys, others: Sequence[Keys] = (), seen: Seen | None = None,
           text: Keys | None = None) -> torch.Tensor:
    """Attend from (B, F, H, N, D).

    Args:
        own: keys of the frame's sequence.
        others: keys of further parts.
        seen: the parts that are seen; None: all.
        text: keys that all tokens see.
    """
    last = [] if text is None else [text]
    if seen is None:
        return _attend(query, [own, *others, *last], None)
    parts = [*own.split(seen.sizes), *others]
    mixed = [_attend(query, [*(parts[i] for i in blend.parts), *last], blend.mask) for blend in seen.blends]
    if len(mixed) == 1:
        return mixed[0]
    return sum(x * blend.weight for x, blend in zip(mixed, seen.blends, strict=True))


def _attend(query: torch.Tensor, keys: Sequence[Keys], mask: torch.Tensor | None) -> torch.Tensor:
    """Attend to all tokens of `keys`; further keys than `mask` has are seen."""
    b, f = query.shape[:2]
    key, value = (_joined(xs, b, f) for xs in ([part.key for part in keys], [part.value for part in keys]))
    if mask is not None:
        mask = F.pad(mask, (0, key.shape[2] - mask.shape[1]), value=True)[:, None, None].repeat_interleave(f, 0)
    return F.scaled_dot_product_attention(query.flatten(0, 1), key, value, attn_mask=mask).unflatten(0, (b, f))


def _joined(xs: Sequence[torch.Tensor], b: int, f: int) -> torch.Tensor:
    """Join (B, F, H, S, D) along S: (B * F, H, S, D)."""
    wide = [x.expand(b, f, -1, -1, -1) for x in xs]
    return (wide[0] if len(wide) == 1 else torch.cat(wide, 3)).flatten(0, 1)


def rotate(x: torch.Tensor, rotation: torch.Tensor | None) -> torch.Tensor:
    """Rotate channel i and channel i + D / 2 of (B, F, H, N, D); `rotation` (..., N, D) holds cosines, then sines."""
    if rotation is None:
        return x
    cos, sin = rotation.unsqueeze(-3).chunk(2, -1)
    first, second = x.float().chunk(2, -1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1).to(x.dtype)


def layer_norm(x: torch.Tensor) -> torch.Tensor:
    """Layer normalisation over the last axis without parameters."""
    return F.layer_norm(x, x.shape[-1:], eps=_EPSILON)


def modulated(normed: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Scale and shift normalised tokens."""
    return normed * (1 + scale) + shift


class Modulation(nn.Module):
    """Scales, shifts and gates from the time code: (B, F, C) -> `count` tensors (B, F, 1, C)."""

    def __init__(self, width: int, count: int):
        super().__init__()
        self.count, self.linear = count, nn.Linear(width, count * width)

    def forward(self, code: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.linear(F.silu(code))[:, :, None].chunk(self.count, -1)


class Attention(nn.Module):
    """Projections of an attention.

    Args:
        width, heads: C and H.
        text: add projections of text tokens.
        text_out: the text tokens' result is needed.
    """

    def __init__(self, width: int, heads: int, text: bool = False, text_out: bool = False):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.norm_q, self.norm_k = (nn.RMSNorm(width // heads, _EPSILON) for _ in range(2))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        if text:
            self.add_q_proj, self.add_k_proj, self.add_v_proj = (nn.Linear(width, width) for _ in range(3))
            self.norm_added_q, self.norm_added_k = (nn.RMSNorm(width // heads, _EPSILON) for _ in range(2))
        if text_out:
            self.to_add_out = nn.Linear(width, width)

    def query(self, x: torch.Tensor, rotation: torch.Tensor | None = None) -> torch.Tensor:
        """Project tokens (B, F, N, C) to queries (B, F, H, N, D)."""
        return rotate(self.norm_q(self._split(self.to_q(x))), rotation)

    def keys(self, x: torch.Tensor, rotation: torch.Tensor | None = None) -> Keys:
        """Project tokens (B, F, N, C) to keys and values."""
        return Keys(rotate(self.norm_k(self._split(self.to_k(x))), rotation), self._split(self.to_v(x)))

    def of_text(self, x: torch.Tensor) -> tuple[torch.Tensor, Keys]:
        """Project text tokens (B, F, L, C) to queries, and to keys and values."""
        key = self.norm_added_k(self._split(self.add_k_proj(x)))
        return self.norm_added_q(self._split(self.add_q_proj(x))), Keys(key, self._split(self.add_v_proj(x)))

    def out(self, mixed: torch.Tensor) -> torch.Tensor:
        """Project the result (B, F, H, N, D) to (B, F, N, C)."""
        return self.to_out[0](merge_heads(mixed))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


def merge_heads(x: torch.Tensor) -> torch.Tensor:
    """(..., H, N, D) -> (..., N, C)."""
    return x.transpose(-3, -2).flatten(-2)


class JointBlock(nn.Module):
    """Attention of a frame's image tokens to themselves, text and other tokens; then a feed-forward.

    Args:
        config: sizes.
        number: of the layer.
    """

    def __init__(self, config: MMDiTConfig, number: int):
        super().__init__()
        self.dual, self.text = number < config.dual_layers, config.text_dim is not None
        self.text_tokens, self.last = config.text_tokens, number == config.layers - 1
        width, heads = config.width, config.heads
        self.norm1 = Modulation(width, 9 if self.dual else 6)
        self.attn = Attention(width, heads, self.text, self.text and not self.last)
        self.ff = _feed_forward(config)
        if self.dual:
            self.attn2 = Attention(width, heads)
        if self.text:
            self.norm1_context = Modulation(width, 2 if self.last else 6)
        if self.text and not self.last:
            self.ff_context = _feed_forward(config)

    def keys(self, x: torch.Tensor, code: torch.Tensor, rotation: torch.Tensor | None = None) -> LayerKeys:
        """The keys of the image tokens; the arguments are those of `forward`."""
        normed, (shift, scale, *rest) = layer_norm(x), self.norm1(code)
        own = self.attn.keys(modulated(normed, shift, scale), rotation)
        return (own, self.attn2.keys(modulated(normed, *rest[4:6]), rotation)) if self.dual else (own,)

    def forward(self, x: torch.Tensor, text: torch.Tensor | None, code: torch.Tensor,
                rotation: torch.Tensor | None = None, others: Sequence[LayerKeys] = (), seen: Seen | None = None
                ) -> tuple[torch.Tensor, torch.Tensor | None, LayerKeys]:
        """Run the block.

        Args:
            x: (B, F, N, C) image tokens, those of a frame in one sequence.
            text: (B, F, 1, C), one of `text_tokens` equal null tokens; None: no text stream.
            code: (B, F, C) time code.
            rotation: (..., N, D) of `rotate`.
            others: of each further part, the keys that `x` attends to.
            seen: the parts that are seen; None: all.

        Returns:
            The image tokens, the text token, and of each attention the keys of the image tokens.
        """
        n, normed = x.shape[2], layer_norm(x)
        shift, scale, gate, shift_ff, scale_ff, gate_ff, *dual = self.norm1(code)
        tokens = modulated(normed, shift, scale)
        query, own, of_text, rest = self.attn.query(tokens, rotation), (self.attn.keys(tokens, rotation),), None, ()
        if text is not None:
            shift_text, scale_text, *rest = self._text_modulation(code)
            text_query, one = self.attn.of_text(modulated(layer_norm(text), shift_text, scale_text))
            # Null tokens are equal and stay equal: compute one, repeat its keys.
            of_text = Keys(*(y.expand(-1, -1, -1, self.text_tokens, -1) for y in (one.key, one.value)))
            if not self.last:
                query = torch.cat([query, text_query.expand(*query.shape[:2], -1, -1, -1)], 3)
        mixed = attend(query, own[0], [part[0] for part in others], seen, of_text)
        x = x + gate * self.attn.out(mixed[..., :n, :])
        if self.dual:
            shift2, scale2, gate2 = dual
            tokens = modulated(normed, shift2, scale2)
            own = (*own, self.attn2.keys(tokens, rotation))
            mixed2 = attend(self.attn2.query(tokens, rotation), own[1], [part[1] for part in others], seen)
            x = x + gate2 * self.attn2.out(mixed2)
        x = x + gate_ff * self.ff(modulated(layer_norm(x), shift_ff, scale_ff))
        if text is None or self.last:
            return x, None, own
        gate_text, shift_ff, scale_ff, gate_ff = rest
        text = text + gate_text * self.attn.to_add_out(merge_heads(mixed[..., n:, :]))
        return x, text + gate_ff * self.ff_context(modulated(layer_norm(text), shift_ff, scale_ff)), own

    def _text_modulation(self, code: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Shift and scale, and in all but the last block gate, shift, scale and gate again."""
        parts = self.norm1_context(code)
        return parts[::-1] if self.last else parts  # the last one has the order of AdaLayerNormContinuous


class VideoBlock(nn.Module):
    """Attention over the tokens of all frames (arXiv 2509.17476, "full-video attention").

    In "factorised" a token attends to the tokens with its own place only.
    """

    def __init__(self, config: MMDiTConfig):
        super().__init__()
        self.factorised = config.video == "factorised"
        self.norm, self.attn = Modulation(config.width, 3), Attention(config.width, config.heads)

    def keys(self, x: torch.Tensor, code: torch.Tensor, rotation: torch.Tensor) -> Keys:
        """The keys of the tokens; the arguments are those of `forward`."""
        shift, scale, _ = self.norm(code)
        return self.attn.keys(modulated(layer_norm(x), shift, scale), rotation)

    def forward(self, x: torch.Tensor, code: torch.Tensor, rotation: torch.Tensor, history: Keys | None = None,
                seen: torch.Tensor | None = None) -> tuple[torch.Tensor, Keys]:
        """Run the block.

        Args:
            x: (B, F, N, C).
            code: (B, F, C) time code.
            rotation: (F, N, D) of `rotate`.
            history: keys (B, T, H, N, D) of T earlier frames.
            seen: (B, F + T) bool; False hides a frame. None: all are seen.

        Returns:
            The tokens, and their keys.
        """
        shift, scale, gate = self.norm(code)
        tokens = modulated(layer_norm(x), shift, scale)
        query, own = self.attn.query(tokens, rotation), self.attn.keys(tokens, rotation)
        key, value = own.key, own.value
        if history is not None:
            key, value = torch.cat([key, history.key], 1), torch.cat([value, history.value], 1)
        return x + (1 + gate) * self.attn.out(self._attend(query, key, value, seen)), own

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor | None
                ) -> torch.Tensor:
        b, f, _, n, _ = query.shape
        if self.factorised:
            places = (y.movedim(3, 1).flatten(0, 1).transpose(1, 2) for y in (query, key, value))     # B*N H F D
            mask = None if seen is None else seen.repeat_interleave(n, 0)[:, None, None]
            mixed = F.scaled_dot_product_attention(*places, attn_mask=mask)
            return mixed.transpose(1, 2).unflatten(0, (b, n)).movedim(1, 3)
        whole = (y.transpose(1, 2).flatten(2, 3) for y in (query, key, value))                        # B H F*N D
        mask = None if seen is None else seen.repeat_interleave(n, 1)[:, None, None]
        return F.scaled_dot_product_attention(*whole, attn_mask=mask).unflatten(2, (f, n)).transpose(1, 2)


def _feed_forward(config: MMDiTConfig) -> FeedForward:
    return FeedForward(config.width, mult=config.feedforward_multiplier, activation_fn="gelu-approximate")
