"""The transformer: groups of tokens in, a prediction for the noisy group out.

Axis letters: B clips, F frames, G pictures of a group, h x w latents, c latent channels, N = (h / patch) * (w / patch)
tokens of a picture, S tokens of other pictures, C channels, D channels of a head.
"""

from collections.abc import Sequence

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.models.attention import AttentionMethod
from durian_jax.models.layers import (
    REMAT_POLICIES,
    conv,
    dense,
    logical,
    merge_frames,
    space_to_depth,
    split_frames,
    timestep_embedding,
    zeros_init,
)
from durian_jax.models.mmdit.blocks import JointBlock, Keys, Modulation, Seen, VideoBlock, layer_norm
from durian_jax.models.mmdit.config import CHOICE_SCALE, UNKNOWN_SHARE, MMDiTConfig
from durian_jax.models.mmdit.places import Place, token_angles, token_codes, video_angles
from durian_jax.models.mmdit.retouch import PictureStem, Pixels, Retouch

_TIME_CHANNELS = 256  # of the sinusoidal code of diffusion time (Stable Diffusion 3)


@flax.struct.dataclass
class Group:
    """Tokens of pictures.

    Attributes:
        tokens: (B, G, N, C).
        angles: (..., G, N, D / 2), rotation of queries and keys in joint attention; None: none.
    """

    tokens: jax.Array
    angles: jax.Array | None = None

    def kept(self, index: jax.Array) -> "Group":
        """Only the tokens with the indices (B, G, S) of each picture."""
        take = lambda x: jnp.take_along_axis(x, index[..., None], 2, mode="promise_in_bounds")
        angles = self.angles
        if angles is not None:
            angles = take(jnp.broadcast_to(angles, (*self.tokens.shape[:3], angles.shape[-1])))
        return Group(take(self.tokens), angles)

    def for_frames(self, frames: int) -> "Group":
        """All pictures of the group beside every frame: (B, G, N, C) -> (B, F, G * N, C)."""
        def beside(x):
            b, g, n, c = x.shape
            return jnp.broadcast_to(x.reshape(b, 1, g * n, c), (b, frames, g * n, c))
        angles = self.angles
        if angles is not None:
            angles = beside(jnp.broadcast_to(angles, (*self.tokens.shape[:3], angles.shape[-1])))
        return Group(beside(self.tokens), angles)


def beside(groups: Sequence[Group]) -> Group:
    """Join the tokens of groups with equal (B, F), picture by picture."""
    shape = groups[0].tokens.shape[:2]
    tokens = jnp.concatenate([group.tokens for group in groups], 2)
    if groups[0].angles is None:
        return Group(tokens)
    whole = lambda x: jnp.broadcast_to(x, (*shape, *x.shape[-2:]))
    return Group(tokens, jnp.concatenate([whole(group.angles) for group in groups], -2))


@flax.struct.dataclass
class Aligned:
    """Pictures that lie under the noisy frames, place by place.

    They join the tokens by an embedding that starts at zero. For every latent the network chooses, by a softmax, among
    them and nothing; what it chooses is added to the prediction, which therefore must be one of clean latents.

    Attributes:
        latents: (B, F, G, h, w, c).
        masks: (B, F, G, h, w, 1), which pixels count; 0 where a picture is hidden, whose latents are then 0 as well.
        features: (B, F, h, w, 2 * stem_width), the coarse ones of `MMDiT.picture_features`; None without a stem.
    """

    latents: jax.Array
    masks: jax.Array
    features: jax.Array | None = None


LayerKeys = tuple[Keys, ...]


