"""`durian sheet DATASET --batches N`: training samples as the model gets them, one per row."""

import cv2
import numpy as np

from durian_jax.data.pipeline import make_loader, make_samples
from durian_jax.data.samples.config import SampleConfig
from durian_jax.data.sources import ClipSource
from durian_jax.faces.draw import keypoint_image

_PAPER, _INK = (250, 249, 246), (38, 38, 42)
_GAP, _GROUP_GAP, _EDGE, _CAPTION = 2, 10, 10, 24
_LEAST = 112  # pixels; smaller pictures are enlarged by a whole factor, so that captions fit above them


def batch_sheet(source: ClipSource, config: SampleConfig, seed: int, count: int) -> np.ndarray:
    """Draw the first samples of a training run with this seed.

    Args:
        source: where clips come from.
        config: how samples are made.
        seed: of the order and of all random choices.
        count: number of samples.

    Returns:
        (H, W, 3) uint8: one row per sample, one captioned column per field of pictures, masks or keypoints.

    Raises:
        InputError: too many undecodable records, or count below 1.
    """
    batch = next(iter(make_loader(source, config, seed=seed, batch_size=count, threads=1, prefetch=1)))
    # Grain sorts the fields of a batch by name; a sample has them in the family's order.
    columns = _columns({name: batch[name] for name in make_samples(source, config, seed)[0]}, config.image_size)
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


def _columns(batch: dict, size: int) -> dict[str, np.ndarray]:
    """Caption -> (B, pictures, H, W, 3) uint8: every field that can be drawn."""
    columns = {}
    for name, x in batch.items():
        if name == "keypoints":
            x = (keypoint_image(x, size, size) * 255).astype(np.uint8)
        elif x.shape[-3:-1] != (size, size):
            continue
        elif x.shape[-1] == 1:  # a mask of 0 and 1
            x = x.repeat(3, -1) * np.uint8(255)
        columns[name.replace("_", " ")] = x if x.ndim == 5 else x[:, None]
    return columns
