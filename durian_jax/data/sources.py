"""Sources of training clips: recorded, rendered on demand, or a mixture.

All are Grain random-access data sources: `source[index]` decodes a whole clip, `outline` summarizes it,
and `open` gives access to single frames. Sources are deterministic. `data.samples` draws the clips of a
training sample.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from durian_jax.data.clip_outline import Outline, outline
from durian_jax.data.recorded_clips import RecordedClips
from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip

__all__ = ["ClipList", "ClipSource", "Mixture", "OpenClip", "RecordedClips", "SyntheticClips"]


_MOST_CHOICES = 10**8  # clips of an epoch of several sources


class OpenClip(Protocol):
    """A clip with access to single frames: `clip_record.EncodedClip` or `DecodedClip`."""

    keypoints: np.ndarray  # (T, K, 3) float32, in the frames with their margin
    identity: str
    margin: int  # pixels on each side around the view
    generated_frames: Sequence[int]  # indices of the frames that have a mask of generated attributes
    driver_identity: str  # of the person who makes the same motion
    driver_keypoints: np.ndarray | None  # (T, K, 3) float32 of that person; None: no driver

    def __len__(self) -> int: ...

    def frame(self, index: int) -> np.ndarray:
        """Return a frame, (H, W, 3) uint8."""

    def mask(self, index: int) -> np.ndarray:
        """Return the bit field of a frame's attributes, (H, W) uint8."""

    def driver_frame(self, index: int) -> np.ndarray:
        """Return the driver's frame, (H, W, 3) uint8."""

    def generated_mask(self, number: int) -> np.ndarray:
        """Return the bit field of the attributes generated for frame `generated_frames[number]`, (H, W) uint8."""


