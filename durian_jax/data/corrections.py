"""Masks that a person has corrected. They are stored in a dataset's folder, so that a new `durian prepare` keeps them.

A correction belongs to frames of a source video. Keypoints carry it to another crop of the same face.

T frames, H x W pixels, K keypoints.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from durian_jax.data.clip_record import EncodedClip
from durian_jax.errors import InputError, cut
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.topology import ATTRIBUTE_KINDS, K
from durian_jax.faces.warp import similarity, warp_mask
from durian_jax.files import atomic_file

FOLDER = "corrections"
# In one frame of a video, the points of a face agree in all crops up to this share of its size.
_SAME_FACE = 0.01
_LARGEST = 1 << 20  # frame number, stride


def keep_correction(directory: str | os.PathLike, clip: EncodedClip, masks: np.ndarray, kinds: Iterable[str]) -> None:
    """Store the corrected masks of a clip in DATASET/corrections.

    Kinds of this clip that were corrected before stay corrected.

    Args:
        directory: folder of the dataset.
        clip: the clip, whose name is VIDEO#FRAME or VIDEO#FRAME-PERSON.
        masks: (T, H, W) uint8 bit fields of all frames of the clip.
        kinds: the corrected kinds.
    """
    path = correction_file(directory, clip)
    kinds = {*kinds, *(_Correction(path).kinds if path.is_file() else ())}
    layers = {kind: np.packbits((masks & attribute_bit(kind)) > 0, axis=-1) for kind in ATTRIBUTE_KINDS
              if kind in kinds}
    about = {"clip": clip.provenance.name, "size": masks.shape[1:], "first": clip.provenance.first_frame,
             "stride": clip.provenance.stride, "time": time.time()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        save_file({"keypoints": np.ascontiguousarray(clip.keypoints, np.float32), **layers}, temporary,
                  metadata={"about": json.dumps(about)})


def correction_file(directory: str | os.PathLike, clip: EncodedClip) -> Path:
    """Return the place of a clip's correction. Clips of other frames or of another size have other places."""
    origin = clip.provenance
    text = json.dumps([origin.name, origin.first_frame, origin.stride, len(clip), clip.height, clip.width])
    return Path(directory) / FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.safetensors"


def has_corrections(directory: str | os.PathLike) -> bool:
    """Whether a dataset's folder holds corrections."""
    return bool(_files(directory))


