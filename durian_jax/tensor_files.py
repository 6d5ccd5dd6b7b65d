"""Tensors in safetensors (one file, or shards with an index), read lazily and written atomically."""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from durian_jax.errors import InputError, cut, listed, shown
from durian_jax.files import hidden_folder, make_readable, read_json, remove_hidden_folders, write_json

# Names of weight files in diffusers and in transformers; this project writes the second one.
WEIGHT_NAMES = ("diffusion_pytorch_model", "model")

# Types of weights, as safetensors names them.
FLOATS = ("F16", "BF16", "F32", "F64")

_PART = 1 << 20  # values


class TensorFiles(Mapping[str, np.ndarray]):
    """The tensors of a folder, each loaded on access.

    Args:
        folder: folder with weights, see `weight_files`.
        old_names: (pattern, replacement) pairs that map stored names to current names.

    Attributes:
        shapes: name -> shape, known without loading the tensors.

        types: name -> type in the file, such as "F16", also known.

    Raises:
        InputError: the folder has no safetensors, or they are damaged.
    """

    def __init__(self, folder: Path, old_names: Sequence[tuple[str, str]] = ()):
        self._places, self._open = {}, None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.types: dict[str, str] = {}
        for path in weight_files(folder):
            file = open_tensors(path)
            for stored in file.keys():  # noqa: SIM118 - not a dict
                name = _current_name(stored, old_names)
                if name in self._places:
                    raise InputError(f"{path}: expected unique tensor names, found {cut(name)} twice; copy the folder "
                                     "again")
                self._places[name] = path, stored
                described = file.get_slice(stored)
                self.shapes[name], self.types[name] = tuple(described.get_shape()), described.get_dtype()

    def check_types(self, names: Iterable[str]) -> None:
        """Refuse tensors that are no floating-point numbers of 16, 32 or 64 bits.

        Raises:
            InputError: lists the first ones.
        """
        others = [f"{name} ({self.types[name]})" for name in names if self.types[name] not in FLOATS]
        if others:
            path = self._places[others[0].rpartition(" ")[0]][0]
            raise InputError(f"{path}: expected tensors of {', '.join(FLOATS)}, found {listed(others)}; save it again "
                             "in one of these types")

    def checked(self, name: str, may_be_zero: bool = False) -> np.ndarray:
        """Load a tensor and look at its values.

        Args:
            may_be_zero: accept a tensor whose values are all zero.

        Raises:
            InputError: another type than `FLOATS`, values that are not finite, or all zero.
        """
        self.check_types([name])
        values, path = self[name], self._places[name][0]
        check_range(*largest_bits(values), may_be_zero, f"{path}: {cut(name)}")
        return values

    def __getitem__(self, name: str) -> np.ndarray:
        path, stored = self._places[name]
        # Keep only one file open: the pages read from an open file count as this process's memory.
        if self._open is None or self._open[0] != path:
            self._open = path, open_tensors(path)
        return self._open[1].get_tensor(stored)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def open_tensors(path: Path) -> Any:
    """Open a safetensors file: `safe_open` for numpy.

    Raises:
        InputError: the file is damaged.
    """
    try:
        return safe_open(path, framework="np")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is damaged ({cut(str(error))}); copy it again from its source") from error


def largest_bits(values: np.ndarray) -> tuple[int, int]:
    """The largest magnitude of a tensor's values and infinity, both as an unsigned integer of their bits.

    Floating-point numbers are ordered like their bits, and NaN is above infinity: one pass tells both, in every type.
    """
    bits = 8 * values.itemsize
    whole = values.reshape(-1).view(f"u{values.itemsize}")
    infinity = int(np.array(np.inf, values.dtype).view(whole.dtype))
    sign = whole.dtype.type((1 << (bits - 1)) - 1)
    # In parts, so that no copy of a large tensor is made.
    return max((int((whole[i:i + _PART] & sign).max()) for i in range(0, whole.size, _PART)), default=0), infinity


def check_range(largest: float, infinity: float, may_be_zero: bool, what: str) -> None:
    """Refuse a tensor by its largest magnitude.

    Args:
        largest: of all values; NaN if one is.
        infinity: that of the same scale.
        may_be_zero: accept a tensor whose values are all zero.
        what: file and name of the tensor, for errors.

    Raises:
        InputError: values that are not finite, or all zero.
    """
    if not largest < infinity:
        raise InputError(f"{what}: expected finite values, found NaN or infinity; get the file again")
    if largest == 0 and not may_be_zero:
        raise InputError(f"{what}: expected weights, found only zeros; get the file again")


