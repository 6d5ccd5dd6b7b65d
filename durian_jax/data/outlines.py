"""Outlines of a dataset's clips, stored as a few arrays in one safetensors file. Training needs no record for them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from durian_jax.data.clip_outline import DONOR_SIZE, DONORS, Donors, Outline
from durian_jax.data.clip_record import QUALITIES
from durian_jax.faces.topology import ATTRIBUTE_KINDS, K
from durian_jax.files import atomic_file


def save_outlines(path: Path, shards: Sequence[Sequence[Outline]]) -> None:
    """Write outlines, grouped by shard, atomically as a safetensors file for `Outlines`."""
    outlines = [entry for shard in shards for entry in shard]
    people, identities = np.unique([entry.identity for entry in outlines], return_inverse=True)
    with atomic_file(path) as temporary:
        save_file({
            "ends": np.cumsum([len(entry) for entry in outlines]),
            "areas": np.concatenate([entry.areas for entry in outlines]).astype(np.float32),
            "poses": np.concatenate([entry.poses for entry in outlines]).astype(np.float32),
            "quality": np.stack([entry.quality for entry in outlines]).astype(np.float32),
            "identities": identities.astype(np.int32),
            "people": _join(people),
            "names": _join([entry.name for entry in outlines]),
            **{f"donor_{key}": np.stack([getattr(entry.donors, key) for entry in outlines])
               for key in ("frames", "masks", "keypoints")},
            "shard_sizes": np.array([len(shard) for shard in shards]),
        }, temporary)


class Outlines(Sequence[Outline]):
    """The outlines in a file of `save_outlines`. Donors' masks stay in the file and are loaded on access.

    Attributes:
        donor_frames: (clips, DONORS) int32.
        shard_ends: (shards,) number of clips up to the end of each shard.

    Raises:
        OSError, SafetensorError, ValueError: no file, a file of another kind, or arrays that do not fit together.
    """

    def __init__(self, path: Path):
        self._file = safe_open(path, "numpy")
        index = _checked(self._file)
        self._ends, self._areas, self._poses, self._quality, self._identities = (
            index[key] for key in ("ends", "areas", "poses", "quality", "identities"))
        self._people, self._names = _split(index["people"]), _split(index["names"])
        self.donor_frames = index["donor_frames"]
        self.shard_ends = np.cumsum(index["shard_sizes"])
        if len(self._names) != len(self) or self._identities.max(initial=0) >= len(self._people):
            raise ValueError(f"{len(self._names)} names of {len(self)} clips and {len(self._people)} people")

    def donor(self, index: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Load a clip's `number`-th donor: (DONOR_SIZE, DONOR_SIZE) uint8 bit field and (K, 3) keypoints."""
        return tuple(self._file.get_slice(f"donor_{key}")[index, number] for key in ("masks", "keypoints"))

    def complete(self, index: int) -> Outline:
        """Return the outline with its donors, for `save_outlines`."""
        masks, keypoints = (self._file.get_slice(f"donor_{key}")[index] for key in ("masks", "keypoints"))
        return replace(self[index], donors=Donors(self.donor_frames[index], masks, keypoints))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Outline:
        index = range(len(self))[index]
        frames = slice(int(self._ends[index - 1]) if index else 0, int(self._ends[index]))
        return Outline(self._areas[frames], self._poses[frames], self._people[self._identities[index]],
                       self._names[index], self._quality[index])


# Type and axes of every array: N frames, C clips, S shards, B bytes.
_ARRAYS = {
    "ends": ("I", "C"), "areas": ("F", "N", len(ATTRIBUTE_KINDS)), "poses": ("F", "N", 3),
    "quality": ("F", "C", len(QUALITIES)), "identities": ("I", "C"), "people": ("U8", "P"), "names": ("U8", "B"),
    "shard_sizes": ("I", "S"), "donor_frames": ("I", "C", DONORS),
    "donor_masks": ("U8", "C", DONORS, DONOR_SIZE, DONOR_SIZE), "donor_keypoints": ("F", "C", DONORS, K, 3),
}
_IN_MEMORY = tuple(name for name in _ARRAYS if name not in ("donor_masks", "donor_keypoints"))


def _checked(file: Any) -> dict[str, np.ndarray]:
    """Load the arrays that stay in memory.

    Raises:
        ValueError: an array is missing, of another type or shape, or holds numbers that point nowhere.
    """
    sizes: dict[str, int] = {}
    stored = set(file.keys())
    for name, (kind, *axes) in _ARRAYS.items():
        found = file.get_slice(name) if name in stored else None
        shape = None if found is None else found.get_shape()
        if found is None or not found.get_dtype().startswith(kind) or len(shape) != len(axes) or any(
                sizes.setdefault(axis, size) != size if isinstance(axis, str) else axis != size
                for axis, size in zip(axes, shape, strict=True)):
            raise ValueError(f"{name} {'missing' if found is None else f'of {found.get_dtype()} {shape}'}")
    index = {name: file.get_tensor(name) for name in _IN_MEMORY}
    ends, lengths = index["ends"], np.diff(index["ends"], prepend=0)
    if not len(ends) or lengths.min() < 1 or ends[-1] != sizes["N"]:
        raise ValueError("ends of clips that do not fit the number of frames")
    if index["shard_sizes"].min(initial=0) < 0 or index["shard_sizes"].sum() != len(ends):
        raise ValueError("shard_sizes that do not add up to the number of clips")
    if index["identities"].min() < 0 or (index["donor_frames"] < 0).any() or \
            (index["donor_frames"] >= lengths[:, None]).any():
        raise ValueError("identities or donor_frames that point nowhere")
    return index


def _join(words: Iterable[str]) -> np.ndarray:
    """Join words to one array of bytes, because safetensors stores only arrays of numbers."""
    return np.frombuffer("\n".join(word.replace("\n", " ") for word in words).encode(), np.uint8)


def _split(joined: np.ndarray) -> list[str]:
    return joined.tobytes().decode().split("\n")
