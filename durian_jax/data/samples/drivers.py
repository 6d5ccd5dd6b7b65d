"""The driver of a training sample: another person who makes the clip's motion, and the regions that a model sees.

H x W pixels, K keypoints.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import cv2
import numpy as np

from durian_jax.data.clip_record import DecodeError
from durian_jax.data.samples.rerendered import RerenderedDriver, choose_other
from durian_jax.data.samples.views import View, blanked
from durian_jax.data.sources import ClipSource, OpenClip
from durian_jax.faces.clip import layer_bit
from durian_jax.faces.drawn_glasses import DrawnGlasses
from durian_jax.faces.fill_region import dilate
from durian_jax.faces.regions import expression_regions
from durian_jax.faces.topology import ATTRIBUTE_KINDS, REGION_KINDS
from durian_jax.fields import FieldError, Items, NotNegative, OneOf, Range, Share, check_fields

_Shape = Annotated[float, Range(0, 2)]


@dataclass(frozen=True)
class DriverConfig:
    """Who drives a clip, and how the driver's regions are cut out. Pixels are at 128 px and scale with the size."""

    own_probability: Share = 0.0  # of the clip driving itself, by its own unchanged pixels (an ablation)
    # Clips without a recorded driver: least and largest strength of the change towards another person.
    driver_shape: tuple[_Shape, _Shape] = (0.5, 1.3)  # 1: that person's shape; above: exaggerated
    driver_colours: tuple[Share, Share] = (0.6, 1.0)  # 1: that person's colours
    driver_glasses: Share = 0.3  # probability of drawn glasses, if the clip shows none
    driver_tries: Annotated[int, Range(1, 10**6)] = 16  # clips looked at to find another person

    # The regions that a model sees.
    regions: Annotated[tuple[Annotated[str, OneOf(REGION_KINDS)], ...], Items(1, len(REGION_KINDS))] = REGION_KINDS
    region_dropout: Share = 0.0  # probability that one of several regions is missing in the whole clip
    region_jitter: NotNegative = 0.0  # largest shift and growth of each region, in pixels, the same in the whole clip
    region_occlusion: Share = 0.0  # probability that a rectangle hides a part of the regions in the whole clip

    def __post_init__(self):
        check_fields(self)
        for name in ("driver_shape", "driver_colours"):
            least, largest = getattr(self, name)
            if least > largest:
                raise FieldError(name, f"expected least <= largest, found {(least, largest)}")


class DriverFrames(Protocol):
    """A driver's frames for a `View`.

    Attributes:
        margin: pixels around the view.
        keypoints: (T, K, 3) float32, in the frames with their margin.
    """

    margin: int
    keypoints: np.ndarray

    def frame(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8."""


class RecordedDriver:
    """The recorded driver of a clip as frames for a `View`."""

    def __init__(self, clip: OpenClip):
        self._clip, self.margin, self.keypoints = clip, clip.margin, clip.driver_keypoints

    def frame(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        return self._clip.driver_frame(index)


def check_drivers(source: ClipSource, config: DriverConfig) -> None:
    """Refuse clips that cannot be driven, before training compiles; judged by the first readable clip.

    Raises:
        InputError: no recorded driver, and all clips show the same person.
    """
    for index in range(len(source)):
        try:
            recorded = source.open(index).driver_keypoints is not None
        except DecodeError:
            continue
        if not recorded and config.own_probability < 1:
            choose_other(source, index, np.random.default_rng(0), config.driver_tries)
        return


def driver_of(source: ClipSource, index: int, clip: OpenClip, rng: np.random.Generator, config: DriverConfig
              ) -> DriverFrames:
    """The driver of a clip: the recorded one, else the clip's own features re-rendered on another person.

    Args:
        source, index: where `clip` is from, and other people.
        clip: the clip.
        rng: source of all draws, which are made once per clip.
        config: settings.

    Raises:
        InputError: no recorded driver, and all clips show the same person.
        DecodeError: a damaged record of the other person.
    """
    if config.own_probability and rng.random() < config.own_probability:
        return clip
    if clip.driver_keypoints is not None:
        return RecordedDriver(clip)
    other = source.open(choose_other(source, index, rng, config.driver_tries))
    shape, colours = rng.uniform(*config.driver_shape), rng.uniform(*config.driver_colours)
    bare = not source.outline(index).areas[:, ATTRIBUTE_KINDS.index("glasses")].any()
    glasses = DrawnGlasses.sample(rng) if bare and rng.random() < config.driver_glasses else None
    return RerenderedDriver(clip, other, shape, colours, glasses)


def choose_regions(rng: np.random.Generator, config: DriverConfig) -> list[str]:
    """The regions that a clip shows of its driver: those of the config, sometimes without one of them."""
    kinds = list(config.regions)
    if len(kinds) > 1 and rng.random() < config.region_dropout:
        kinds.remove(kinds[rng.integers(len(kinds))])
    return kinds


def driving_regions(views: Sequence[View], kinds: Sequence[str], rng: np.random.Generator, config: DriverConfig
                    ) -> tuple[np.ndarray, np.ndarray]:
    """Cut out the driver's regions: pictures (F, H, W, 3) uint8, blank elsewhere, and masks (F, H, W) uint8 0 or 1.

    Args:
        views: the driver's frames.
        kinds: of regions, see `choose_regions`.
        rng: source of all draws; one set of draws serves the whole clip.
        config: settings.
    """
    frames = [view.frame() for view in views]
    size = frames[0].shape[0]
    fields = [expression_regions(view.keypoints, size, size) for view in views]
    masks = np.zeros((len(views), size, size), bool)
    for kind in kinds:
        parts = [(field & np.uint8(layer_bit(kind))) > 0 for field in fields]
        if config.region_jitter:
            parts = _jittered(parts, rng, config.region_jitter * size / 128)
        masks |= np.stack(parts)
    if rng.random() < config.region_occlusion:
        masks &= ~_rectangle(masks.any(0), rng)
    pictures = np.stack([blanked(frame, ~mask) for frame, mask in zip(frames, masks, strict=True)])
    return pictures, masks.astype(np.uint8)


def _jittered(parts: Sequence[np.ndarray], rng: np.random.Generator, pixels: float) -> list[np.ndarray]:
    """Masks shifted and grown or shrunk by at most `pixels`, all in the same way."""
    move = np.concatenate([np.eye(2), rng.uniform(-pixels, pixels, (2, 1))], 1)
    grow = round(rng.uniform(-pixels, pixels))
    moved = [cv2.warpAffine(part.astype(np.uint8), move, part.shape[::-1], flags=cv2.INTER_NEAREST) > 0
             for part in parts]
    return [dilate(part, grow) if grow else part for part in moved]


def _rectangle(shown: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W) bool: a rectangle around a shown pixel, of up to a third of the picture's side."""
    hidden = np.zeros_like(shown)
    y, x = np.nonzero(shown)
    if len(x):
        at = rng.integers(len(x))
        half = rng.integers(1, max(2, shown.shape[0] // 6 + 1), 2)
        hidden[max(0, y[at] - half[0]):y[at] + half[0] + 1, max(0, x[at] - half[1]):x[at] + half[1] + 1] = True
    return hidden
