"""Sizes of an MMDiT. Imports no jax."""

from dataclasses import dataclass
from typing import Annotated

from durian_jax.fields import FieldError, Heads, Layers, Multiplier, OneOf, Patch, Positive, Range, Width, check_fields

# How tokens know their place. "canvas": a sinusoidal code of the place on one large canvas is added to the tokens
# (Stable Diffusion 3, and arXiv 2509.17476 with shifted places). "rotary": queries and keys are rotated by the place
# (RoPE, arXiv 2104.09864), in every attention; groups share places and differ by an axis of their own.
POSITIONS = ("canvas", "rotary")

# What a frame's tokens attend to in the video attention: the tokens of all frames (arXiv 2509.17476), or those with
# their own place in all frames ("factorised", the paper's ablation).
VIDEO_ATTENTIONS = ("full", "factorised")

# The choice among aligned pictures: scale of the logits, which learn as slowly as other outputs but must become
# decisive, and the share with which pixels that are not known count.
CHOICE_SCALE, UNKNOWN_SHARE = 4.0, 1e-6

# The convolutional parts: groups of their normalisation, side of the square of pixels that they start from, and the
# share of a picture's pixels, relative to the decoded frame's, with which retouching starts. Shifts of pictures, in
# pixels, are this many times what the network puts out, which learns as slowly as other outputs. Pixels known to less
# than the last share have no colour.
NORM_GROUPS, STEM_PATCH, TAKEN_SHARE, SHIFT_SCALE, SMALLEST_SHARE = 8, 4, 0.02, 4.0, 1e-3


@dataclass(frozen=True)
class MMDiTConfig:
    """Sizes of the transformer.

    Attributes:
        width: channels of a token.
        layers: number of joint blocks, with a video block before each.
        heads: attention heads.
        patch: side of the square of latents that becomes a token.
        feedforward_multiplier: width of the feed-forward, relative to `width`.
        dual_layers: number of first layers with a second attention, of image tokens alone (Stable Diffusion 3.5
            Medium: 13).
        positions: one of `POSITIONS`.
        canvas_size: side of the canvas in tokens; frames lie at its centre.
        canvas_origin, canvas_step: the code of token i is that of the number (i - canvas_origin) * canvas_step.
        text_dim: width of text embeddings; None builds no text stream.
        text_tokens: number of text tokens. All are null (zeros) here: text takes no part in the method.
        pooled_dim: width of the pooled text embedding that joins the time code; None: none.
        video: one of `VIDEO_ATTENTIONS`.
        time_rotation: channels of each head that the video attention rotates by time; in `rotary`, also those that
            the joint attention rotates by group.
        stem_width: channels of the network that reads aligned pictures from their pixels, see `retouch.PictureStem`.
            0: none.
        retouch_layers: number of residual blocks of the network that retouches decoded frames by these pictures, see
            `retouch.Retouch`; it needs a stem. 0: none.
    """

    width: Width = 192
    layers: Layers = 10
    heads: Heads = 6
    patch: Patch = 2
    feedforward_multiplier: Multiplier = 4
    dual_layers: Annotated[int, Range(0, 256)] = 0
    positions: Annotated[str, OneOf(POSITIONS)] = "rotary"
    canvas_size: Annotated[int, Range(1, 4096)] = 96
    canvas_origin: Annotated[float, Range(-4096, 4096)] = 0.0
    canvas_step: Positive = 1.0
    text_dim: Width | None = None
    text_tokens: Annotated[int, Range(0, 4096)] = 0
    pooled_dim: Width | None = None
    video: Annotated[str, OneOf(VIDEO_ATTENTIONS)] = "full"
    time_rotation: Annotated[int, Range(2, 4096)] = 8
    stem_width: Annotated[int, Range(0, 4096)] = 0
    retouch_layers: Annotated[int, Range(0, 64)] = 0

    def __post_init__(self):
        check_fields(self)
        if self.width % (4 * self.heads):
            raise FieldError("width", f"expected a multiple of 4 * heads, found {self.width} for {self.heads} heads")
        if self.stem_width % NORM_GROUPS:
            raise FieldError("stem_width", f"expected a multiple of {NORM_GROUPS}, found {self.stem_width}")
        if self.retouch_layers and not self.stem_width:
            raise FieldError("retouch_layers", "expected 0 without a stem to retouch by (stem_width), found "
                             f"{self.retouch_layers}")
        if self.dual_layers > self.layers:
            raise FieldError("dual_layers", f"expected at most layers={self.layers}, found {self.dual_layers}")
        if (self.text_dim is None) != (self.text_tokens == 0):
            raise FieldError("text_tokens", f"expected 0 if text_dim is None, else at least 1, found "
                             f"{self.text_tokens} for text_dim={self.text_dim}")
        if self.time_rotation % 2 or (self.head_width - self.time_rotation) % 4 or \
                self.time_rotation >= self.head_width:
            raise FieldError("time_rotation", f"expected an even number below the head's width {self.head_width}, and "
                             f"a rest that is a multiple of 4; found {self.time_rotation}")

    @property
    def head_width(self) -> int:
        """D, channels of a head."""
        return self.width // self.heads


def shift_layers(retouch_layers: int) -> int:
    """How many of these layers find out how far pictures must be shifted: the first half."""
    return (retouch_layers + 1) // 2
