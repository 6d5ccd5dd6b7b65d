"""The transformer, with the names of diffusers' SD3Transformer2DModel; see `models.mmdit.mmdit`.

Axis letters: B clips, F frames, G pictures of a group, h x w latents, c latent channels, N = (h / patch) * (w / patch)
tokens of a picture, S tokens of other pictures, C channels, D channels of a head.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from diffusers.models.embeddings import PixArtAlphaTextProjection, TimestepEmbedding, get_timestep_embedding
from torch import nn

from durian_jax.models.mmdit.config import CHOICE_SCALE, UNKNOWN_SHARE, MMDiTConfig
from durian_jax.models.mmdit.places import Place, token_angles, token_codes, video_angles
from durian_jax.pytorch.small_codec import space_to_depth
from durian_jax.pytorch.svdp.blocks import JointBlock, Keys, LayerKeys, Modulation, Seen, VideoBlock, layer_norm
from durian_jax.pytorch.svdp.retouch import PictureStem, Retouch

_TIME_CHANNELS = 256  # of the sinusoidal code of diffusion time (Stable Diffusion 3)


@dataclass
class Group:
    """Tokens of pictures.

    Attributes:
        tokens: (B, G, N, C).
        rotation: (B or 1, G, N, D) of queries and keys in joint attention (`blocks.rotate`); None: none.
    """

    tokens: torch.Tensor
    rotation: torch.Tensor | None = None

    def kept(self, index: torch.Tensor) -> "Group":
        """Only the tokens with the indices (B, G, S) of each picture."""
        take = lambda x: x.expand(len(index), -1, -1, -1).gather(2, index[..., None].expand(-1, -1, -1, x.shape[-1]))
        return Group(take(self.tokens), None if self.rotation is None else take(self.rotation))

    def pictures(self) -> "list[Group]":
        """Each picture alone: G groups of one picture."""
        g = self.tokens.shape[1]
        rotations = [None] * g if self.rotation is None else self.rotation.split(1, 1)
        return [Group(*pair) for pair in zip(self.tokens.split(1, 1), rotations, strict=True)]


def beside(groups: Sequence[Group]) -> Group:
    """Join the tokens of groups, picture by picture; a group of one picture is beside every picture."""
    frames = max(group.tokens.shape[1] for group in groups)
    rotation = None

    def joined(xs: Sequence[torch.Tensor]) -> torch.Tensor:
        b = max(len(x) for x in xs)
        return torch.cat([x.expand(b, frames, -1, -1) for x in xs], 2)
    if groups[0].rotation is not None:
        rotation = joined([group.rotation for group in groups])
    return Group(joined([group.tokens for group in groups]), rotation)


class TimeEmbedding(nn.Module):
    """The time code from diffusion time, and from a null pooled text embedding if the model takes one."""

    def __init__(self, config: MMDiTConfig):
        super().__init__()
        self.pooled_dim = config.pooled_dim
        self.timestep_embedder = TimestepEmbedding(_TIME_CHANNELS, config.width)
        if config.pooled_dim is not None:
            self.text_embedder = PixArtAlphaTextProjection(config.pooled_dim, config.width, act_fn="silu")

    def forward(self, timesteps: torch.Tensor) -> torch.Tensor:
        """(M,) in [0, 1000] -> (M, C)."""
        code = get_timestep_embedding(timesteps, _TIME_CHANNELS, flip_sin_to_cos=True, downscale_freq_shift=0)
        code = self.timestep_embedder(code.to(self.timestep_embedder.linear_1.weight.dtype))
        return code if self.pooled_dim is None else code + self.text_embedder(code.new_zeros(1, self.pooled_dim))


class PatchEmbedding(nn.Module):
    """Patches of latents to tokens: (M, c, h, w) -> (M, N, C). The position code is computed, no table is loaded."""

    def __init__(self, channels: int, config: MMDiTConfig):
        super().__init__()
        self.proj = nn.Conv2d(channels, config.width, config.patch, config.patch)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.proj(latents).flatten(2).transpose(1, 2)


@dataclass
class Aligned:
    """Pictures that lie under the noisy frames, place by place; see `models.mmdit.mmdit.Aligned`.

    Attributes:
        latents: (B, F, G, c, h, w).
        masks: (B, F, G, 1, h, w).
        features: (B, F, C', h, w), the coarse ones of `PictureStem`; None without a stem.
    """

    latents: torch.Tensor
    masks: torch.Tensor
    features: torch.Tensor | None = None


class MMDiT(nn.Module):
    """Stable Diffusion 3's transformer with video attention before each block, and any number of token groups.

    Args:
        config: sizes.
        channels: c, of latents.
        groups: number of rows of the group embedding.
        aligned: number of pictures that lie under every noisy frame, see `Aligned`.
        stem: pixels per latent in each direction, and channels of the pictures that the stem reads; None: no stem.
    """

    def __init__(self, config: MMDiTConfig, channels: int, groups: int, aligned: int = 0,
                 stem: tuple[int, int] | None = None):
        super().__init__()
        self.config, self.channels, width = config, channels, config.width
        self.pos_embed = PatchEmbedding(channels, config)
        self.mask_embedding = nn.Linear(config.patch**2, width, bias=False)
        self.group_embedding = nn.Parameter(torch.zeros(groups, width))
        self.time_text_embed = TimeEmbedding(config)
        if config.text_dim is not None:
            self.context_embedder = nn.Linear(config.text_dim, width)
        self.transformer_blocks = nn.ModuleList(JointBlock(config, i) for i in range(config.layers))
        self.video_blocks = nn.ModuleList(VideoBlock(config) for _ in range(config.layers))
        if aligned:
            self.aligned_embedding = nn.Linear(config.patch**2 * aligned * (channels + 1), width, bias=False)
            self.aligned_choice = nn.Linear(width, config.patch**2 * (1 + aligned))
        if stem is not None:
            self.stem = PictureStem(config, *stem)
            self.stem_embedding = nn.Linear(2 * config.stem_width * config.patch**2, width, bias=False)
        if stem is not None and config.retouch_layers:
            self.retouch = Retouch(config, stem[0], aligned - 1)
        self.norm_out = Modulation(width, 2)
        self.proj_out = nn.Linear(width, config.patch**2 * channels)

    # --- tokens ---------------------------------------------------------------------------------------

    def embed(self, latents: torch.Tensor, places: Sequence[Place], masks: torch.Tensor | None = None) -> Group:
        """Turn pictures into tokens.

        Args:
            latents: (B, G, c, h, w).
            places: of the G pictures; one place serves all.
            masks: (B, G, 1, h, w), which pixels count.
        """
        cfg, (b, g, _, h, w) = self.config, latents.shape
        side = h // cfg.patch, w // cfg.patch
        x = self.pos_embed(latents.flatten(0, 1))
        if masks is not None:
            patches = space_to_depth(masks.to(x.dtype).flatten(0, 1), cfg.patch)
            x = x + self.mask_embedding(patches.flatten(2).transpose(1, 2))
        places = [*places] * (g if len(places) == 1 else 1)
        tokens = x.unflatten(0, (b, g)) + self.group_embedding[[place.group for place in places]][:, None]
        constant = lambda values: torch.from_numpy(values).to(x.device)
        if cfg.positions == "rotary":
            return Group(tokens, _rotation(constant(token_angles(cfg, places, side)))[None])
        return Group(tokens + constant(token_codes(cfg, places, side)).to(x.dtype))

    def times(self, times: Sequence[int], side: tuple[int, int]) -> torch.Tensor:
        """(F, N, D) rotation of video attention for frames at these times."""
        angles = torch.from_numpy(video_angles(self.config, times, side))
        return _rotation(angles.to(self.group_embedding.device))

    def time_code(self, timestep: float) -> torch.Tensor:
        """Diffusion time in [0, 1000] -> (1, 1, C)."""
        return self.time_text_embed(torch.tensor([timestep], device=self.group_embedding.device))[None]

    def _null_text(self) -> torch.Tensor | None:
        """(1, 1, 1, C), the embedding of one null token; None without a text stream."""
        if self.config.text_dim is None:
            return None
        return self.context_embedder(self.group_embedding.new_zeros(1, 1, 1, self.config.text_dim))

    def _layers(self) -> Iterator[tuple[int, VideoBlock, JointBlock]]:
        for i, (video, block) in enumerate(zip(self.video_blocks, self.transformer_blocks, strict=True)):
            yield i, video, block

    # --- conditions that see only themselves ----------------------------------------------------------

    def condition_keys(self, group: Group) -> list[LayerKeys]:
        """Run pictures alone, without noise, and return the keys of every layer: (B, G, H, N, D) each."""
        x, text, code, keys = group.tokens, self._null_text(), self.time_code(0.0), []
        for block in self.transformer_blocks[:-1]:
            x, text, own = block(x, text, code, group.rotation)
            keys.append(own)
        return [*keys, self.transformer_blocks[-1].keys(x, code, group.rotation)]

    def history_keys(self, group: Group, times: torch.Tensor) -> list[Keys]:
        """Run earlier frames alone, without noise, and return the keys of every video attention.

        Args:
            aligned: pictures under the noisy frames; a model with `aligned` needs them.
            times: of these frames, from `times`.
        """
        x, text, code, keys = group.tokens, self._null_text(), self.time_code(0.0), []
        for i, video, block in self._layers():
            if i == self.config.layers - 1:
                return [*keys, video.keys(x, code, times)]
            x, own = video(x, code, times)
            keys.append(own)
            x, text, _ = block(x, text, code, group.rotation)
        return keys

    # --- the prediction -------------------------------------------------------------------------------

    def forward(self, latents: torch.Tensor, timestep: float, place: Place, *,
                condition_tokens: Group | None = None, condition_keys: Sequence[Sequence[LayerKeys]] = (),
                seen: Seen | None = None, aligned: Aligned | None = None, times: torch.Tensor | None = None,
                history: Group | None = None, history_times: torch.Tensor | None = None,
                history_keys: Sequence[Keys] | None = None, frames_seen: torch.Tensor | None = None) -> torch.Tensor:
        """Predict for noisy latents.

        Args:
            latents: (B, F, c, h, w).
            timestep: in [0, 1000].
            place: of the noisy frames.
            condition_tokens: (B, F or 1, S, C) tokens that go through all joint blocks beside those of their frame.
            condition_keys: of each further part, the keys of every layer (the method of this name).
            seen: the parts that are seen. None: all.
            times: rotation of the frames' times; None: no video attention.
            history: (B, T, N, C) tokens of earlier frames that go through all blocks beside the noisy ones, without
                noise. history_times: their rotation.
            history_keys: of every layer, the keys of earlier frames that ran through the blocks alone (the method of
                this name).
            frames_seen: (B, F + T) bool, the frames that video attention sees. None: all.

        Returns:
            (B, F, c, h, w).
        """
        noisy, f = self.embed(latents, [place]), latents.shape[1]
        if aligned is not None:
            noisy = Group(noisy.tokens + self._embedded(aligned), noisy.rotation)
        group, n = noisy if condition_tokens is None else beside([noisy, condition_tokens]), noisy.tokens.shape[2]
        x, text, code = group.tokens, self._null_text(), self.time_code(timestep)
        if history is not None:
            before, before_text, before_code = history.tokens, text, self.time_code(0.0)
            t = before.shape[1]
            all_codes = torch.cat([code.expand(-1, f, -1), before_code.expand(-1, t, -1)], 1)
            all_times = torch.cat([times, history_times])
        for i, video, block in self._layers():
            if times is not None:
                frames = x[:, :, :n]
                if history is not None:
                    both, _ = video(torch.cat([frames, before], 1), all_codes, all_times, None, frames_seen)
                    frames, before = both[:, :f], both[:, f:]
                else:
                    frames, _ = video(frames, code, times, history_keys and history_keys[i], frames_seen)
                x = frames if condition_tokens is None else torch.cat([frames, x[:, :, n:]], 2)
            x, text, _ = block(x, text, code, group.rotation, [part[i] for part in condition_keys], seen)
            if history is not None and i < self.config.layers - 1:
                before, before_text, _ = block(before, before_text, before_code, history.rotation)
        scale, shift = self.norm_out(code)
        x = layer_norm(x[:, :, :n]) * (1 + scale) + shift
        prediction = self._pictures(self.proj_out(x), latents.shape[-2:])
        if aligned is None:
            return prediction
        return prediction + _chosen(aligned, self._pictures(self.aligned_choice(x), latents.shape[-2:]))

    def _embedded(self, aligned: Aligned) -> torch.Tensor:
        """(B, F, N, C)."""
        under = torch.cat([aligned.latents, aligned.masks.to(aligned.latents.dtype)], 3).flatten(2, 3)
        tokens = self.aligned_embedding(self._patches(under.to(self.group_embedding.dtype)))
        return tokens if aligned.features is None else tokens + self.stem_embedding(self._patches(aligned.features))

    def _patches(self, x: torch.Tensor) -> torch.Tensor:
        """(B, F, c, h, w) -> (B, F, N, patch * patch * c)."""
        found = space_to_depth(x.flatten(0, 1), self.config.patch)
        return found.flatten(2).transpose(1, 2).unflatten(0, x.shape[:2])

    def _pictures(self, x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """(B, F, N, patch * patch * c) -> (B, F, c, h, w)."""
        p, (h, w) = self.config.patch, size
        x = x.unflatten(-1, (p, p, -1)).unflatten(2, (h // p, w // p))       # B F rows columns p p c
        return x.permute(0, 1, 6, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


def _chosen(aligned: Aligned, logits: torch.Tensor) -> torch.Tensor:
    """(B, F, c, h, w): the mixture of aligned latents by logits (B, F, 1 + G, h, w); the first one is of nothing."""
    known = aligned.masks[:, :, :, 0].float()
    known = torch.cat([torch.ones_like(known[:, :, :1]), known], 2)
    shares = (CHOICE_SCALE * logits.float() + (known + UNKNOWN_SHARE).log()).softmax(2)[:, :, 1:, None]
    return (shares * aligned.latents.float()).sum(2).to(logits.dtype)


def _rotation(angles: torch.Tensor) -> torch.Tensor:
    """(..., D / 2) angles -> (..., D) cosines and sines, see `blocks.rotate`."""
    return torch.cat([angles.cos(), angles.sin()], -1)
