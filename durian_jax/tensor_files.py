"""Tensors in safetensors (one file, or shards with an index), read lazily and written atomically."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from durian_jax.errors import InputError
from durian_jax.files import make_readable, write_json

# Names of weight files in diffusers and in transformers; this project writes the second one.
WEIGHT_NAMES = ("diffusion_pytorch_model", "model")


class TensorFiles(Mapping[str, np.ndarray]):
    """The tensors of a folder, each loaded on access.

    Args:
        folder: folder with weights, see `weight_files`.
        old_names: (pattern, replacement) pairs that map stored names to current names.

    Attributes:
        shapes: name -> shape, known without loading the tensors.

    Raises:
        InputError: the folder has no safetensors, or they are damaged.
    """

    def __init__(self, folder: Path, old_names: Sequence[tuple[str, str]] = ()):
        self._places, self.shapes, self._open = {}, {}, None
        for path in weight_files(folder):
            try:
                file = safe_open(path, framework="np")
            except (OSError, SafetensorError) as error:
                raise InputError(f"{path} is damaged ({error}); copy it again from its source") from error
            for stored in file.keys():  # noqa: SIM118 - not a dict
                name = _current_name(stored, old_names)
                if name in self._places:
                    raise InputError(f"{path}: expected unique tensor names, found {name} twice; copy the folder again")
                self._places[name] = path, stored
                self.shapes[name] = tuple(file.get_slice(stored).get_shape())

    def __getitem__(self, name: str) -> np.ndarray:
        path, stored = self._places[name]
        # Keep only one file open: the pages read from an open file count as this process's memory.
        if self._open is None or self._open[0] != path:
            self._open = path, safe_open(path, framework="np")
        return self._open[1].get_tensor(stored)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _current_name(name: str, old_names: Sequence[tuple[str, str]]) -> str:
    for pattern, replacement in old_names:
        name = re.sub(f"^{pattern}$", replacement, name)
    return name


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors of a folder: one file, or the shards that an index names.

    Raises:
        InputError: the folder has no safetensors, or a shard is missing.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder with weights, found none; check the path")
    for stem in WEIGHT_NAMES:
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            try:
                shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
                paths = [folder / Path(shard).name for shard in shards]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{index} is damaged ({error!r}); copy it again from its source") from error
            missing = [path.name for path in paths if not path.is_file()]
            if missing:
                raise InputError(f"{folder}: {index.name} names {', '.join(missing)}, which are missing; add them")
            return paths
        if (folder / f"{stem}.safetensors").is_file():
            return [folder / f"{stem}.safetensors"]
    others = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".ckpt", ".pt", ".safetensors"))
    found = f"found {', '.join(others)}" if others else "found no weights"
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
        InputError: tensors are missing, unexpected or mis-shaped; the message lists all of them.
    """
    missing = [path for path in sorted(set(expected) - set(found)) if not (fresh and re.search(fresh, path))]
    problems = [f"missing {path}" for path in missing]
    problems += [f"unexpected {path}" for path in sorted(set(found) - set(expected))]
    problems += [f"{path} has shape {tuple(found[path])}, expected {tuple(expected[path])}"
                 for path in sorted(set(expected) & set(found)) if tuple(found[path]) != tuple(expected[path])]
    if problems:
        raise InputError(f"{origin} does not fit the model ({len(problems)} tensors): " + "; ".join(problems))


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
    for left in folder.glob(".writing.*"):  # left by a killed call
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing.") as temporary:
        shards: list[list[str]] = []
        pending: dict[str, np.ndarray] = {}

        def flush():
            save_file(pending, Path(temporary) / str(len(shards)), metadata)
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
            make_readable(Path(temporary) / str(i))
            os.replace(Path(temporary) / str(i), folder / name)
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
