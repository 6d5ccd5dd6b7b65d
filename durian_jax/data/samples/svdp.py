"""SVDP's training sample: a clip of one person, driven by another person who makes the same motion.

    frames to reconstruct   F frames of the clip, evenly spaced
    driving regions         eyes, nose and mouth of the driver in these frames; all else is blank
    history                 the T frames before, and the driver's regions there
    references              source portrait and attributes, from other frames of the clip, see `references`

Source: arXiv 2509.17476, section 3. The driver is another person, so that copying the driver's appearance never pays
(cross-identity supervision).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np

from durian_jax.data.augment import change_colours
from durian_jax.data.samples.drivers import DriverConfig, check_drivers, choose_regions, driver_of, driving_regions
from durian_jax.data.samples.references import (
    References,
    ReferenceSamples,
    choose_kinds,
    sample_references,
    shown,
    target_frames,
)
from durian_jax.data.samples.views import BLANK, View
from durian_jax.data.sources import ClipSource
from durian_jax.errors import InputError
from durian_jax.faces.moved_references import driver_on_face, on_faces
from durian_jax.faces.regions import expression_regions
from durian_jax.fields import NotNegative, Range, Share
from durian_jax.models.svdp.config import MOVED, SVDPConfig, rate_fits


@dataclass(frozen=True)
class SVDPSamples(ReferenceSamples, DriverConfig):
    """How a training sample is made from clips. Pixels are at 128 px and scale with the size."""

    from_model: ClassVar[tuple[str, ...]] = ("image_size", "fps", "aligned_pictures")
    least_attributes: ClassVar[int] = 0

    # The source is not moved: where it shows background and shoulders, the frames show them too.
    portrait_shift: NotNegative = 0.0
    portrait_scale: NotNegative = 0.0
    portrait_rotation: NotNegative = 0.0
    attribute_probability: Share = 0.5  # of a sample with attributes; else the source is whole
    history: Annotated[int, Range(0, 4096)] = 0  # T, number of frames before; 0: the run uses no history
    fps: Annotated[float, Range(0, 1000, open=True)] = 25.0  # of the videos that the model makes
    aligned_pictures: bool = False  # also make source and attributes moved onto the driver's face

    def __post_init__(self):
        ReferenceSamples.__post_init__(self)
        DriverConfig.__post_init__(self)

    @property
    def sizes(self) -> dict[str, int]:
        """Letter of a batch's axis -> its size, without B."""
        return {**super().sizes, "T": self.history}

    @classmethod
    def for_model(cls, model: SVDPConfig, values: Mapping[str, Any]) -> Self:
        """The settings of a run; see `SampleConfig.for_model`."""
        return cls(**values, **{name: getattr(model, name) for name in cls.from_model})

    def check_rate(self, name: str, fps: float) -> None:
        """Refuse clips of another frame rate than the model's; see `SampleConfig.check_rate`."""
        super().check_rate(name, fps)
        if not rate_fits(fps, self.fps):
            raise InputError(f"{name}: expected clips of about {self.fps:g} frames per second, as the model makes "
                             f"videos, found {fps:g}; prepare or synthesize them at this rate (source.synthetic_fps of "
                             "clips drawn on demand), or set model.fps")

    def check_clips(self, source: ClipSource) -> None:
        """Refuse clips of one person without recorded drivers; see `SampleConfig.check_clips`."""
        check_drivers(source, self)

    def sample(self, source: ClipSource, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Make one training sample, see `SampleConfig.sample`.

        Returns:
            The fields of `SVDPConfig.batch_spec` without B. Pictures are `views.BLANK` where the model must not see
            them.

        Raises:
            DecodeError: a damaged record, of this clip or of another one.
        """
        clip, size = source.open(index), self.image_size
        kinds, worn = [], False
        if self.attributes and rng.random() < self.attribute_probability:
            kinds, worn = choose_kinds(source.outline(index).areas, rng, self)
        chosen = target_frames(len(clip), self.history + self.frames, self.max_stride, rng)
        references = sample_references(source, index, clip, kinds, worn, chosen, rng, self)
        colours = references.colours
        views = [View(clip, i, size) for i in chosen]
        driver = driver_of(source, index, clip, rng, self)
        driver_views = [View(driver, i, size) for i in chosen]
        seen_regions = choose_regions(rng, self)
        regions, masks = driving_regions(driver_views, seen_regions, rng, self)
        if self.aligned_pictures:
            faces = np.stack([view.keypoints for view in driver_views])
            regions, known = driver_on_face(regions, masks > 0, faces, references.source.keypoints)
            regions, masks = np.where(known[..., None], regions, np.uint8(BLANK)), known.astype(np.uint8)
        frames = np.stack([change_colours(view.frame(), colours) for view in views])
        t = self.history
        return {
            **(self._moved(references, driver_views, seen_regions) if self.aligned_pictures else {}),
            "frames": frames[t:],
            "frame_masks": np.stack([_weighted(view, kinds) for view in views[t:]])[..., None] if self.frame_masks
            else np.zeros((self.frames, size, size, 1), np.uint8),
            **references.fields,
            "driving_regions": regions[t:], "driving_masks": masks[t:, ..., None],
            "history": frames[:t], "history_regions": regions[:t], "history_masks": masks[:t, ..., None],
            "history_valid": np.float32(t > 0),
        }

    def _moved(self, references: References, driver: Sequence[View], regions: Sequence[str]) -> dict[str, np.ndarray]:
        """Source and attributes on the driver's face in every frame, before and in the clip.

        Gaze and mouth follow the driver in `regions`, also where an occlusion hides their pixels.
        """
        faces, blank = np.stack([view.keypoints for view in driver]), np.full_like(references.source.picture, BLANK)
        fields, t = {}, self.history
        for name, pictured in zip(MOVED, ([references.source], references.attributes), strict=True):
            pictures, known = on_faces(pictured, faces, blank, regions=regions)
            masks = known[..., None].astype(np.uint8)
            fields |= {name: pictures[t:], f"{name}_masks": masks[t:], f"history_{name}": pictures[:t],
                       f"history_{name}_masks": masks[:t]}
        return fields


def _weighted(view: View, kinds: list[str]) -> np.ndarray:
    """(size, size) uint8: a frame's eyes, nose and mouth, and where it shows attributes of these kinds."""
    face = expression_regions(view.keypoints, *view.frame().shape[:2]) > 0
    return (face | (shown(view, kinds) > 0)).astype(np.uint8) if kinds else face.astype(np.uint8)
