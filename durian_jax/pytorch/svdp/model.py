"""SVDP's transformer and codec in PyTorch; see `models.svdp.model`.

Axis letters: B clips, F frames, T history frames, G pictures, A attributes, h x w latents, c latent channels, N tokens
of a picture, S tokens kept of it.
"""

from collections.abc import Sequence

import numpy as np
import torch

from durian_jax.models.mmdit.places import Place
from durian_jax.models.svdp.config import MOVED, SVDPConfig
from durian_jax.models.svdp.places import (
    DRIVING_PLACE,
    GROUPS,
    HISTORY_PLACE,
    NOISY,
    SOURCE_PLACE,
    attribute_places,
)
from durian_jax.models.token_importance import kept_index
from durian_jax.pytorch.codecs import make_codec
from durian_jax.pytorch.networks import Networks
from durian_jax.pytorch.svdp.blocks import Keys
from durian_jax.pytorch.svdp.conditions import Branch, Part, References, Tokens, selections
from durian_jax.pytorch.svdp.mmdit import Aligned, Group, MMDiT, beside
from durian_jax.pytorch.svdp.retouch import Pixels


class SVDP(Networks):
    """All networks of a model; a submodule is a folder of an export.

    Args:
        config: sizes.
    """

    def __init__(self, config: SVDPConfig):
        super().__init__()
        self.config = config
        stem = (config.codec.downscale, 3 * (len(MOVED) + 1)) if config.has_stem else None
        self.transformer = MMDiT(config.mmdit, config.codec.latent_channels, GROUPS, config.aligned_count, stem)
        self.vae = make_codec(config.codec, config.image_size)

    @property
    def _one_way(self) -> bool:
        return self.config.mode == "one_way"

    @property
    def _side(self) -> tuple[int, int]:
        return (self.config.latent_size // self.config.mmdit.patch,) * 2

    def _group(self, latents: torch.Tensor, places: Sequence[Place], masks: torch.Tensor, capacity: float = 1.0
               ) -> Group:
        """Tokens of pictures (B, G, c, h, w), of which only the share `capacity` that their masks show most is kept."""
        group = self.transformer.embed(latents, places, masks)
        if capacity == 1:
            return group
        index = kept_index(masks[:, :, 0].float().cpu().numpy(), self._side[0], capacity)
        return group.kept(torch.from_numpy(np.ascontiguousarray(index)).to(latents.device))

    def references(self, source: torch.Tensor, source_mask: torch.Tensor, attributes: torch.Tensor,
                   attribute_masks: torch.Tensor) -> References:
        """Source and attributes of a video: tokens in "joint", keys of every layer in "one_way".

        Args:
            source, source_mask: (B, c, h, w) latents and (B, 1, h, w) M_port.
            attributes, attribute_masks: (B, A, c, h, w) and (B, A, 1, h, w) M_attr.
        """
        of_source: Tokens = self._group(source[:, None], [SOURCE_PLACE], 1 - source_mask[:, None])
        if self._one_way:
            of_source = self.transformer.condition_keys(of_source)
        found: list[Tokens] = []
        if attributes.shape[1]:
            places = attribute_places(attributes.shape[1], self.config.mmdit.positions == "canvas")
            group = self._group(attributes, places, attribute_masks, self.config.attribute_capacity)
            found = [*self._pictures(group)] if self._one_way else [*group.pictures()]
        return References(of_source, found, *((source, 1 - source_mask) if self.config.aligned_pictures else ()))

    def _pictures(self, group: Group) -> list[Tokens]:
        """The keys of every picture of a group, which has run at once."""
        layers = [[keys.pictures() for keys in layer] for layer in self.transformer.condition_keys(group)]
        return [[tuple(keys[i] for keys in layer) for layer in layers] for i in range(group.tokens.shape[1])]

    def driving(self, latents: torch.Tensor, masks: torch.Tensor) -> Tokens:
        """The driver's regions (B, F, c, h, w) with their masks (B, F, 1, h, w), as tokens or keys."""
        group = self._group(latents, [DRIVING_PLACE], masks, self.config.driving_capacity)
        return self.transformer.condition_keys(group) if self._one_way else group

    def history(self, latents: torch.Tensor) -> Group | list[Keys]:
        """Earlier frames (B, T, c, h, w), as tokens or as keys of every video attention."""
        group = self.transformer.embed(latents, [HISTORY_PLACE])
        return self.transformer.history_keys(group, self._times(-latents.shape[1], 0)) if self._one_way else group

    def aligned(self, frames: int, references: References | None, under: Sequence[tuple[torch.Tensor, torch.Tensor]],
                features: torch.Tensor | None) -> Aligned | None:
        """What lies under every noisy frame; None for models without `aligned_pictures`.

        Args:
            frames: F.
            references: with the source; None: hidden.
            under: latents (B, F, c, h, w) and masks (B, F, 1, h, w) of each reference on the driver's face and of the
                driver; empty: hidden.
            features: (B, F, C, h, w) of their pixels, from the stem; None: hidden, or there is no stem.
        """
        if not self.config.aligned_pictures:
            return None
        side, like = self.config.latent_size, self.transformer.group_embedding
        empty = lambda channels: like.new_zeros(1, frames, channels, side, side)
        hidden = empty(self.config.codec.latent_channels), empty(1)
        source = hidden if references is None else tuple(
            x[:, None].expand(-1, frames, -1, -1, -1) for x in (references.latents, references.visible))
        shown = [source, *(under or [hidden] * (len(MOVED) + 1))]
        b = max(len(latents) for latents, _ in shown)
        if features is None and self.config.has_stem:
            features = empty(2 * self.config.mmdit.stem_width).expand(b, -1, -1, -1, -1)
        return Aligned(*(torch.stack([x.to(like.dtype).expand(b, -1, -1, -1, -1) for x in parts], 2)
                         for parts in zip(*shown, strict=True)), features)

    def branch(self, parts: list[Part], weights: np.ndarray | None = None, history: Group | list[Keys] | None = None,
               frames_seen: np.ndarray | None = None, aligned: Aligned | None = None, pixels: Pixels | None = None
               ) -> Branch:
        """What a branch of guidance sees.

        Args:
            parts: source, attributes (`conditions.attribute_parts`) and driver, as far as it sees them.
            weights: (B, F, A) blend the attributes; None: all are seen at once.
            history: from `history`.
            frames_seen: (B, F + T) bool, the frames that video attention sees; None: all.
            aligned: from `aligned`.
            pixels: by which decoded frames are retouched.
        """
        like = self.transformer.group_embedding
        seen = selections(parts, self._side[0]**2, weights, not self._one_way, like) if parts else None
        return Branch(parts, seen, history,
                      None if frames_seen is None else torch.from_numpy(frames_seen).to(like.device), aligned, pixels)

    def denoise(self, latents: torch.Tensor, timestep: float, branch: Branch, temporal: bool) -> torch.Tensor:
        """The transformer's prediction (B, F, c, h, w).

        Args:
            latents: (B, F, c, h, w) noisy latents.
            timestep: in [0, 1000].
            temporal: run the video attention; without, history takes no part.
        """
        options, tokens = {"seen": branch.seen, "aligned": branch.aligned}, [part.tokens for part in branch.parts]
        if self._one_way:
            options["condition_keys"] = tokens
        elif tokens:
            options["condition_tokens"] = beside(tokens)
        if temporal:
            options.update(times=self._times(0, latents.shape[1]), frames_seen=branch.frames_seen)
            if isinstance(branch.history, Group):
                t = branch.history.tokens.shape[1]
                options.update(history=branch.history, history_times=self._times(-t, 0))
            else:
                options["history_keys"] = branch.history
        return self.transformer(latents, timestep, NOISY, **options)

    def _times(self, start: int, stop: int) -> torch.Tensor:
        return self.transformer.times(range(start, stop), self._side)
