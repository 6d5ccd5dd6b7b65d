"""The animator: a portrait, attributes from other photos and a motion become a video.

T frames of the video, F frames of a window, A attributes, H x W pixels, K keypoints.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from tqdm import tqdm

from durian_jax.diffusion.sampling import Sampling
from durian_jax.errors import InputError
from durian_jax.faces.arcface import IdentityEncoder
from durian_jax.faces.clip import Clip
from durian_jax.faces.retarget import retarget
from durian_jax.faces.topology import K
from durian_jax.inference.durian import reference_batch
from durian_jax.inference.windows import cross_fade, window_starts
from durian_jax.models.durian.config import DurianConfig

if TYPE_CHECKING:
    from durian_jax.checkpoints.weights import Checkpoint


class Backend(Protocol):
    """A model that can be run, whatever runs it.

    Attributes:
        config: sizes.
        identity_encoder: of portraits' faces, where the config has identity_dim.
    """

    config: DurianConfig
    identity_encoder: IdentityEncoder | None

    def project_references(self, batch: dict[str, np.ndarray]) -> Any:
        """What every window shares: see `inference.generate.project_references`."""

    def generate(self, batch: dict[str, np.ndarray], sampling: Sampling, *, blend: np.ndarray | None,
                 first_frame: int, references: Any) -> np.ndarray:
        """A batch of clips: see `inference.generate.generate`."""


class Animator:
    """A model, ready to animate.

    Args:
        model: name of a shipped checkpoint, a folder, or a loaded one, which JAX will run; or any other backend.
    """

    def __init__(self, model: "str | Path | Checkpoint | Backend" = "tiny"):
        if not hasattr(model, "generate"):
            from durian_jax.checkpoints.weights import load_checkpoint
            from durian_jax.inference.generate import JaxBackend

            model = JaxBackend(load_checkpoint(model) if isinstance(model, str | Path) else model)
        self.backend = model

    @property
    def size(self) -> int:
        """H = W of every picture, in pixels."""
        return self.backend.config.image_size

    def animate(self, portrait: Clip, attributes: Sequence[tuple[str, Clip]], driving: Clip | np.ndarray, *,
                sampling: Sampling = Sampling(), interpolate: float | Sequence[float] | None = None,
                align_attributes: bool = False) -> np.ndarray:
        """The portrait wearing the attributes, in the driver's motion.

        Args:
            portrait: photo of the identity.
            attributes: kind and photo of each; none animates the portrait as it is. Several are
                composed, and where they overlap hat > glasses > hair > beard.
            driving: a clip, whose motion is carried over to the portrait's own face relative to its
                first frame; or keypoints (T, K, 3), taken as they are.
            sampling: steps, guidance and seed.
            interpolate: blend attributes instead of composing them: alpha in [0, 1] from the first to
                the second of two (paper, "attribute interpolation"), or one weight an attribute.
            align_attributes: see `references.make_references`.

        Returns:
            (T, H, W, 3) uint8.

        Raises:
            InputError: sizes that do not fit the checkpoint, or inputs that do not fit each other.
        """
        for name, photo in (("portrait", portrait), *attributes):
            height, width = photo.frames.shape[1:3]
            if (height, width) != (self.size, self.size):
                raise InputError(f"{name} photo: the checkpoint needs {self.size} x {self.size} pixels, "
                                 f"found {width} x {height}; resize it")
        keypoints = driving
        if isinstance(driving, Clip):
            keypoints = retarget(driving.keypoints, portrait.keypoints[0])
        if keypoints.ndim != 3 or keypoints.shape[1:] != (K, 3) or not len(keypoints):
            raise InputError(f"driving keypoints: expected (T, {K}, 3) with T >= 1, found {keypoints.shape}")
        weights = _blend_weights(interpolate, len(attributes))
        backend = self.backend
        references = reference_batch(backend, [(portrait, attributes)], align_attributes=align_attributes)
        window = min(backend.config.max_frames, len(keypoints))
        starts = window_starts(len(keypoints), window)
        # One window makes its own in the same compiled function; several share them.
        shared = backend.project_references(references) if len(starts) > 1 else None
        clips = []
        for start in tqdm(starts, desc="animating", unit="window"):
            motion = keypoints[None, start:start + window].astype(np.float32)
            clips.append(backend.generate({**references, "keypoints": motion}, sampling, blend=weights,
                                          first_frame=start, references=shared)[0])
        return cross_fade(clips, starts)


def _blend_weights(interpolate: float | Sequence[float] | None, attributes: int) -> np.ndarray | None:
    """(1, A) weights that sum to 1, or None for composition."""
    if interpolate is None:
        return None
    weights = np.atleast_1d(np.asarray(interpolate, np.float32))
    if weights.size == 1:
        weights = np.concatenate([1 - weights, weights])
    if weights.size != attributes or (weights < 0).any() or abs(weights.sum() - 1) > 1e-4:
        raise InputError("interpolate: expected alpha in [0, 1] with two attributes, or one weight >= 0 an "
                         f"attribute that sum to 1; found {interpolate} with {attributes} attributes")
    return weights[None]
