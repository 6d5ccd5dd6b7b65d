"""The U-Net that DNet, ARNet and PRNet share (Stable Diffusion 1.5's shape, any size).

Axis letters: B clips, F frames, h x w latents, N = h * w tokens, G reference groups, C channels.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from durian_jax.models.attention import AttentionMethod, KeyValues, ReferenceSet
from durian_jax.models.attention.kept_tokens import KeptTokens
from durian_jax.models.layers import (
    REMAT_POLICIES,
    conv,
    dense,
    group_norm,
    merge_frames,
    split_frames,
    timestep_embedding,
    zeros_init,
)
from durian_jax.models.positions import grid_position_code
from durian_jax.models.resnet import Downsample, ResnetBlock, Upsample
from durian_jax.models.unet.config import UNetConfig
from durian_jax.models.unet.motion import MotionModule
from durian_jax.models.unet.transformer import SiteReferences, SpatialTransformer


class UNet(nn.Module):
    """A denoiser, or the reference network that feeds one.

    Attributes:
        config: sizes.
        out_channels: channels of the prediction; None makes a ReferenceNet, which ends at its last
            attention site because nothing after it is ever used.
        temporal_heads: heads of the motion modules; None builds none.
        remat: a key of `layers.REMAT_POLICIES`.
        attention: how attention in space is computed.
    """

    config: UNetConfig
    out_channels: int | None
    temporal_heads: int | None = None
    dtype: str = "float32"
    remat: str = "none"
    attention: AttentionMethod = AttentionMethod()

    def setup(self):
        cfg = self.config
        policy = REMAT_POLICIES[self.remat]
        # The number in `static` is the position of `frames` among the arguments of a call, counting self.
        block = lambda cls, static=(): cls if policy is None else nn.remat(cls, policy=policy, static_argnums=static)
        resnet_block, transformer = block(ResnetBlock), block(SpatialTransformer, (2,))
        motion_module = block(MotionModule, (2,))
        levels = list(range(len(cfg.channels)))
        is_reference = self.out_channels is None
        self.conv_in = conv(cfg.channels[0], dtype=self.dtype)
        if cfg.positions:
            self.position_embedding = dense(cfg.channels[0], use_bias=False, kernel_init=zeros_init, dtype=self.dtype)
        self.time_embedding_1 = dense(4 * cfg.channels[0], dtype=self.dtype)
        self.time_embedding_2 = dense(4 * cfg.channels[0], dtype=self.dtype)

        def resnet(level):
            return resnet_block(cfg.channels[level], cfg.norm_groups, self.dtype)

        def attention(level, last=False):
            return transformer(cfg.channels[level], cfg.heads[level], cfg.norm_groups, cfg.positions,
                               cross_attention=cfg.context_dim is not None,
                               feedforward_multiplier=cfg.feedforward_multiplier,
                               features_only=is_reference and last, dtype=self.dtype, attention=self.attention)

        def motion():
            return motion_module(self.temporal_heads, cfg.norm_groups, cfg.feedforward_multiplier, self.dtype)

        temporal = self.temporal_heads is not None
        down = [level for level in levels for _ in range(cfg.layers)]
        self.down_resnets = [resnet(level) for level in down]
        self.down_attentions = [attention(level) if cfg.attention[level] else None for level in down]
        self.down_motion_modules = [motion() if temporal else None for _ in down]
        self.downsamplers = [Downsample(cfg.channels[level], self.dtype) for level in levels[:-1]]

        innermost = levels[-1]
        self.mid_resnet_0 = resnet(innermost)
        self.mid_attention = attention(innermost)
        self.mid_motion_module = motion() if temporal else None
        self.mid_resnet_1 = resnet(innermost)

        up = [level for level in reversed(levels) for _ in range(cfg.layers + 1)]
        sites = [i for i, level in enumerate(up) if cfg.attention[level]]
        if is_reference:  # nothing after the last attention site is built
            up = up[:sites[-1] + 1]
        self.up_resnets = [resnet(level) for level in up]
        self.up_attentions = [attention(level, last=i == sites[-1]) if cfg.attention[level] else None
                              for i, level in enumerate(up)]
        self.up_motion_modules = [motion() if temporal else None for _ in up]
        self.upsamplers = [Upsample(cfg.channels[level], self.dtype) for level in levels[:0:-1]]
        if not is_reference:
            self.conv_norm_out = group_norm(cfg.norm_groups)
            self.conv_out = conv(self.out_channels, kernel_init=zeros_init, dtype=self.dtype)

    @property
    def site_count(self) -> int:
        """Number of attention sites."""
        return len(self._sites())

    def _sites(self) -> list[SpatialTransformer]:
        sites = [*self.down_attentions, self.mid_attention, *self.up_attentions]
        return [site for site in sites if site is not None]

    def project_references(self, features: Sequence[jax.Array], kept: Sequence[KeptTokens] | None = None
                           ) -> tuple[KeyValues, ...]:
        """Project the reference features of every attention site to this network's keys and values.

        Args:
            features: (B, G, N, C) of every site.
            kept: the tokens to keep at every site; None: all.
        """
        kept = kept or (None,) * len(features)
        return tuple(site.attn1.project(*tokens) for site, *tokens in zip(self._sites(), features, kept, strict=True))

    def run_motion(self, motion_module: nn.Module, x: jax.Array, frames: int,
                   references: Sequence[SiteReferences] | None) -> jax.Array:
        """Run a motion module on the frames (B * F, h, w, C)."""
        return motion_module(x, frames)

    def __call__(self, x: jax.Array, timesteps: jax.Array, *, bias: jax.Array | None = None,
                 references: Sequence[SiteReferences] | None = None, selection: ReferenceSet | None = None,
                 context: jax.Array | None = None, temporal: bool = False
                 ) -> tuple[jax.Array | None, tuple[jax.Array, ...]]:
        """Run the network.

        Args:
            x: (B, F, h, w, c) latents, with the mask channel for a ReferenceNet.
            timesteps: (B, F) diffusion time in [0, 1000]; 0 for clean references.
            bias: (B, F, h, w, C_0) added to the first features (keypoints).
            references: of every attention site, such as `project_references` returns; None: self-attention only.
            selection: which references take part; needed with `references`.
            context: (B, A, context_dim) image embeddings for cross-attention.
            temporal: run the motion modules.

        Returns:
            The prediction (B, F, h, w, out_channels), or None for a ReferenceNet, and the features
            (B, F, N, C) of every attention site.
        """
        cfg = self.config
        frames = x.shape[1]
        code = timestep_embedding(merge_frames(timesteps), cfg.channels[0]).astype(self.dtype)
        time = self.time_embedding_2(nn.silu(self.time_embedding_1(code)))
        x = self.conv_in(merge_frames(x))
        if cfg.positions:
            code = jnp.asarray(grid_position_code(x.shape[1], cfg.channels[0]), self.dtype)
            x += self.position_embedding(code).reshape(1, *x.shape[1:])
        if bias is not None:
            x += merge_frames(bias)

        features = []
        pending = iter(references) if references is not None else None

        def layer(x, resnet, site, motion_module):
            x = resnet(x, time)
            if site is not None:
                key_values = next(pending) if pending is not None else None
                x, site_features = site(x, frames, key_values, selection, context)
                features.append(site_features)
            if temporal and motion_module is not None:
                x = self.run_motion(motion_module, x, frames, references)
            return x

        skips = [x]
        blocks = list(zip(self.down_resnets, self.down_attentions, self.down_motion_modules, strict=True))
        for level in range(len(cfg.channels)):
            for block in blocks[level * cfg.layers:(level + 1) * cfg.layers]:
                x = layer(x, *block)
                skips.append(x)
            if level < len(self.downsamplers):
                x = self.downsamplers[level](x)
                skips.append(x)

        x = layer(x, self.mid_resnet_0, self.mid_attention, self.mid_motion_module)
        x = self.mid_resnet_1(x, time)

        for i, block in enumerate(zip(self.up_resnets, self.up_attentions, self.up_motion_modules, strict=True)):
            step = i % (cfg.layers + 1)
            if i and step == 0:
                x = self.upsamplers[i // (cfg.layers + 1) - 1](x)
            x = layer(jnp.concatenate([x, skips.pop()], -1), *block)

        if self.out_channels is None:
            return None, tuple(features)
        x = self.conv_out(nn.silu(self.conv_norm_out(x)))
        return split_frames(x, frames), tuple(features)
