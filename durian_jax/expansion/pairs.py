"""`durian expand --pairs`: drivers for the clips of a dataset, made by a checkpoint of this project.

Models that are driven by pixels train on pairs: person A's frames, and another person B who makes the same motion
(cross-identity supervision, arXiv 2509.17476). Here B is somebody else in the dataset, whom the checkpoint animates by
A's clip, in A's place. The pair becomes the `driver` of A's record.

A model driven by keypoints gets A's keypoints in B's face shape. A model driven by pixels gets A's clip, without moving
A's face onto B's. In both cases A's keypoints in B's face shape are stored as the driver's. No annotator runs on the
result.

T frames, H x W pixels, K keypoints.
"""

import os
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from durian_jax.checkpoints.weights import load_checkpoint, read_description
from durian_jax.data.clip_record import DecodeError, rewrite_record
from durian_jax.data.recorded_clips import RecordedClips
from durian_jax.data.samples.rerendered import choose_other
from durian_jax.diffusion import Sampling
from durian_jax.errors import InputError
from durian_jax.expansion.shards import clip_rng, progress_of, work_through
from durian_jax.expansion.transfer import resized
from durian_jax.faces.clip import Clip, Driver, view_keypoints
from durian_jax.faces.face_shape import calm_frame, face_shape, moved_shape, shape_difference
from durian_jax.families import get_family
from durian_jax.files import check_folder
from durian_jax.inference.animator import Animator

_TRIES = 16  # random clips to look at for another person
_PORTRAITS = 4  # damaged records of other people until a clip is left out


def add_drivers(dataset: str | os.PathLike, checkpoint: str | Path = "tiny", *, seed: int = 0,
                steps: int | None = None, overwrite: bool = False) -> dict:
    """Add a driver to the clips of a dataset: another of its people, who makes the clip's motion.

    Works shard by shard: repeat a killed call to continue after its last finished shard. Clips that have a driver keep
    it. A driver depends on the dataset, the settings and the clip's name.

    Args:
        dataset: folder of records; only shards that get drivers are written again.
        checkpoint: of any family: name of a shipped checkpoint, or a folder.
        seed: of the choice of people and of the noise.
        steps: of the sampler; None: the checkpoint's default.
        overwrite: replace existing drivers.

    Returns:
        The entry `paired` of dataset.json: the settings, finished `shards`, number of `clips` with drivers, and numbers
        of clips left out: `refused` (the model cannot use the clip's motion) and `damaged`.

    Raises:
        InputError: no dataset, wrong numbers, only one person, a checkpoint that cannot be loaded, a dataset that was
            paired with other settings, or a first clip whose motion the model cannot use.
    """
    if (steps is not None and steps < 1) or not 0 <= seed < 2**32:
        raise InputError(f"expand: expected steps of at least 1 and a seed below 2^32, found {steps} and {seed}")
    clips = RecordedClips(dataset)
    check_folder(clips.directory)
    progress = progress_of(clips, "paired", {"checkpoint": str(checkpoint), "seed": seed, "steps": steps},
                           {"clips": 0, "left_out": dict.fromkeys(("refused", "damaged"), 0)}, overwrite)
    if progress["shards"] == len(clips.shards()):
        return progress
    choose_other(clips, 0, clip_rng(seed), _TRIES)
    config = read_description(checkpoint).config
    check_motion = get_family(config.family).load("inference").check_motion
    try:
        check_motion(config, clips.fps, 0)
    except InputError as error:
        raise InputError(f"{clips.directory}: {error}") from error
    performer = _Performer(clips, Animator(load_checkpoint(checkpoint)), seed, steps)

    def work(rows: range, bar: tqdm) -> tuple[dict[int, bytes], Counter]:
        records: dict[int, bytes] = {}
        counts: Counter = Counter()
        for row in rows:
            bar.update()
            try:
                clip = clips.open(row)
                if clip.driver_keypoints is None or progress["overwrite"]:
                    records[row] = rewrite_record(clip, driver=performer.driver(row, clip.clip()),
                                                  encoding=clips.about.get("encoding", "png"))
                counts["clips"] += 1
            except DecodeError:
                counts["damaged"] += 1
            except InputError as error:
                warnings.warn(f"{clips.outline(row).name}: {error}", stacklevel=2)
                counts["refused"] += 1
        return records, counts
    return work_through(clips, "paired", progress, work, "pairing")


@dataclass(frozen=True)
class _Performer:
    """Lets other people of a dataset perform a clip's motion.

    Attributes:
        clips: the dataset.
        animator: the model.
        seed: of the choice of people and of the noise.
        steps: of the sampler; None: the model's default.
    """

    clips: RecordedClips
    animator: Animator
    seed: int
    steps: int | None

    def driver(self, row: int, clip: Clip) -> Driver:
        """The driver of clip `row`.

        Raises:
            DecodeError: records of several other people are damaged.
            InputError: the model cannot use the clip's motion.
        """
        person, shape = self._other(row)
        motion = clip.view()
        own = face_shape(motion.keypoints)
        keypoints = moved_shape(motion.keypoints, own, shape_difference(own, shape))
        frames = self._perform(person, motion, keypoints)
        height, width = clip.frames.shape[1:3]
        inner = motion.frames.shape[2], motion.frames.shape[1]
        if frames.shape[2:0:-1] != inner:
            how = cv2.INTER_AREA if frames.shape[2] > inner[0] else cv2.INTER_CUBIC
            frames = np.stack([cv2.resize(frame, inner, interpolation=how) for frame in frames])
        # Regions are cut out inside the view: nothing in the margin is seen.
        frames = np.pad(frames, ((0, 0), (clip.margin,) * 2, (clip.margin,) * 2, (0, 0)), mode="edge")
        return Driver(frames, view_keypoints(keypoints, height, width, -clip.margin), person.identity)

    def _other(self, row: int) -> tuple[Clip, np.ndarray]:
        """Another person: a photo at the model's size, and the (K, 3) shape of the face."""
        rng = clip_rng(self.seed, self.clips.outline(row).name)
        for attempt in range(_PORTRAITS):
            try:
                other = self.clips.open(choose_other(self.clips, row, rng, _TRIES))
                photo = other.clip([calm_frame(other.keypoints)]).view()
            except DecodeError:
                if attempt == _PORTRAITS - 1:
                    raise
                continue
            return resized(photo, self.animator.size), face_shape(other.keypoints)
        raise AssertionError("unreachable")

    def _perform(self, person: Clip, motion: Clip, keypoints: np.ndarray) -> np.ndarray:
        """(T, S, S, 3) uint8, S the model's size: the person in the motion of a clip without margin."""
        backend = self.animator.backend
        family = get_family(backend.config.family).load("inference")
        sampling: Sampling = replace(backend.sampling, seed=self.seed,
                                     **({} if self.steps is None else {"steps": self.steps}))
        count = len(motion)
        # Clips of equal length share a compiled function: repeat the last frame of shorter ones.
        longest = max(len(self.clips.outline(row)) for row in range(len(self.clips)))
        filled = np.minimum(np.arange(max(count, min(longest, backend.config.max_frames))), count - 1)
        if family.DRIVEN_BY == "keypoints":
            return self.animator.animate(person, [], keypoints[filled], sampling=sampling, progress=False)[:count]
        return self.animator.animate(person, [], motion[filled], sampling=sampling, progress=False,
                                     **family.IN_PLACE)[:count]