def _current_name(name: str, old_names: Sequence[tuple[str, str]]) -> str:
    for pattern, replacement in old_names:
        name = re.sub(f"^{pattern}$", replacement, name)
    return name


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors of a folder: one file, or the shards that an index names.

    Raises:
        InputError: the folder has no safetensors, or a shard is missing.
    """
    if not os.path.isdir(folder):
        raise InputError(f"{cut(str(folder))}: expected a folder with weights, found none; check the path")
    for stem in WEIGHT_NAMES:
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            shards = read_json(index).get("weight_map")
            if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
                raise InputError(f"{index} is damaged: expected the field weight_map, name -> file, found "
                                 f"{shown(shards)}; copy it again from its source")
            paths = [folder / Path(shard).name for shard in sorted(set(shards.values()))]
            missing = [path.name for path in paths if not os.path.isfile(path)]
            if missing:
                raise InputError(f"{folder}: {index.name} names {listed(missing)}, which are missing; add them")
            return paths
        if (folder / f"{stem}.safetensors").is_file():
            return [folder / f"{stem}.safetensors"]
    others = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".ckpt", ".pt", ".safetensors"))
    found = f"found {listed(others)}" if others else "found no weights"
    advice = "choose another folder"
    if any(name.endswith(".safetensors") for name in others):
        advice = "rename the file to one of these names (diffusers' `variant` changes the name)"
    elif others:
        advice = "pickled weights are not read; save them again with safe_serialization=True"
    raise InputError(f"{folder}: expected {WEIGHT_NAMES[0]}.safetensors or {WEIGHT_NAMES[1]}.safetensors, {found}; "
                     f"{advice}")


def check_paths(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], origin: str,
                fresh: str = "") -> None:
    """Refuse parameters that do not match a model exactly.

    Args:
        expected, found: path -> shape.
        origin: where `found` comes from, for the message.
        fresh: pattern of paths that may be missing; "": no path may be missing.

    Raises:
        InputError: tensors are missing, unexpected or mis-shaped; the message lists the first ones of each kind.
    """
    missing = [path for path in sorted(set(expected) - set(found)) if not (fresh and re.search(fresh, path))]
    refuse_misfits(f"{origin} does not fit the model", missing, sorted(set(found) - set(expected)), expected, found)


def refuse_misfits(what: str, missing: Sequence[str], unexpected: Sequence[str],
                   expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse tensors that are missing, unexpected or of another shape than expected, in one line.

    Args:
        what: beginning of the message.
        missing, unexpected: their names, perhaps with their shapes.
        expected, found: name -> shape.

    Raises:
        InputError: lists the first tensors of each kind, and their number.
    """
    other = [f"{name} has shape {tuple(found[name])}, expected {tuple(expected[name])}"
             for name in sorted(set(expected) & set(found)) if tuple(found[name]) != tuple(expected[name])]
    kinds = [(f"missing {listed(missing)}", missing), (f"unexpected {listed(unexpected)}", unexpected),
             (listed(other, longest=160), other)]
    count = sum(len(names) for _, names in kinds)
    if count:
        raise InputError(f"{what} ({count} tensors): {'; '.join(words for words, names in kinds if names)}")


def write_tensors(folder: Path, tensors: Iterable[tuple[str, np.ndarray]], shard_bytes: int = 2 << 30,
                  stem: str = "model", metadata: Mapping[str, str] | None = None) -> None:
    """Write STEM.safetensors, or shards and STEM.safetensors.index.json if one shard is too small.

    Memory holds about one shard. The files get their final names after all of them are written.

    Args:
        folder: existing output folder.
        tensors: (name, array) pairs with unique names.
        shard_bytes: maximum bytes per shard; a larger tensor gets a shard of its own.
        stem: one of `WEIGHT_NAMES`.
        metadata: metadata of every file.
    """
    remove_hidden_folders(folder)
    with hidden_folder(folder) as hidden:
        shards: list[list[str]] = []
        pending: dict[str, np.ndarray] = {}

        def flush():
            save_file(pending, hidden / str(len(shards)), metadata)
            shards.append(list(pending))
            pending.clear()

        size = total = 0
        for name, x in tensors:
            if pending and size + x.nbytes > shard_bytes:
                flush()
                size = 0
            pending[name] = np.ascontiguousarray(x)
            size, total = size + x.nbytes, total + x.nbytes
        flush()

        names = [f"{stem}.safetensors"] if len(shards) == 1 else [
            f"{stem}-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
        index = folder / f"{stem}.safetensors.index.json"
        index.unlink(missing_ok=True)  # an old index would name other shards
        for i, name in enumerate(names):
            make_readable(hidden / str(i))
            os.replace(hidden / str(i), folder / name)
        for old in folder.glob(f"{stem}*.safetensors"):
            if old.name not in names:
                old.unlink()
        if len(names) > 1:
            weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
            write_json(index, {"metadata": {"total_size": total}, "weight_map": weight_map})


def copy_with_metadata(path: Path, out: Path, values: Mapping[str, str]) -> None:
    """Copy a safetensors file and add metadata; its tensors do not change."""
    with path.open("rb") as file, out.open("wb") as copy:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        header["__metadata__"] = {**header.get("__metadata__", {}), **values}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        copy.write(len(text).to_bytes(8, "little") + text)
        shutil.copyfileobj(file, copy, 1 << 24)