class Corrections:
    """The corrections of some datasets, by video. If several hold the same frame, the newest counts.

    Args:
        directories: folders of datasets.

    Raises:
        InputError: a folder holds no corrections, or a file is damaged.
    """

    def __init__(self, directories: Sequence[str | os.PathLike]):
        for directory in directories:
            if not has_corrections(directory):
                raise InputError(f"{directory}: expected a dataset with corrected masks, found none; `durian masks "
                                 "replace` stores them")
        found = [_Correction(path) for directory in directories for path in _files(directory)]
        self._by_video: dict[str, list[_Correction]] = {}
        for correction in sorted(found, key=lambda correction: correction.time):
            self._by_video.setdefault(_video(correction.clip), []).append(correction)

    def files(self, video: str) -> list[Path]:
        """Return the files of a video, the oldest correction first."""
        return [correction.path for correction in self._by_video.get(video, ())]

    def apply(self, clip: str, frames: Sequence[int], keypoints: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Replace masks by the corrected ones.

        Args:
            clip: name of the clip, VIDEO#FRAME or VIDEO#FRAME-PERSON.
            frames: (T,) numbers of the frames in the video.
            keypoints: (T, K, 3) normalised.
            masks: (T, H, W) uint8 bit fields; they stay as they are.

        Returns:
            (T, H, W) uint8 bit fields. Frames, kinds and pixels without a correction keep their masks.
        """
        masks = masks.copy()
        for correction in self._by_video.get(_video(clip), ()):
            if _person(correction.clip) == _person(clip):
                correction.apply(frames, keypoints, masks)
        return masks

    def copy_to(self, directory: str | os.PathLike) -> None:
        """Copy the files into another dataset's folder; existing files are kept."""
        folder = Path(directory) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for path in (correction.path for corrections in self._by_video.values() for correction in corrections):
            if not (folder / path.name).exists():
                with atomic_file(folder / path.name) as temporary:
                    shutil.copyfile(path, temporary)


class _Correction:
    """One file of `keep_correction`."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with safe_open(path, "np") as stored:
                about: dict[str, Any] = json.loads((stored.metadata() or {})["about"])
                arrays = {name: stored.get_slice(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
                found = {name: (array.get_dtype(), *array.get_shape()) for name, array in arrays.items()}
            self.clip, self.time = str(about["clip"]), float(about["time"])
            height, width, first, stride = (int(value) for value in (*about["size"], about["first"], about["stride"]))
            self.kinds = [kind for kind in ATTRIBUTE_KINDS if kind in found]
            count = found["keypoints"][1]
            if not 0 <= first < _LARGEST or not 0 < stride < _LARGEST or not np.isfinite(self.time) or found != {
                    "keypoints": ("F32", count, K, 3),
                    **dict.fromkeys(self.kinds, ("U8", count, height, -(-width // 8)))}:
                raise ValueError(f"arrays {found} for frames {first}, {first + stride}, ...")
            with safe_open(path, "np") as stored:
                if not np.isfinite(stored.get_tensor("keypoints")).all():
                    raise ValueError("keypoints that are no finite numbers")
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
            raise InputError(f"{path}: expected corrected masks, found a damaged file ({cut(str(error))}); delete it "
                             "and correct the clip again") from error
        self._size = (height, width)
        self._rows = {first + stride * row: row for row in range(count)}

    def apply(self, frames: Sequence[int], keypoints: np.ndarray, masks: np.ndarray) -> None:
        """Change the masks in place; see `Corrections.apply`."""
        rows = [(place, self._rows[frame]) for place, frame in enumerate(map(int, frames)) if frame in self._rows]
        if not rows:
            return
        with safe_open(self.path, "np") as stored:
            points, layers = stored.get_tensor("keypoints"), {kind: stored.get_tensor(kind) for kind in self.kinds}
        height, width = masks.shape[1:]
        for place, row in rows:
            matrix = _between(points[row], keypoints[place], self._size, (height, width))
            if matrix is None:
                continue
            known = warp_mask(np.ones(self._size, bool), matrix, size=(height, width))
            for kind, layer in layers.items():
                drawn = np.unpackbits(layer[row], axis=-1, count=self._size[1]) > 0
                moved, bit = warp_mask(drawn, matrix, size=(height, width)), np.uint8(attribute_bit(kind))
                masks[place] = np.where(known, masks[place] & ~bit | moved * bit, masks[place])


def _between(old: np.ndarray, new: np.ndarray, size: tuple[int, int], new_size: tuple[int, int]) -> np.ndarray | None:
    """Return the (2, 3) map of pixels between two crops of the same face; None if the faces differ."""
    start, end = old[:, :2] * size[::-1], new[:, :2] * new_size[::-1]
    matrix = similarity(start, end)
    away = np.linalg.norm(start @ matrix[:, :2].T + matrix[:, 2] - end, axis=-1).mean() / np.ptp(end, axis=0).max()
    return matrix if away < _SAME_FACE else None


def _files(directory: str | os.PathLike) -> list[Path]:
    # Hidden files are those that a killed process was writing.
    return sorted(path for path in (Path(directory) / FOLDER).glob("*.safetensors") if not path.name.startswith("."))


def _video(clip: str) -> str:
    return clip.rpartition("#")[0]


def _person(clip: str) -> str:
    """The number of the person in a clip's name; empty for the first."""
    return clip.rpartition("#")[2].partition("-")[2]
