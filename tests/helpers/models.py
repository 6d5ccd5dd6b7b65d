"""A tiny random model, its batches, and inputs of attention."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.models.attention import KeyValues, ReferenceSet
from durian_jax.models.batch import training_fields
from durian_jax.models.codecs.config import CodecConfig
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.family import ModelConfig
from durian_jax.models.parameters import init_params, variables
from durian_jax.models.unet.config import UNetConfig

TINY = DurianConfig(
    image_size=32, max_frames=8, temporal_heads=2, keypoint_patch=4, keypoint_channels=(8,),
    unet=UNetConfig(channels=(16, 32), heads=(1, 2), attention=(False, True)),
    codec=CodecConfig(encoder_channels=(8, 16), decoder_channels=(8, 16), latent_channels=4, decoder_norm="pixel",
                      temporal_kernel=3))


@cache
def random_params(config: ModelConfig = TINY, seed: int = 0) -> dict[str, jax.Array]:
    """Return parameters in which nothing is zero, so that every path has an effect."""
    params = init_params(config, seed)
    keys = jax.random.split(jax.random.key(seed + 1), len(params))
    return {path: x + 0.05 * jax.random.normal(key, x.shape)
            for (path, x), key in zip(params.items(), keys, strict=True)}


def random_batch(config: ModelConfig = TINY, clips: int = 2, frames: int = 3, attributes: int = 1, history: int = 0
                 ) -> dict[str, np.ndarray]:
    """Return a random training batch as models take it; all attribute slots are in use."""
    rng = np.random.default_rng(0)
    spec = training_fields(config.batch_spec())
    sizes = {"B": clips, "F": frames, "A": attributes, "T": history}
    batch = {name: rng.uniform(-1, 1, field.shape(sizes)).astype(np.float32) for name, field in spec.items()}
    for name, field in spec.items():
        if field.kind == "mask":
            batch[name] = (batch[name] > 0).astype(np.float32)
    if "keypoints" in batch:
        batch["keypoints"] = abs(batch["keypoints"])
    batch.update({name: np.ones_like(batch[name]) for name in ("attribute_valid", "history_valid") if name in batch})
    return batch


def with_attributes(batch: dict, chosen: list[int]) -> dict:
    """Return the batch with the chosen attribute slots only."""
    return {**batch, **{name: batch[name][:, chosen] for name in ("attributes", "attribute_masks", "attribute_valid")}}


@partial(jax.jit, static_argnames=("config", "temporal"))
def denoise(params: dict, batch: dict, config: ModelConfig = TINY, temporal: bool = False) -> jax.Array:
    """Return the prediction for latents of the batch's frames at diffusion time 500."""
    def run(m):
        times = jnp.full(batch["frames"].shape[:2], 500.0)
        return m.denoise(m.encode(batch["frames"]), times, m.condition(batch), temporal=temporal)
    return config.create().apply(variables(params), method=run)


def attention_inputs(b: int = 2, f: int = 2, n: int = 128, sizes: tuple[int, ...] = (128, 128), h: int = 2, d: int = 8
                     ) -> tuple[list[jax.Array], KeyValues, ReferenceSet]:
    """Return queries, keys and values of frames, references of two groups, and a selection of two blends.

    The selection hides a group in some blends.
    """
    keys = iter(jax.random.split(jax.random.key(0), 5))
    make = lambda *shape: jax.random.normal(next(keys), shape)
    frames = [make(b, f, n, h, d) for _ in range(3)]
    references = KeyValues(make(b, sum(sizes), h, d), make(b, sum(sizes), h, d), sizes)
    valid = jnp.array([[[True, True], [True, False]], [[True, False], [False, False]]])
    weight = jnp.array([[0.3, 0.7], [1.0, 0.0]])
    valid, weight = jnp.tile(valid, (b // 2, 1, 1)), jnp.tile(weight, (b // 2, 1))[:, None]
    return frames, references, ReferenceSet(valid, weight, valid)
