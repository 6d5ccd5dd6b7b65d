"""`durian sheet DATASET --batches N`: training samples as the model is given them, one a row."""

import cv2
import numpy as np

from durian_jax.data.pipeline import make_loader
from durian_jax.data.samples.config import DataConfig
from durian_jax.data.sources import ClipSource
from durian_jax.faces.draw import keypoint_image

_PAPER, _INK = (250, 249, 246), (38, 38, 42)
_GAP, _GROUP_GAP, _EDGE, _CAPTION = 2, 10, 10, 24
_LEAST = 112  # px; smaller pictures are enlarged by a whole number, so that captions fit above them


def batch_sheet(source: ClipSource, config: DataConfig, seed: int, count: int) -> np.ndarray:
    """The first samples that a training run with this seed is given.

    Args:
        source: where clips come from.
        config: how samples are made.
        seed: of order and of all random choices.
        count: number of samples.

    Returns:
        (H, W, 3) uint8: a row a sample; captioned columns of the frames to reconstruct, their keypoints, the
        portrait (mid grey where blanked), its mask, the attribute images (mid grey where blanked, an unused slot
        throughout) and their masks.

    Raises:
        InputError: too many undecodable records, or no sample asked for.
    """
    batch = next(iter(make_loader(source, config, seed=seed, batch_size=count, threads=1, prefetch=1)))
    columns = _columns(batch)
    scale = max(1, -(-_LEAST // config.image_size))
    columns = {name: pictures.repeat(scale, 2).repeat(scale, 3) for name, pictures in columns.items()}

    # Where each column begins.
    starts, x = [], _EDGE
    for pictures in columns.values():
        starts.append(x)
        x += pictures.shape[1] * (pictures.shape[3] + _GAP) - _GAP + _GROUP_GAP
    side = config.image_size * scale
    sheet = np.full((_CAPTION + count * (side + _GAP) - _GAP + _EDGE, x - _GROUP_GAP + _EDGE, 3), _PAPER, np.uint8)
    for start, (name, pictures) in zip(starts, columns.items(), strict=True):
        cv2.putText(sheet, name, (start, _CAPTION - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA)
        for row in range(count):
            y = _CAPTION + row * (side + _GAP)
            for place, picture in enumerate(pictures[row]):
                left = start + place * (side + _GAP)
                sheet[y:y + side, left:left + side] = picture
    return sheet


def _columns(batch: dict) -> dict[str, np.ndarray]:
    """Caption -> (B, pictures, H, W, 3) uint8."""
    height, width = batch["frames"].shape[2:4]
    drawn = (keypoint_image(batch["keypoints"], height, width) * 255).astype(np.uint8)
    return {
        "target frames": batch["frames"], "keypoints": drawn,
        "portrait": batch["portrait"][:, None], "portrait mask": _masks(batch["portrait_mask"])[:, None],
        "attribute": batch["attributes"], "attribute mask": _masks(batch["attribute_masks"])}


def _masks(masks: np.ndarray) -> np.ndarray:
    """(..., H, W, 1) uint8 of 0 and 1 as (..., H, W, 3) black and white."""
    return masks.repeat(3, -1) * np.uint8(255)
