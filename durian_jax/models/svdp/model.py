"""Stable Video-Driven Portraits (SVDP, arXiv 2509.17476), with attributes from other photos (arXiv 2509.04434).

Axis letters: B clips, F frames, T history frames, A attributes, H x W pixels, h x w latents, c latent channels,
N tokens of a picture, S tokens kept of a driving frame.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from durian_jax.models.attention import AttentionMethod
from durian_jax.models.codecs.latent_model import LatentModel
from durian_jax.models.codecs.make import make_codec
from durian_jax.models.mmdit.blocks import Seen
from durian_jax.models.mmdit.mmdit import Aligned, Group, MMDiT, Place, beside
from durian_jax.models.mmdit.retouch import Pixels
from durian_jax.models.svdp.conditions import DRIVING, HISTORY, SOURCE, Condition, References, join_keys, one_frame
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


def history_motion(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The fields of a batch whose frames are the history: the driver's regions there, and no history."""
    motion = {"driving_latents": "history_driving_latents", "driving_regions": "history_regions",
              "driving_masks": "history_masks",
              **{f"{name}{end}": f"history_{name}{end}" for name in MOVED for end in ("", "_latents", "_masks")}}
    kept = {name: x for name, x in batch.items() if not name.startswith("history") and name not in motion}
    return {**kept, **{name: batch[source] for name, source in motion.items() if source in batch}}


