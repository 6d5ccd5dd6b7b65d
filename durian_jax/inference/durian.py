"""Durian's inputs as batches: the masked portrait, the attributes' pixels, and the motion in windows.

T frames of the video, F frames of a window, A attributes, H x W pixels, K keypoints. A photo is a clip of one frame.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip
from durian_jax.faces.face_crop import face_crop
from durian_jax.faces.fill_region import LAYERS, ordered_layers
from durian_jax.faces.retarget import retarget
from durian_jax.faces.topology import K
from durian_jax.images import to_uint8
from durian_jax.inference.references import Attributes, Interpolation, blend_weights, stacked_references
from durian_jax.inference.windows import cross_fade, window_starts
from durian_jax.models.durian.config import DurianConfig

if TYPE_CHECKING:
    from durian_jax.checkpoints.weights import Checkpoint
    from durian_jax.inference.backend import Backend

DRIVEN_BY = "keypoints"
OPTIONS = ("interpolate", "order", "align_attributes")
IN_PLACE: dict[str, bool] = {}


@dataclass(frozen=True)
class WindowsJob:
    """A video in overlapping windows that do not depend on each other; see `inference.family.Job`.

    Attributes:
        batch: reference fields and attribute_valid.
        keypoints: (T, K, 3) of the whole video.
        window: F.
        weights: (T, A) blend the attributes, see `inference.references.blend_weights`; None: they are composed.
    """

    batch: dict[str, np.ndarray]
    keypoints: np.ndarray
    window: int
    weights: np.ndarray | None = None

    @property
    def starts(self) -> list[int]:
        """First frame of every window."""
        return window_starts(len(self.keypoints), self.window)

    def segment(self, number: int, previous: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """The keypoints of a window and, to interpolate, attribute_weights."""
        part = slice(self.starts[number], self.starts[number] + self.window)
        fields = {"keypoints": self.keypoints[None, part]}
        return fields if self.weights is None else {**fields, "attribute_weights": self.weights[None, part]}

    def join(self, segments: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Cross-fade the windows."""
        return cross_fade(segments, self.starts)


def check_motion(config: DurianConfig, fps: float, frames: int, **options: Any) -> None:
    """Refuse a driving video; see `inference.family.FamilyInference`. Keypoints have no frame rate."""


def motion_fields(config: DurianConfig, portrait: Clip, attributes: Attributes,
                  references: Mapping[str, np.ndarray], driving: Clip, keypoints: np.ndarray) -> dict[str, np.ndarray]:
    """The motion of a clip; see `inference.family.FamilyInference`."""
    return {"keypoints": keypoints}


def make_job(model: "Backend", portrait: Clip, attributes: Attributes, driving: Clip | np.ndarray, *,
             interpolate: Interpolation | None = None, order: Sequence[str] = (),
             align_attributes: bool = False) -> WindowsJob:
    """The job of a video, see `Animator.animate`.

    Args:
        interpolate: blend attributes instead of composing them (paper, "attribute interpolation"), see
            `inference.references.blend_weights`.
        order: which attributes cover others, see `faces.fill_region.ordered_layers`.
        align_attributes: see `make_references`.

    Raises:
        InputError: keypoints of another shape, weights that do not fit the attributes, or an unknown kind in `order`.
    """
    keypoints = retarget(driving.keypoints, portrait.keypoints[0]) if isinstance(driving, Clip) else driving
    if keypoints.ndim != 3 or keypoints.shape[1:] != (K, 3) or not len(keypoints):
        raise InputError(f"driving keypoints: expected (T, {K}, 3) with T >= 1, found {keypoints.shape}")
    weights = blend_weights(interpolate, attributes, len(keypoints))
    batch = transfer_batch(model, [(portrait, attributes)], align_attributes=align_attributes,
                           layers=ordered_layers(order))
    return WindowsJob(batch, keypoints.astype(np.float32), min(model.config.max_frames, len(keypoints)), weights)


def transfer_batch(model: "Checkpoint | Backend", cases: Sequence[tuple[Clip, Attributes]], slots: int | None = None,
                   align_attributes: bool = False, layers: Sequence[str] = LAYERS) -> dict[str, np.ndarray]:
    """Return a batch without motion: `make_references` of every case, and identity embeddings if the model uses them.

    Args:
        model: what the batch is for; its `config` and `identity_encoder` are used.
        cases, slots: see `stacked_references`.
        align_attributes, layers: see `make_references`.
    """
    config = model.config
    assert isinstance(config, DurianConfig)
    batch = stacked_references(cases, slots, least=1, align_attributes=align_attributes, layers=layers,
                               masked=config.masked_references)
    if config.identity_dim is not None:
        assert model.identity_encoder is not None  # loading a model refuses to leave it out
        # Masked, as in training.
        faces = np.stack([face_crop(to_uint8(picture), portrait.keypoints[0])
                          for picture, (portrait, _) in zip(batch["portrait"], cases, strict=True)])
        batch["identity"] = model.identity_encoder(faces)
    return batch
