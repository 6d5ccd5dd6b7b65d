"""The error of a denoiser's prediction of a clip; for every family."""

from collections.abc import Mapping

import jax

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
    objective, region = run.objective, batch["frame_masks"]
    latent_region = jax.image.resize(region, (*clean.shape[:-1], 1), "linear")
    latents = objective.loss(prediction, clean, noise, times, latent_region)
    if decoded is None:
        return latents, {}
    pixels = objective.weighted_error(decoded, batch["frames"], region)
    return latents + objective.pixel_weight * pixels, {"latents": latents, "pixels": pixels}