class SVDP(LatentModel):
    """Transformer and codec. Every method is pure; conditions go in and out as values.

    Attributes:
        config: sizes.
        remat: what the backward pass recomputes, see `layers.REMAT_POLICIES`.
        attention: how attention is computed.
    """

    config: SVDPConfig
    remat: str = "none"
    attention: AttentionMethod = AttentionMethod()

    def setup(self):
        cfg = self.config
        self.codec = make_codec(cfg.codec, cfg.dtype)
        self.transformer = MMDiT(cfg.mmdit, cfg.codec.latent_channels, GROUPS, cfg.aligned_count, cfg.codec.downscale,
                                 cfg.dtype, self.remat, self.attention)

    # --- pictures and latents -------------------------------------------------------------------------

    def probe(self, images: jax.Array) -> dict[str, jax.Array]:
        """Name -> output of the encoding network for images (M, H, W, 3) in [-1, 1]."""
        return {"latents": self.encode(images)}

    def _encoded(self, batch: Mapping[str, jax.Array], latents: str, images: str, masks: str | None = None,
                 visible: jax.Array | None = None) -> tuple[jax.Array, jax.Array | None]:
        """Latents of a picture field and its mask at their size; nothing here is trained.

        Args:
            latents, images, masks: names of the fields; encoded samples have latents and small masks.
            visible: factor of the picture; None: 1.
        """
        if latents in batch:
            return batch[latents], None if masks is None else batch[masks]
        pictures = batch[images] if visible is None else batch[images] * visible
        found = jax.lax.stop_gradient(self.encode(pictures)) if pictures.size else jnp.zeros(
            (*pictures.shape[:-3], *[self.config.latent_size] * 2, self.config.codec.latent_channels))
        if masks is None:
            return found, None
        return found, jax.image.resize(batch[masks], (*found.shape[:-1], 1), "linear")

    def frame_latents(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        """Latents (B, F, h, w, c) of the frames to reconstruct."""
        return self._encoded(batch, "frame_latents", "frames")[0]

    def history_latents(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        """Latents (B, T, h, w, c) of the frames before."""
        return self._encoded(batch, "history_latents", "history")[0]

    def _source(self, batch):
        visible = None if "portrait_latents" in batch else 1 - batch["portrait_mask"]
        return self._encoded(batch, "portrait_latents", "portrait", "portrait_mask", visible)

    def _attributes(self, batch):
        visible = None if "attribute_latents" in batch else batch["attribute_masks"]
        return self._encoded(batch, "attribute_latents", "attributes", "attribute_masks", visible)

    def _driving(self, batch):
        visible = None if "driving_latents" in batch else batch["driving_masks"]
        return self._encoded(batch, "driving_latents", "driving_regions", "driving_masks", visible)

    def _moved(self, batch):
        return tuple(self._encoded(batch, f"{name}_latents", name, f"{name}_masks",
                                   None if f"{name}_latents" in batch else batch[f"{name}_masks"]) for name in MOVED)

    def encode_batch(self, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """A batch of pictures -> the fields of an encoded batch (`SVDPConfig.batch_spec`)."""
        fields = {name: batch[name] for name in ("attribute_valid", "history_valid")}
        fields["frame_latents"], fields["frame_masks"] = self._encoded(batch, "frame_latents", "frames", "frame_masks")
        fields["portrait_latents"], fields["portrait_mask"] = self._source(batch)
        fields["attribute_latents"], fields["attribute_masks"] = self._attributes(batch)
        fields["driving_latents"], fields["driving_masks"] = self._driving(batch)
        before = self._driving(history_motion(batch))
        if self.config.aligned_pictures:
            for prefix, frames in (("", batch), ("history_", history_motion(batch))):
                for name, (latents, masks) in zip(MOVED, self._moved(frames), strict=True):
                    fields |= {f"{prefix}{name}_latents": latents, f"{prefix}{name}_masks": masks}
        return {**fields, "history_latents": self.history_latents(batch), "history_driving_latents": before[0],
                "history_masks": before[1]}

    # --- conditions -----------------------------------------------------------------------------------

    @property
    def _one_way(self) -> bool:
        return self.config.mode == "one_way"

    def _group(self, latents: jax.Array, places: Sequence[Place], masks: jax.Array, capacity: float = 1.0) -> Group:
        """Embed pictures and keep the share `capacity` of their tokens, those with most of the mask."""
        group = self.transformer.embed(latents, places, masks)
        if capacity == 1 or not latents.shape[1]:
            return group
        side = self.config.latent_size // self.config.mmdit.patch
        return group.kept(kept_index(masks[..., 0], side, capacity))

    def references(self, batch: Mapping[str, jax.Array]) -> References:
        """Source and attributes of a video: tokens in "joint", keys of every layer in "one_way"."""
        cfg = self.config
        latents, mask = self._source(batch)
        source = self._group(latents[:, None], [SOURCE_PLACE], 1 - mask[:, None])
        aligned = [latents, 1 - mask] if cfg.aligned_pictures else []
        if cfg.retouches:
            known = 1 - batch["portrait_mask"]
            aligned += [batch["portrait"] * known, known]
        latents, masks = self._attributes(batch)
        places = attribute_places(latents.shape[1], cfg.mmdit.positions == "canvas")
        if not latents.shape[1]:
            places, attributes = (), None
        else:
            attributes = self._group(latents, places, masks, cfg.attribute_capacity)
        if not self._one_way:
            return References(source, attributes, *aligned)
        run = lambda group: None if group is None else one_frame(self.transformer.condition_keys(group))
        return References(run(source), run(attributes), *aligned)

    def condition(self, batch: Mapping[str, jax.Array], references: References | None = None,
                  history: tuple[jax.Array, jax.Array] | None = None) -> Condition:
        """All that `denoise` needs besides latents and time.

        Args:
            references: from `references`; None: computed here.
            history: latents (B, T, h, w, c) and timesteps (B, T) that replace the batch's clean history.
        """
        latents, masks = self._driving(batch)
        driving = self._group(latents, [DRIVING_PLACE], masks, self.config.driving_capacity)
        before, history_valid, times = None, None, None
        if history is None and any(name in batch and batch[name].shape[1] for name in ("history", "history_latents")):
            history = self.history_latents(batch), None
        if history is not None:
            before = self.transformer.embed(history[0], [HISTORY_PLACE])
            times = jnp.zeros(before.tokens.shape[:2]) if history[1] is None else history[1]
            history_valid = batch["history_valid"] > 0
        if self._one_way:
            driving = self.transformer.condition_keys(driving)
            if before is not None:
                before = self.transformer.history_keys(before, times, self._times(-times.shape[1], 0))
        references = self.references(batch) if references is None else references
        under, features, pixels = None, None, None
        if self.config.aligned_pictures:
            under = (*self._moved(batch), (latents, masks))
        if self.config.has_stem:
            moved = [batch[name] * batch[f"{name}_masks"] for name in MOVED]
            driven = batch["driving_regions"] * batch["driving_masks"]
            fine, features = self.transformer.picture_features(jnp.concatenate([*moved, driven], -1))
        if self.config.retouches:
            whole = lambda x, like: jnp.broadcast_to(x[:, None], like.shape)
            known = [batch[f"{name}_masks"] for name in MOVED]
            pixels = Pixels(jnp.stack([whole(references.picture, moved[0]), *moved], 2),
                            jnp.stack([whole(references.known, known[0]), *known], 2), fine)
        return Condition(references, batch["attribute_valid"] > 0, batch.get("attribute_weights"), driving, under,
                         features, pixels, before, times, history_valid)

    def finished(self, frames: jax.Array, condition: Condition) -> jax.Array:
        """Decoded frames (B, F, H, W, 3) float32, about [-1, 1] -> frames, retouched if the model does that."""
        return self.retouched(frames, condition)[0]

    def retouched(self, frames: jax.Array, condition: Condition
                  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array] | None]:
        """`finished` frames, and the pictures that they may take over with their masks, as shifted onto them.

        Pictures are (B, F, G, H, W, 3), masks (B, F, G, H, W, 1); None: the model does not retouch.
        """
        if condition.pixels is None:
            return frames, None
        shown = condition.shown(DRIVING, jnp.ones((len(frames), 1, 1, 1, 1), bool))
        found, *shifted = self.transformer.retouched(frames, condition.pixels)
        return jnp.where(shown, found, frames), tuple(shifted)

    def branches(self, condition: Condition) -> tuple[Condition, ...]:
        """The conditions of signal fusion (paper): u, s, d and, with history, p."""
        return condition.branches()

    # --- denoising ------------------------------------------------------------------------------------

    def _side(self) -> tuple[int, int]:
        return (self.config.latent_size // self.config.mmdit.patch,) * 2

    def _times(self, start: int, stop: int) -> jax.Array:
        return self.transformer.video_angles(range(start, stop), self._side())

    def denoise(self, latents: jax.Array, timesteps: jax.Array, condition: Condition, temporal: bool = False
                ) -> jax.Array:
        """The transformer's prediction.

        Args:
            latents: (B, F, h, w, c) noisy latents.
            timesteps: (B, F) in [0, 1000].
            condition: from `condition` or `branches`.
            temporal: run the video attention; without, history takes no part.

        Returns:
            (B, F, h, w, c) float32 in the parametrisation that the model was trained with.
        """
        b, f = latents.shape[:2]
        noisy = self.transformer.embed(latents, [NOISY])
        n, options = noisy.tokens.shape[2], {}
        parts = self._parts(condition, f)
        if parts:
            join = join_keys if self._one_way else beside
            options["condition_keys" if self._one_way else "condition_tokens"] = join([part for part, _ in parts])
            options["seen"] = self._seen(condition, n, [mask for _, mask in parts])
        if self.config.aligned_pictures:
            options["aligned"] = self._aligned(condition, latents)
        if temporal:
            options["times"] = self._times(0, f)
            if condition.history is not None:
                valid = condition.history_valid[:, None]
                t = condition.history_timesteps.shape[1]
                if self._one_way:
                    options["history_keys"] = condition.history
                else:
                    options.update(history=condition.history, history_timesteps=condition.history_timesteps,
                                   history_times=self._times(-t, 0))
                before = jnp.broadcast_to(condition.shown(HISTORY, valid), (b, t))
                options["frames_seen"] = jnp.concatenate([jnp.ones((b, f), bool), before], 1)
        return self.transformer(noisy, timesteps, self._side(), **options).astype(jnp.float32)

    def _aligned(self, condition: Condition, latents: jax.Array) -> Aligned:
        """What lies under every noisy frame (B, F, h, w, c): the source as it is, moved references, the driver."""
        (b, f, h, w, _), everyone = latents.shape, jnp.ones((latents.shape[0], 1, 1, 1, 1), bool)

        def shown(level, *parts):
            seen = condition.shown(level, everyone)
            return [jnp.broadcast_to(x * seen, (b, f, *x.shape[2:])) for x in parts]
        hidden = [jnp.zeros_like(latents), jnp.zeros((b, f, h, w, 1), latents.dtype)]
        references, under = condition.references, condition.under
        source = hidden if references is None else shown(SOURCE, references.latents[:, None],
                                                         references.visible[:, None])
        driven = [hidden] * (len(MOVED) + 1) if under is None else [shown(DRIVING, *pair) for pair in under]
        features = None
        if self.config.has_stem:
            (features,) = [jnp.zeros((b, f, h, w, 2 * self.config.mmdit.stem_width))] if condition.features is None \
                else shown(DRIVING, condition.features)
        return Aligned(*(jnp.stack(parts, 2) for parts in zip(source, *driven, strict=True)), features)

    def _seen(self, condition: Condition, tokens: int, masks: list[jax.Array]) -> Seen | None:
        """What frames of `tokens` tokens see of themselves and of groups with these masks; None: all."""
        if condition.all_shown:
            return None
        b = masks[0].shape[0]
        weight = condition.attribute_weights
        weight = jnp.ones((b, 1, 1)) if weight is None else jnp.maximum(weight, 0)
        masks = [jnp.broadcast_to(mask, (b, weight.shape[2], mask.shape[2]))
                 for mask in (jnp.ones((b, 1, tokens), bool), *masks)]
        return Seen(jnp.concatenate(masks, 2), weight)

    def _parts(self, condition: Condition, frames: int) -> list[tuple[Any, jax.Array]]:
        """The groups of tokens that frames see, each with its mask (B, 1 or M, tokens); M attentions are blended."""
        parts = []

        def add(part, level: int, valid: jax.Array, per_frame: bool = False) -> None:
            """`valid` is (B, M, pictures)."""
            if not self._one_way and not per_frame:
                part = part.for_frames(frames)
            tokens = part[0][0].key.shape[2] if self._one_way else part.tokens.shape[2]
            pictures = condition.shown(level, valid)
            parts.append((part, jnp.repeat(pictures, tokens // pictures.shape[2], 2)))

        everyone = lambda x: jnp.ones((x.shape[0], 1, 1), bool)
        if condition.references is not None:
            valid = condition.attribute_valid[:, None]
            add(condition.references.source, SOURCE, everyone(valid))
            if condition.references.attributes is not None:
                if condition.attribute_weights is not None:
                    composed = condition.attribute_weights[:, :1] < 0
                    valid = valid & (jnp.eye(valid.shape[2], dtype=bool) | composed)
                add(condition.references.attributes, SOURCE, valid)
        if condition.driving is not None:
            first = condition.driving[0][0].key if self._one_way else condition.driving.tokens
            add(condition.driving, DRIVING, everyone(first), per_frame=True)
        return parts

    def __call__(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        """Run every network once on a training batch, for initialisation."""
        latents, condition = self.frame_latents(batch), self.condition(batch)
        self.finished(self.decode(latents), condition)
        return self.denoise(latents, jnp.zeros(latents.shape[:2]), condition, temporal=True)


def make_model(config: SVDPConfig, remat: str = "none", attention: AttentionMethod | None = None) -> SVDP:
    """See `ModelConfig.create`."""
    return SVDP(config, remat, attention or AttentionMethod())
