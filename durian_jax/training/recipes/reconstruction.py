"""What the stages of all families share that reconstruct clips: the error of a prediction, checks, sample sheets."""

from collections.abc import Mapping

import jax
import numpy as np

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.errors import InputError
from durian_jax.inference.generate import generate
from durian_jax.training.config import RunConfig


def reconstruction_loss(run: RunConfig, batch: Mapping[str, jax.Array], prediction: jax.Array, clean: jax.Array,
                        noise: jax.Array, times: jax.Array, decoded: jax.Array | None
                        ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Error of the prediction and, if the objective weighs pixels, of the decoded clean frames.

    Args:
        run: its objective weighs times, pixels and the region of `batch["frame_masks"]`.
        batch: with "frame_masks" and, for pixels, "frames".
        prediction, clean, noise: (B, F, h, w, c).
        times: (B, F).
        decoded: (B, F, H, W, 3) of the predicted clean latents; None: the objective weighs no pixels.

    Returns:
        The loss and its parts.
    """
    latents = run.objective.loss(prediction, clean, noise, times, latent_region(batch, clean))
    return with_pixels(run, batch, latents, decoded, batch.get("frames"))


def latent_region(batch: Mapping[str, jax.Array], latents: jax.Array) -> jax.Array:
    """(B, F, h, w, 1): `batch["frame_masks"]` at the size of (B, F, h, w, c) latents."""
    return jax.image.resize(batch["frame_masks"], (*latents.shape[:-1], 1), "linear")


def with_pixels(run: RunConfig, batch: Mapping[str, jax.Array], latents: jax.Array, decoded: jax.Array | None,
                pictures: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss on latents and, if the objective weighs pixels, the error of `decoded` against `pictures`.

    Args:
        latents: the loss on latents.
        decoded, pictures: (B, F, H, W, 3); None: the objective weighs no pixels.

    Returns:
        The loss and its parts.
    """
    if decoded is None:
        return latents, {}
    objective, region = run.objective, batch["frame_masks"]
    parts = {"pixels": objective.weighted_error(decoded, pictures, region)}
    loss = latents + objective.pixel_weight * parts["pixels"]
    if objective.absolute_weight:
        parts["crispness"] = objective.crispness_error(decoded, pictures, region)
        loss += objective.absolute_weight * parts["crispness"]
    if objective.change_weight:
        parts["change"] = objective.change_error(decoded, pictures)
        loss += objective.change_weight * parts["change"]
    return loss, {"latents": latents, **parts}


def needs_pixels(run: RunConfig) -> bool:
    """Whether the objective weighs pixels, which encoded samples lack."""
    return run.objective.weighs_pixels


def check_joint(run: RunConfig) -> None:
    """Refuse to train the decoder without a loss that reaches it.

    Raises:
        InputError: the objective weighs no pixels.
    """
    if not run.objective.weighs_pixels:
        raise InputError(f"stage {run.stage} trains the decoder through the loss on pixels: objective.pixel_weight "
                         "must not be 0")


def sampled_frames(checkpoint: Checkpoint, batch: Mapping[str, np.ndarray], temporal: bool) -> np.ndarray:
    """(B, H, W, 3) uint8: the first frame of every clip. One clip at a time: a run's state leaves little memory."""
    clips = [{name: value[[row]] for name, value in batch.items()} for row in range(len(batch["frame_masks"]))]
    return np.concatenate([generate(checkpoint, clip, temporal=temporal)[:, 0] for clip in clips])
