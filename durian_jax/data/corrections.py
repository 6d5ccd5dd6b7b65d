"""Masks that a person has corrected. They lie beside a dataset, so that a new `durian prepare` keeps them.

A correction belongs to frames of a source video. Keypoints carry it to another crop of the same face.

T frames, H x W pixels, K keypoints.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from durian_jax.data.clip_record import EncodedClip
from durian_jax.errors import InputError
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.faces.warp import similarity, warp_mask
from durian_jax.files import atomic_file

FOLDER = "corrections"
# In one frame of a video, the points of one face agree up to this share of its size. Those of two faces do not.
_SAME_FACE = 0.03


def keep_correction(directory: str | os.PathLike, clip: EncodedClip, masks: np.ndarray, kinds: Sequence[str]) -> None:
    """Store corrected masks as DATASET/corrections/<hash of the clip's name>.safetensors.

    Kinds that were corrected before stay corrected.

    Args:
        directory: folder of the dataset.
        clip: the clip, whose name is VIDEO#FRAME.
        masks: (T, H, W) uint8 bit fields.
        kinds: the corrected kinds.
    """
    path = Path(directory) / FOLDER / f"{hashlib.sha256(clip.provenance.name.encode()).hexdigest()[:20]}.safetensors"
    if path.is_file():
        kinds = {*kinds, *_Correction(path).kinds}
    layers = {kind: np.packbits((masks & attribute_bit(kind)) > 0, axis=-1) for kind in ATTRIBUTE_KINDS
              if kind in kinds}
    about = {"clip": clip.provenance.name, "video": clip.provenance.name.rpartition("#")[0], "size": masks.shape[1:],
             "first": clip.provenance.first_frame, "stride": clip.provenance.stride}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        save_file({"keypoints": np.ascontiguousarray(clip.keypoints, np.float32), **layers}, temporary,
                  metadata={"about": json.dumps(about)})


def corrected_clips(directory: str | os.PathLike) -> list[str]:
    """Return the names of the clips of a dataset whose masks a person has corrected.

    Raises:
        InputError: a file is damaged.
    """
    folder = Path(directory) / FOLDER
    return [_Correction(path).clip for path in sorted(folder.glob("*.safetensors"))]


class Corrections:
    """The corrections of a dataset, by video.

    Args:
        directory: folder of the dataset, or its folder of corrections.

    Raises:
        InputError: there is none, or a file is damaged.
    """

    def __init__(self, directory: str | os.PathLike):
        folder = Path(directory)
        folder = folder / FOLDER if (folder / FOLDER).is_dir() else folder
        found = [_Correction(path) for path in sorted(folder.glob("*.safetensors"))] if folder.is_dir() else []
        if not found:
            raise InputError(f"{directory}: expected a dataset with corrected masks, found none; `durian masks "
                             "replace` stores them")
        self._by_video: dict[str, list[_Correction]] = {}
        for correction in found:
            self._by_video.setdefault(correction.video, []).append(correction)

    def files(self, video: str) -> list[Path]:
        """Return the files of a video."""
        return [correction.path for correction in self._by_video.get(video, ())]

    def apply(self, video: str, frames: Sequence[int], keypoints: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Return masks with the corrections of the frames that have some.

        Args:
            video: name of the video.
            frames: (T,) numbers of the frames in the video.
            keypoints: (T, K, 3) normalised, of the clip's person.
            masks: (T, H, W) uint8 bit fields; they stay as they are.
        """
        masks = masks.copy()
        for correction in self._by_video.get(video, ()):
            correction.apply(frames, keypoints, masks)
        return masks


    def copy_to(self, directory: str | os.PathLike) -> None:
        """Keep the corrections of another dataset too; those that it has stay."""
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
                self.clip, self.video = str(about["clip"]), str(about["video"])
                self._size = (int(about["size"][0]), int(about["size"][1]))
                self.kinds = [kind for kind in ATTRIBUTE_KINDS if kind in stored.keys()]  # noqa: SIM118 (no mapping)
                self._keypoints = stored.get_tensor("keypoints")
            first, stride = int(about["first"]), int(about["stride"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise InputError(f"{path}: expected corrected masks, found a damaged file ({error}); delete it and correct "
                             "the clip again") from error
        self._rows = {first + stride * row: row for row in range(len(self._keypoints))}

    def apply(self, frames: Sequence[int], keypoints: np.ndarray, masks: np.ndarray) -> None:
        """Change the masks in place; see `Corrections.apply`."""
        rows = [(place, self._rows[frame]) for place, frame in enumerate(map(int, frames)) if frame in self._rows]
        if not rows:
            return
        with safe_open(self.path, "np") as stored:
            layers = {kind: stored.get_tensor(kind) for kind in self.kinds}
        height, width = masks.shape[1:]
        for place, row in rows:
            old, new = self._keypoints[row], keypoints[place]
            matrix = _between(old, new, self._size, (height, width))
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