class ClipSource(Protocol):
    """Random access to clips. The masks of a clip's donor frames expand the regions of other people."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Clip: ...

    def outline(self, index: int) -> Outline:
        """Summarize a clip."""

    def open(self, index: int) -> OpenClip:
        """Open a clip for access to single frames."""

    def donor_frames(self, index: int) -> np.ndarray:
        """Return the indices of a clip's donor frames, (D,) int."""

    def donor(self, index: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the (H, W) uint8 bit field, at any scale, and the (K, 3) keypoints of the `number`-th donor frame."""


class DecodedClip:
    """`OpenClip` over a clip in memory."""

    generated_frames = ()

    def __init__(self, clip: Clip):
        self._clip, self.keypoints, self.identity, self.margin = clip, clip.keypoints, clip.identity, clip.margin
        self.driver_identity = clip.driver.identity if clip.driver else ""
        self.driver_keypoints = clip.driver.keypoints if clip.driver else None

    def __len__(self) -> int:
        return len(self._clip)

    def frame(self, index: int) -> np.ndarray:
        """See `OpenClip.frame`."""
        return self._clip.frames[index]

    def mask(self, index: int) -> np.ndarray:
        """See `OpenClip.mask`."""
        return self._clip.masks[index]

    def driver_frame(self, index: int) -> np.ndarray:
        """See `OpenClip.driver_frame`."""
        return self._clip.driver.frames[index]

    def generated_mask(self, number: int) -> np.ndarray:
        """See `OpenClip.generated_mask`."""
        raise IndexError(f"a clip in memory has no generated masks, but mask {number} was requested")


class _DecodedDonors:
    """Donors of a source of decoded clips: all frames."""

    def donor_frames(self, index: int) -> np.ndarray:
        return np.arange(len(self.outline(index)))

    def donor(self, index: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        clip = self.open(index)
        return clip.mask(number), clip.keypoints[number]


class ClipList(_DecodedDonors):
    """Clips in memory, for tests and for a few own clips."""

    def __init__(self, clips: Sequence[Clip]):
        self._clips, self._outlines = list(clips), [outline(clip) for clip in clips]

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> Clip:
        return self._clips[index]

    def outline(self, index: int) -> Outline:
        """See `ClipSource.outline`."""
        return self._outlines[index]

    def open(self, index: int) -> DecodedClip:
        """See `ClipSource.open`."""
        return DecodedClip(self._clips[index])


class SyntheticClips(_DecodedDonors):
    """Procedural clips, rendered on access.

    Rendering is slower than decoding. For training, write the clips to records once (`synthesize`).
    """

    def __init__(self, split: str, count: int, frames: int, size: int, offset: int = 0, fps: float = 25.0,
                 keep: int = 64, drivers: bool = False):
        """Args:
            split: "train", "validation" or "benchmark".
            count: number of clips.
            frames: T of each clip.
            size: H = W in pixels.
            offset: first person's index in the split.
            fps: frames per second. A lower rate makes the poses of a clip differ more.
            keep: maximum number of rendered clips kept in memory.
            drivers: also render another person who makes the same motion (`synthetic.sample_driver`).
        """
        self._arguments = (split, count, frames, size, offset, fps, keep, drivers)
        self.fps = fps
        self._kept: OrderedDict[int, Clip] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self):
        return SyntheticClips, self._arguments

    def __len__(self) -> int:
        return self._arguments[1]

    def __getitem__(self, index: int) -> Clip:
        from durian_jax import synthetic  # only this source needs the renderer

        split, count, frames, size, offset, fps, keep, drivers = self._arguments
        index = range(count)[index]
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        number = offset + index
        person, motion = synthetic.sample_person(split, number), synthetic.sample_motion(split, number, frames, fps)
        clip = synthetic.render(person, motion, size)
        if drivers:
            clip = synthetic.add_driver(clip, synthetic.sample_driver(split, number, person), motion)
        with self._lock:
            self._kept[index] = clip
            while len(self._kept) > keep:
                self._kept.popitem(last=False)
        return clip

    def outline(self, index: int) -> Outline:
        """See `ClipSource.outline`."""
        return outline(self[index])

    def open(self, index: int) -> DecodedClip:
        """See `ClipSource.open`."""
        return DecodedClip(self[index])


class Mixture:
    """Several sources as one. Each source takes a fixed share of the indices."""

    def __init__(self, sources: Sequence[ClipSource], weights: Sequence[float] | None = None):
        """Args:
            sources: at least one source, each with at least one clip.
            weights: share of each source in an epoch, on any positive scale. None: proportional to the lengths.
                An epoch holds every clip at least once. Sources with a larger share are repeated.

        Raises:
            InputError: no source, an empty source, or weights that do not fit the sources.
        """
        lengths = np.array([len(source) for source in sources], np.float64)
        shares = lengths if weights is None else np.array(weights, np.float64)
        if not len(lengths) or lengths.min() < 1 or shares.shape != lengths.shape or shares.min() <= 0:
            raise InputError(f"mixture: expected non-empty sources with one positive weight each, found "
                             f"lengths {lengths.astype(int).tolist()} and weights {weights}; remove empty sources")
        self._sources = list(sources)
        counts = np.round(shares * (lengths / shares).max())
        if counts.sum() > _MOST_CHOICES:
            raise InputError(f"mixture: expected weights of which none is this much smaller than the others, found "
                             f"{weights}; an epoch that holds every clip once would have {counts.sum():.0e} clips")
        counts = counts.astype(int)
        self._choices = np.concatenate([
            np.stack([np.full(count, number), np.arange(count) % int(length)], 1)
            for number, (count, length) in enumerate(zip(counts, lengths, strict=True))])

    def __len__(self) -> int:
        return len(self._choices)

    def _find(self, index: int) -> tuple[ClipSource, int]:
        number, inner = self._choices[index]
        return self._sources[number], int(inner)

    def __getitem__(self, index: int) -> Clip:
        source, inner = self._find(index)
        return source[inner]

    def outline(self, index: int) -> Outline:
        """See `ClipSource.outline`."""
        source, inner = self._find(index)
        return source.outline(inner)

    def open(self, index: int) -> OpenClip:
        """See `ClipSource.open`."""
        source, inner = self._find(index)
        return source.open(inner)

    def donor_frames(self, index: int) -> np.ndarray:
        """See `ClipSource.donor_frames`."""
        source, inner = self._find(index)
        return source.donor_frames(inner)

    def donor(self, index: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """See `ClipSource.donor`."""
        source, inner = self._find(index)
        return source.donor(inner, number)
