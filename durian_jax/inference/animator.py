"""The animator: a portrait, attributes from other photos and a motion become a video.

T frames of the video, H x W pixels, K keypoints.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from durian_jax.diffusion import Sampling
from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip
from durian_jax.families import get_family
from durian_jax.inference.backend import Backend
from durian_jax.inference.family import Job, check_options
from durian_jax.inference.references import Attributes, with_photos
from durian_jax.progress import progress_bar

if TYPE_CHECKING:
    from durian_jax.checkpoints.weights import Checkpoint


class Animator:
    """A model, ready to animate.

    Args:
        model: name of a shipped checkpoint, a folder, or a loaded checkpoint, which JAX runs; or another backend.
    """

    def __init__(self, model: "str | Path | Checkpoint | Backend" = "tiny"):
        if isinstance(model, Backend):
            self.backend: Backend = model
        else:
            from durian_jax.checkpoints.weights import load_checkpoint
            from durian_jax.inference.generate import JaxBackend

            self.backend = JaxBackend(load_checkpoint(model) if isinstance(model, str | Path) else model)

    @property
    def size(self) -> int:
        """H = W of every picture, in pixels."""
        return self.backend.config.image_size

    def animate(self, portrait: Clip, attributes: Attributes, driving: Clip | np.ndarray, *,
                sampling: Sampling | Mapping[str, Any] | None = None, progress: bool = True,
                **options: Any) -> np.ndarray:
        """Animate the portrait, wearing the attributes, by the driver's motion.

        Args:
            portrait: photo of the identity.
            attributes: kind and photo of each; none animates the portrait as it is. Several are composed, and where
                they overlap hat > glasses > hair > beard. None instead of a photo takes the portrait's own away.
            driving: T frames of any person. A model that is driven by keypoints carries their motion relative to the
                first frame over to the portrait's own face; one that is driven by pixels sees the driver's eyes, nose
                and mouth (`make_job` of the family). Or, for a model driven by keypoints, keypoints (T, K, 3) that are
                taken as they are.
            sampling: steps, guidance and seed; of a mapping, missing fields take the model's defaults; None: all of
                them.
            progress: show a progress bar.
            options: of the model's family, see its `make_job` in `inference`.

        Returns:
            (T, H, W, 3) uint8.

        Raises:
            InputError: sizes that do not fit the model, inputs that do not fit each other, or options that the
                family does not have.
        """
        return np.concatenate([*self.stream(portrait, attributes, driving, sampling=sampling, progress=progress,
                                            **options)])

    def stream(self, portrait: Clip, attributes: Attributes, driving: Clip | np.ndarray, *,
               sampling: Sampling | Mapping[str, Any] | None = None, progress: bool = True,
               **options: Any) -> Iterator[np.ndarray]:
        """Do as `animate`, and hand out frames (n, H, W, 3) uint8 as soon as they are done, so that none are kept."""
        photos = (("portrait", portrait), *with_photos(attributes))
        for name, photo in photos:
            if not isinstance(photo, Clip):
                raise InputError(f"{name} photo: expected a clip, as `annotate_image` makes it, found "
                                 f"{type(photo).__name__}")
            height, width = photo.frames.shape[1:3]
            if (height, width) != (self.size, self.size):
                raise InputError(f"{name} photo: the checkpoint needs {self.size} x {self.size} pixels, "
                                 f"found {width} x {height}; resize it")
        if not isinstance(driving, Clip | np.ndarray):
            raise InputError("driving clip: expected a clip, as `annotate_video` makes it, or keypoints, found "
                             f"{type(driving).__name__}")
        for name, points in (*((name, photo.keypoints) for name, photo in photos),
                             ("driving clip", driving.keypoints if isinstance(driving, Clip) else driving)):
            if not len(points) or not np.isfinite(points).all():
                raise InputError(f"{name}: expected keypoints of at least one frame, all finite, found the shape "
                                 f"{points.shape} with {int((~np.isfinite(points)).sum())} values that are not finite")
        check_options(self.backend.config, options)
        family = get_family(self.backend.config.family).load("inference")
        job: Job = family.make_job(self.backend, portrait, attributes, driving, **options)
        return job.join(self._segments(job, self.backend.sampling.changed(sampling), progress))

    def _segments(self, job: Job, sampling: Sampling, progress: bool) -> Iterator[np.ndarray]:
        """The job's segments (F, H, W, 3) uint8, one after the other."""
        # One segment computes its references in the same compiled function; several segments share them.
        shared = self.backend.references(job.batch) if len(job.starts) > 1 else None
        latents: list[np.ndarray] = []
        starts = progress_bar(job.starts, desc="animating", unit="segment", disable=not progress)
        for number, start in enumerate(starts):
            fields = job.segment(number, latents)
            made = self.backend.generate_segment({**job.batch, **fields}, sampling, first_frame=start,
                                                 references=shared)
            if not np.isfinite(made.latents.astype(np.float32)).all():
                raise InputError(f"the model's output is not finite, from frame {start} on: guidance is too strong "
                                 f"({sampling.guidance_scale}), or its weights are damaged")
            latents = [*latents[-1:], made.latents[0]]
            yield made.images[0]
