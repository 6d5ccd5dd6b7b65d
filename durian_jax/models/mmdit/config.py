"""Sizes of an MMDiT. Imports no jax."""

from dataclasses import dataclass

from durian_jax.errors import InputError

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

    width: int = 192
    layers: int = 10
    heads: int = 6
    patch: int = 2
    feedforward_multiplier: int = 4
    dual_layers: int = 0
    positions: str = "rotary"
    canvas_size: int = 96
    canvas_origin: float = 0.0
    canvas_step: float = 1.0
    text_dim: int | None = None
    text_tokens: int = 0
    pooled_dim: int | None = None
    video: str = "full"
    time_rotation: int = 8
    stem_width: int = 0
    retouch_layers: int = 0

    def __post_init__(self):
        for name, known in (("positions", POSITIONS), ("video", VIDEO_ATTENTIONS)):
            if getattr(self, name) not in known:
                raise InputError(f"MMDiTConfig.{name}: expected one of {', '.join(known)}, found "
                                 f"{getattr(self, name)!r}")
        if min(self.width, self.layers, self.heads, self.patch, self.feedforward_multiplier) < 1 \
                or self.width % (4 * self.heads):
            raise InputError(f"MMDiTConfig: expected sizes of at least 1 and a width that is a multiple of 4 * heads, "
                             f"found {self}")
        if self.stem_width < 0 or self.stem_width % NORM_GROUPS:
            raise InputError(f"MMDiTConfig.stem_width: expected a multiple of {NORM_GROUPS}, found {self.stem_width}")
        if self.retouch_layers < 0 or self.retouch_layers and not self.stem_width:
            raise InputError(f"MMDiTConfig.retouch_layers: expected at least 0, and a stem (stem_width) to retouch by, "
                             f"found {self.retouch_layers} and stem_width={self.stem_width}")
        if not 0 <= self.dual_layers <= self.layers:
            raise InputError(f"MMDiTConfig.dual_layers: expected 0..{self.layers}, found {self.dual_layers}")
        if (self.text_dim is None) != (self.text_tokens == 0):
            raise InputError(f"MMDiTConfig: text_tokens={self.text_tokens} does not fit text_dim={self.text_dim}; "
                             "without a text stream set them to 0 and None")
        if self.time_rotation % 2 or (self.head_width - self.time_rotation) % 4 or \
                not 0 < self.time_rotation < self.head_width:
            raise InputError(f"MMDiTConfig.time_rotation: expected an even number below the head's width "
                             f"{self.head_width}, and a rest that is a multiple of 4; found {self.time_rotation}")

    @property
    def head_width(self) -> int:
        """D, channels of a head."""
        return self.width // self.heads


def shift_layers(retouch_layers: int) -> int:
    """How many of these layers find out how far pictures must be shifted: the first half."""
    return (retouch_layers + 1) // 2
