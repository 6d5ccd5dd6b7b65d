"""The U-Net of DNet, ARNet and PRNet, made of diffusers' modules with diffusers' names.

If a model has Stable Diffusion 1.5's layout, diffusers' UNetMotionModel and UNet2DConditionModel load the same files.
These classes cannot add a bias to the first features (keypoints), skip the motion modules (single frames) or end at the
last attention site (ReferenceNets). They also lack the options of the small models: no cross-attention, position codes,
narrower feed-forward layers.

Axis letters: B clips, F frames, h x w latents, N = h * w tokens, C channels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock, FeedForward
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, get_timestep_embedding
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from diffusers.models.upsampling import Upsample2D
from torch import nn

from durian_jax.models.positions import grid_position_code
from durian_jax.models.unet.config import UNetConfig
from durian_jax.pytorch.durian.attention import EmbeddingAttention, PlacedAttention, ReferenceAttention, Site


class Level(nn.Module):
    """The blocks of one resolution. Empty lists have no parameters."""

    def __init__(self):
        super().__init__()
        self.resnets, self.attentions, self.motion_modules = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.downsamplers, self.upsamplers = nn.ModuleList(), nn.ModuleList()

    def layers(self) -> Iterator[tuple[ResnetBlock2D, Transformer2DModel | None, AnimateDiffTransformer3D | None]]:
        """Yield residual block, attention site and motion module of each layer."""
        for i, resnet in enumerate(self.resnets):
            yield (resnet, self.attentions[i] if len(self.attentions) else None,
                   self.motion_modules[i] if len(self.motion_modules) else None)


class FeatureSite(nn.Module):
    """The last attention site of a ReferenceNet, reduced to the layers that its features need."""

    def __init__(self, site: Transformer2DModel):
        super().__init__()
        self.norm, self.proj_in = site.norm, site.proj_in
        self.transformer_blocks = nn.ModuleList([nn.Module()])
        self.transformer_blocks[0].norm1 = site.transformer_blocks[0].norm1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features (M, N, C) of (M, C, h, w)."""
        return self.transformer_blocks[0].norm1(self.proj_in(self.norm(x)).flatten(2).transpose(1, 2))


