"""Sample sheets: what people look at instead of the loss."""

import numpy as np

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.faces.draw import keypoint_image
from durian_jax.images import model_inputs, to_uint8
from durian_jax.inference.generate import decode, generate, reconstruct


def sample_sheet(checkpoint: Checkpoint, batch: dict, stage: str, rows: int = 8) -> np.ndarray:
    """A picture of (portrait | attribute | keypoints | result | truth) for the first clips of a batch.

    For the stages of the codec: (truth | reconstruction). Encoded samples are decoded first.

    Returns:
        (height, width, 3) uint8.
    """
    batch = model_inputs({name: np.asarray(value[:rows]) for name, value in batch.items()})
    if stage in ("codec", "decoder"):
        truth = batch["frames"][:, 0]
        columns = [to_uint8(truth), np.concatenate([reconstruct(checkpoint, picture[None]) for picture in truth])]
    else:
        if "frame_latents" in batch:
            pictures = [decode(checkpoint, x) for x in (
                batch["portrait_latents"], batch["attribute_latents"][:, 0], batch["frame_latents"][:, 0])]
        else:
            pictures = [to_uint8(x) for x in (batch["portrait"], batch["attributes"][:, 0], batch["frames"][:, 0])]
        portrait, attribute, truth = pictures
        keypoints = keypoint_image(batch["keypoints"][:, 0], *truth.shape[1:3])
        # One clip at a time: beside a run's state, there is not much memory left.
        clips = [{name: value[[row]] for name, value in batch.items()} for row in range(len(truth))]
        result = np.concatenate([generate(checkpoint, clip, temporal=stage == "2")[:, 0] for clip in clips])
        columns = [portrait, attribute, (keypoints * 255).astype(np.uint8), result, truth]
    return np.concatenate([np.concatenate(row, 1) for row in zip(*columns, strict=True)])