class MMDiT(nn.Module):
    """Stable Diffusion 3's transformer with video attention before each block, and any number of token groups.

    Attributes:
        config: sizes.
        channels: c, of latents.
        groups: number of rows of the group embedding.
        aligned: number of pictures that lie under every noisy frame, see `Aligned`.
        downscale: pixels per latent, in each direction.
        remat: a key of `layers.REMAT_POLICIES`.
        attention: how attention is computed.
    """

    config: MMDiTConfig
    channels: int
    groups: int
    aligned: int = 0
    downscale: int = 8
    dtype: str = "float32"
    remat: str = "none"
    attention: AttentionMethod = AttentionMethod()

    def setup(self):
        cfg = self.config
        policy = REMAT_POLICIES[self.remat]
        block = lambda cls: cls if policy is None else nn.remat(cls, policy=policy)
        self.patch_embedding = conv(cfg.width, cfg.patch, cfg.patch, padding=(0, 0), dtype=self.dtype)
        # Of our own, and zero at first: a pretrained transformer stays as it is.
        self.mask_embedding = dense(cfg.width, use_bias=False, kernel_init=zeros_init, dtype=self.dtype)
        self.group_embedding = self.param("group_embedding", logical(zeros_init, "norm", "out"),
                                          (self.groups, cfg.width))
        self.time_embedding_1 = dense(cfg.width, dtype=self.dtype)
        self.time_embedding_2 = dense(cfg.width, dtype=self.dtype)
        if cfg.pooled_dim is not None:
            self.pooled_embedding_1 = dense(cfg.width, dtype=self.dtype)
            self.pooled_embedding_2 = dense(cfg.width, dtype=self.dtype)
        if cfg.text_dim is not None:
            self.text_embedding = dense(cfg.width, dtype=self.dtype)
        self.blocks = [block(JointBlock)(cfg, i < cfg.dual_layers, cfg.text_dim is not None, i == cfg.layers - 1,
                                         self.dtype, self.attention) for i in range(cfg.layers)]
        self.video_blocks = [block(VideoBlock)(cfg, self.dtype, self.attention) for _ in range(cfg.layers)]
        if self.aligned:
            self.aligned_embedding = dense(cfg.width, use_bias=False, kernel_init=zeros_init, dtype=self.dtype)
            self.aligned_choice = dense(cfg.patch**2 * (1 + self.aligned), kernel_init=zeros_init, dtype=self.dtype)
        if self.aligned and cfg.stem_width:
            self.stem = PictureStem(cfg, self.downscale, self.dtype)
            self.stem_embedding = dense(cfg.width, use_bias=False, kernel_init=zeros_init, dtype=self.dtype)
        if self.aligned and cfg.retouch_layers:
            self.retouch = Retouch(cfg, self.downscale, self.dtype)
        self.norm_out = Modulation(2, self.dtype)
        self.proj_out = dense(cfg.patch**2 * self.channels, kernel_init=zeros_init, dtype=self.dtype)

    # --- tokens ---------------------------------------------------------------------------------------

    def embed(self, latents: jax.Array, places: Sequence[Place], masks: jax.Array | None = None) -> Group:
        """Turn pictures into tokens.

        Args:
            latents: (B, G, h, w, c).
            places: of the G pictures; one place serves all.
            masks: (B, G, h, w, 1), which pixels count.
        """
        cfg, (b, g, h, w, _) = self.config, latents.shape
        rows, columns = h // cfg.patch, w // cfg.patch
        x = self.patch_embedding(merge_frames(latents.astype(self.dtype)))
        tokens = split_frames(x, g).reshape(b, g, rows * columns, cfg.width)
        if masks is not None:
            patches = space_to_depth(merge_frames(masks.astype(self.dtype)), cfg.patch)
            tokens += self.mask_embedding(split_frames(patches, g).reshape(b, g, rows * columns, -1))
        places = [*places] * (g if len(places) == 1 else 1)
        tokens += self.group_embedding[np.array([place.group for place in places])][:, None].astype(self.dtype)
        if cfg.positions == "rotary":
            return Group(tokens, jnp.asarray(token_angles(cfg, places, (rows, columns))))
        return Group(tokens + jnp.asarray(token_codes(cfg, places, (rows, columns)), self.dtype))

    def video_angles(self, times: Sequence[int], side: tuple[int, int]) -> jax.Array:
        """See `places.video_angles`."""
        return jnp.asarray(video_angles(self.config, times, side))

    def time_code(self, timesteps: jax.Array) -> jax.Array:
        """(B, F) in [0, 1000] -> (B, F, C)."""
        x = timestep_embedding(timesteps, _TIME_CHANNELS).astype(self.dtype)
        code = self.time_embedding_2(nn.silu(self.time_embedding_1(x)))
        if self.config.pooled_dim is not None:
            null = jnp.zeros((1, 1, self.config.pooled_dim), self.dtype)
            code += self.pooled_embedding_2(nn.silu(self.pooled_embedding_1(null)))
        return code

    def _null_text(self, x: jax.Array) -> jax.Array | None:
        """(B, F, 1, C), the embedding of one null token for every frame of x; None without a text stream."""
        if self.config.text_dim is None:
            return None
        null = self.text_embedding(jnp.zeros((1, 1, 1, self.config.text_dim), self.dtype))
        return jnp.broadcast_to(null, (*x.shape[:2], 1, null.shape[-1]))

    def picture_features(self, pictures: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Features of the pixels under every noisy frame, for models with a stem, see `PictureStem`.

        Args:
            pictures: (B, F, H, W, any) in [-1, 1]: source and attributes turned into the driver's pose, and its
                regions, one after the other.

        Returns:
            Fine (B, F, H / p, W / p, stem_width) and coarse (B, F, h, w, 2 * stem_width) ones.
        """
        return self.stem(pictures)

    def retouched(self, frames: jax.Array, pixels: Pixels) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Retouch decoded frames (B, F, H, W, 3), for models with `retouch_layers`, see `Retouch`."""
        return self.retouch(frames, pixels)

    # --- conditions that see only themselves ----------------------------------------------------------

    def condition_keys(self, group: Group) -> tuple[LayerKeys, ...]:
        """Run pictures alone, without noise, and return the keys of every layer: (B, G, N, H, D) each."""
        x, text = group.tokens, self._null_text(group.tokens)
        code, keys = self.time_code(jnp.zeros(x.shape[:2])), []
        for block in self.blocks:
            x, text, own = block(x, text, code, group.angles)
            keys.append(own)
        return tuple(keys)

    def history_keys(self, group: Group, timesteps: jax.Array, angles: jax.Array) -> tuple[Keys, ...]:
        """Run earlier frames alone and return the keys of every video attention.

        Args:
            timesteps: (B, T) of the noise on these frames.
            angles: from `video_angles`.
        """
        x, text = group.tokens, self._null_text(group.tokens)
        code, keys = self.time_code(timesteps), []
        for i, (video, block) in enumerate(zip(self.video_blocks, self.blocks, strict=True)):
            x, own = video(x, code, angles)
            keys.append(own)
            if i < len(self.blocks) - 1:  # nothing reads what follows
                x, text, _ = block(x, text, code, group.angles)
        return tuple(keys)

    # --- the prediction -------------------------------------------------------------------------------

    def __call__(self, noisy: Group, timesteps: jax.Array, side: tuple[int, int], *,
                 condition_tokens: Group | None = None, condition_keys: Sequence[LayerKeys] | None = None,
                 seen: Seen | None = None, aligned: Aligned | None = None, times: jax.Array | None = None,
                 history: Group | None = None, history_timesteps: jax.Array | None = None,
                 history_times: jax.Array | None = None, history_keys: Sequence[Keys] | None = None,
                 frames_seen: jax.Array | None = None) -> jax.Array:
        """Predict for the noisy tokens.

        Args:
            noisy: (B, F, N, C) tokens.
            timesteps: (B, F) in [0, 1000].
            side: rows and columns of tokens of a frame.
            condition_tokens: (B, F, S, C) tokens that go through all joint blocks beside those of their frame.
            condition_keys: of every layer, the keys of S tokens that ran through the blocks alone (the method of this
                name).
            seen: which of the N + S tokens of a frame and its conditions are seen. None: all.
            aligned: pictures under the noisy frames; a model with `aligned` needs them.
            times: rotation of the frames' times (`video_angles`); None: no video attention.
            history: (B, T, N, C) tokens of earlier frames that go through all blocks beside the noisy ones.
            history_timesteps, history_times: of these.
            history_keys: of every layer, the keys of earlier frames that ran through the blocks alone (the method of
                this name).
            frames_seen: (B, F + T) bool, which frames video attention sees. None: all.

        Returns:
            (B, F, h, w, c) in the dtype of the activations.
        """
        if aligned is not None:
            noisy = noisy.replace(tokens=noisy.tokens + self._embedded(aligned))
        group = noisy if condition_tokens is None else beside([noisy, condition_tokens])
        x, n, f = group.tokens, noisy.tokens.shape[2], noisy.tokens.shape[1]
        text, code = self._null_text(x), self.time_code(timesteps)
        if history is not None:
            before, before_text = history.tokens, self._null_text(history.tokens)
            before_code = self.time_code(history_timesteps)
            all_codes, all_times = jnp.concatenate([code, before_code], 1), jnp.concatenate([times, history_times])
        for i, (video, block) in enumerate(zip(self.video_blocks, self.blocks, strict=True)):
            if times is not None:
                frames = x[:, :, :n]
                if history is not None:
                    both, _ = video(jnp.concatenate([frames, before], 1), all_codes, all_times, None, frames_seen)
                    frames, before = both[:, :f], both[:, f:]
                else:
                    frames, _ = video(frames, code, times, history_keys and history_keys[i], frames_seen)
                x = jnp.concatenate([frames, x[:, :, n:]], 2)
            x, text, _ = block(x, text, code, group.angles, condition_keys and condition_keys[i], seen)
            if history is not None and i < len(self.blocks) - 1:
                before, before_text, _ = block(before, before_text, before_code, history.angles)
        scale, shift = self.norm_out(code)
        x = (layer_norm(x[:, :, :n]) * (1 + scale) + shift).astype(self.dtype)
        prediction = self._pictures(self.proj_out(x), side)
        if aligned is not None:
            prediction += self._chosen(aligned, self._pictures(self.aligned_choice(x), side))
        return prediction

    def _chosen(self, aligned: Aligned, logits: jax.Array) -> jax.Array:
        """(B, F, h, w, c): the mixture of aligned latents by logits (B, F, h, w, 1 + G); the first is of nothing."""
        known = jnp.moveaxis(aligned.masks[..., 0], 2, -1)
        known = jnp.concatenate([jnp.ones_like(known[..., :1]), known], -1)
        shares = nn.softmax(CHOICE_SCALE * logits.astype(jnp.float32) + jnp.log(known + UNKNOWN_SHARE))[..., 1:]
        return jnp.einsum("bfhwg,bfghwc->bfhwc", shares, aligned.latents).astype(self.dtype)

    def _embedded(self, aligned: Aligned) -> jax.Array:
        """(B, F, N, C)."""
        x = jnp.concatenate([aligned.latents, aligned.masks], -1).astype(self.dtype)
        b, f, g, h, w, c = x.shape
        tokens = self.aligned_embedding(self._patches(x.transpose(0, 1, 3, 4, 2, 5).reshape(b, f, h, w, g * c)))
        return tokens if aligned.features is None else tokens + self.stem_embedding(self._patches(aligned.features))

    def _patches(self, x: jax.Array) -> jax.Array:
        """(B, F, h, w, c) -> (B, F, N, patch * patch * c)."""
        found = space_to_depth(merge_frames(x), self.config.patch)
        return found.reshape(*x.shape[:2], -1, found.shape[-1])

    def _pictures(self, x: jax.Array, side: tuple[int, int]) -> jax.Array:
        """(B, F, N, patch * patch * c) -> (B, F, h, w, c)."""
        (b, f, *_), (rows, columns), p = x.shape, side, self.config.patch
        x = x.reshape(b, f, rows, columns, p, p, -1).swapaxes(3, 4)
        return x.reshape(b, f, rows * p, columns * p, -1)