class UNet(nn.Module):
    """A denoiser or a ReferenceNet.

    Args:
        config: sizes.
        in_channels: channels of the latents, and of the mask for a ReferenceNet.
        out_channels: channels of the prediction; None: a ReferenceNet, which ends at its last attention site.
        side: h = w of the latents, for position codes.
        temporal_heads: heads of the motion modules; None: no motion modules.
        max_frames: number of frames of the longest clip that the motion modules take.
    """

    def __init__(self, config: UNetConfig, in_channels: int, out_channels: int | None, side: int,
                 temporal_heads: int | None = None, max_frames: int | None = None):
        super().__init__()
        self.config, channels, innermost = config, config.channels, len(config.channels) - 1
        self.is_reference = out_channels is None

        def layer(level: Level, depth: int, width_in: int, attention: bool) -> None:
            level.resnets.append(ResnetBlock2D(in_channels=width_in, out_channels=channels[depth], eps=1e-5,
                                               temb_channels=4 * channels[0], groups=config.norm_groups))
            if attention:
                level.attentions.append(_site(config, depth, side >> depth))
            if temporal_heads is not None:
                level.motion_modules.append(_motion_module(config, channels[depth], temporal_heads, max_frames))

        self.conv_in = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        if config.positions:
            self.position_embedding = nn.Linear(channels[0], channels[0], bias=False)
            self.register_buffer("code", torch.from_numpy(grid_position_code(side, channels[0])), persistent=False)
        self.time_embedding = TimestepEmbedding(channels[0], 4 * channels[0])

        self.down_blocks, skips = nn.ModuleList(), [channels[0]]
        for depth, width in enumerate(channels):
            level = Level()
            for i in range(config.layers):
                layer(level, depth, width if i else channels[max(depth - 1, 0)], config.attention[depth])
                skips.append(width)
            if depth < innermost:
                level.downsamplers.append(Downsample2D(width, use_conv=True, padding=1, name="op"))
                skips.append(width)
            self.down_blocks.append(level)

        self.mid_block = Level()
        layer(self.mid_block, innermost, channels[-1], attention=True)
        self.mid_block.resnets.append(ResnetBlock2D(in_channels=channels[-1], out_channels=channels[-1], eps=1e-5,
                                                    temb_channels=4 * channels[0], groups=config.norm_groups))

        self.up_blocks, width = nn.ModuleList(), channels[-1]
        for depth in range(innermost, -1, -1):
            level = Level()
            for _ in range(config.layers + 1):
                layer(level, depth, width + skips.pop(), config.attention[depth])
                width = channels[depth]
            if depth:
                level.upsamplers.append(Upsample2D(width, use_conv=True))
            self.up_blocks.append(level)

        if self.is_reference:
            self._end_at_the_last_site()
        else:
            self.conv_norm_out = nn.GroupNorm(config.norm_groups, channels[0], eps=1e-5)
            self.conv_out = nn.Conv2d(channels[0], out_channels, 3, padding=1)

    def _end_at_the_last_site(self) -> None:
        """Delete the layers after the last attention site, which no feature depends on."""
        while not len(self.up_blocks[-1].attentions):
            del self.up_blocks[-1]
        last = self.up_blocks[-1]
        last.attentions[-1] = FeatureSite(last.attentions[-1])
        last.upsamplers = nn.ModuleList()

    def sites(self) -> list[BasicTransformerBlock]:
        """Return the transformer block of every attention site, in the order of execution."""
        return [site.transformer_blocks[0] for level in (*self.down_blocks, self.mid_block, *self.up_blocks)
                for site in level.attentions]

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, *, frames: int = 1, bias: torch.Tensor | None = None,
                sites: Sequence[Site] | None = None, temporal: bool = False
                ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Run the network.

        Args:
            x: (B * F, c, h, w) latents, with the mask's channel for a ReferenceNet.
            timesteps: (B * F,) diffusion time in [0, 1000]; 0 for clean references.
            frames: F.
            bias: (B * F, C_0, h, w) keypoint features to add to the first features.
            sites: inputs of each attention site; None: no site has any.
            temporal: run the motion modules.

        Returns:
            The prediction (B * F, out_channels, h, w). A ReferenceNet returns the features (B * F, N, C) of every site.
        """
        code = get_timestep_embedding(timesteps, self.config.channels[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        time = self.time_embedding(code.to(x.dtype))
        x = self.conv_in(x)
        if self.config.positions:
            x = x + self.position_embedding(self.code).T.unflatten(1, x.shape[2:])
        if bias is not None:
            x = x + bias
        features: list[torch.Tensor] = []
        pending = iter(sites or ())

        def run(x, resnet, site, motion_module):
            x = resnet(x, time)
            if isinstance(site, FeatureSite):
                features.append(site(x))
            elif site is not None:
                given = next(pending, Site())
                if self.is_reference:
                    given = replace(given, features=features)
                x = site(x, cross_attention_kwargs={"site": given}, return_dict=False)[0]
            return motion_module(x, num_frames=frames) if temporal and motion_module is not None else x

        skips = [x]
        for level in self.down_blocks:
            for layer in level.layers():
                x = run(x, *layer)
                skips.append(x)
            for downsampler in level.downsamplers:
                x = downsampler(x)
                skips.append(x)
        first, last = self.mid_block.resnets
        x = run(x, first, self.mid_block.attentions[0], next(iter(self.mid_block.motion_modules), None))
        x = last(x, time)
        for level in self.up_blocks:
            for layer in level.layers():
                x = run(torch.cat([x, skips.pop()], 1), *layer)
            for upsampler in level.upsamplers:
                x = upsampler(x)
        if self.is_reference:
            return tuple(features)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


def _site(config: UNetConfig, depth: int, side: int) -> Transformer2DModel:
    width, heads = config.channels[depth], config.heads[depth]
    site = Transformer2DModel(heads, width // heads, width, num_layers=1, norm_num_groups=config.norm_groups,
                              cross_attention_dim=config.context_dim)
    block = site.transformer_blocks[0]
    if config.positions:
        block.attn1 = PlacedAttention(width, heads, side)
    block.attn1.set_processor(ReferenceAttention())
    if block.attn2 is not None:
        block.attn2.set_processor(EmbeddingAttention())
    _narrow(block, width, config.feedforward_multiplier)
    return site


def _motion_module(config: UNetConfig, width: int, heads: int, max_frames: int) -> AnimateDiffTransformer3D:
    module = AnimateDiffTransformer3D(heads, width // heads, width, norm_num_groups=config.norm_groups,
                                      positional_embeddings="sinusoidal", num_positional_embeddings=max_frames)
    _narrow(module.transformer_blocks[0], width, config.feedforward_multiplier)
    return module


def _narrow(block: BasicTransformerBlock, width: int, multiplier: int) -> None:
    """Replace diffusers' feed-forward layer, which is four times as wide as its input, if another width is needed."""
    if multiplier != 4:
        block.ff = FeedForward(width, mult=multiplier, activation_fn="geglu")

