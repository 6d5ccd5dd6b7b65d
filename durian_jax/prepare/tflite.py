"""Masks from a TensorFlow Lite model, such as MediaPipe's selfie_multiclass_256x256.tflite and hair_segmenter.tflite.

LiteRT runs it in this process, without MediaPipe.
"""

import io
import struct
import subprocess
import sys
import zipfile
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from durian_jax.annotator.graph import interpreter_of
from durian_jax.errors import InputError, cut
from durian_jax.prepare.parsing import ParsingMasker, kinds_of_classes
from durian_jax.video.given import existing_file

# Classes of the published models by their number, for files that do not name them.
_CLASSES = {2: ("background", "hair"),
            6: ("background", "hair", "body-skin", "face-skin", "clothes", "others (accessories)")}
_LARGEST_FILE = 1 << 28  # bytes


class TfliteMasker(ParsingMasker):
    """Masks from a TensorFlow Lite segmentation model, see `ParsingMasker`.

    The model takes (1, h, w, 3) float pictures, or (1, h, w, 4) with an earlier mask, which stays empty. It returns
    (1, h, w, C) logits or probabilities. How pictures are scaled and how classes are called is read from the file's
    metadata; without them, pictures are scaled to 0..1, and two or six classes have the names of `_CLASSES`.

    Args:
        path: the .tflite file.

    Raises:
        InputError: LiteRT is missing, the file is not a segmentation model, it needs operators that LiteRT lacks, or
            it has no class for hair.
    """

    def __init__(self, path: str | Path):
        super().__init__(batch=1)
        path = existing_file(path, "a segmentation model (.tflite)")
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError(f"{path}: expected a segmentation model of at most {_LARGEST_FILE >> 20} MB, found "
                             f"{path.stat().st_size >> 20} MB")
        if find_spec("ai_edge_litert") is None:
            raise InputError(f"{path}: needs ai-edge-litert, which is not installed and has no build for Intel Macs; "
                             "name another masker")
        self._path, content = path, path.read_bytes()
        _check_elsewhere(path, content)
        try:
            self._interpreter = interpreter_of(content, threads=2)
            self._input, = self._interpreter.get_input_details()
            self._output, = self._interpreter.get_output_details()
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{path}: expected a segmentation model with one input and one output, loading it failed "
                             f"({cut(str(error))}); name another file or copy it again") from error
        given, made = tuple(self._input["shape"]), tuple(self._output["shape"])
        floats = self._input["dtype"] == self._output["dtype"] == np.float32
        pictures = len(given) == len(made) == 4 and given[0] == made[0] == 1
        if not (floats and pictures and given[3] in (3, 4) and made[3] >= 2):
            raise InputError(f"{path}: expected a model from (1, h, w, 3) float pictures to (1, h, w, classes), found "
                             f"{given} to {made}; name a segmentation model")
        try:
            self._mean, self._spread = _scaling(content)
        except (struct.error, IndexError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: its metadata are damaged ({cut(str(error))}); copy the file again") from error
        lengths = {len(self._mean), len(self._spread)}
        if not lengths <= {1, 3} or not (self._spread > 0).all():
            raise InputError(f"{path}: expected a mean and a positive deviation per channel in its metadata, found "
                             f"{cut(str(self._mean.tolist()))} and {cut(str(self._spread.tolist()))}; name another "
                             "file")
        names = _class_names(path, content) or _CLASSES.get(int(made[3]), ())
        if len(names) != made[3]:
            raise InputError(f"{path}: expected the names of its {made[3]} classes in the file, or a model with 2 or 6 "
                             f"classes; found {len(names)} names")
        self.classes = kinds_of_classes(dict(enumerate(names)), path)

    def _parse(self, frames: np.ndarray, ruled_out: list[int]) -> tuple[np.ndarray, np.ndarray]:
        layers = []
        height, width, channels = self._input["shape"][1:]
        for frame in frames:
            picture = (cv2.resize(frame, (int(width), int(height))).astype(np.float32) - self._mean) / self._spread
            if channels == 4:
                picture = np.concatenate([picture, np.zeros((*picture.shape[:2], 1), np.float32)], axis=-1)
            self._interpreter.set_tensor(self._input["index"], picture[None].astype(np.float32))
            self._interpreter.invoke()
            answer = self._interpreter.get_tensor(self._output["index"])[0]
            if not np.isfinite(answer).all():
                raise InputError(f"{self._path}: the model's answer is not finite, so its weights may be damaged; "
                                 "copy it again")
            if answer.min() >= 0 and np.abs(answer.sum(axis=-1) - 1).max() < 0.01:
                answer = np.log(np.maximum(answer, 1e-7))
            layers.append(cv2.resize(answer, frames.shape[2:0:-1]))
        logits = np.stack(layers).transpose(0, 3, 1, 2)
        logits[:, ruled_out] = -np.inf
        share = np.exp(logits - logits.max(axis=1, keepdims=True))
        return logits.argmax(axis=1), share / share.sum(axis=1, keepdims=True)


# Loads a model and runs it once.
_TRIAL = """
import sys
import numpy as np
from durian_jax.annotator.graph import interpreter_of
model = interpreter_of(sys.stdin.buffer.read(), 1)
for given in model.get_input_details():
    model.set_tensor(given["index"], np.zeros(given["shape"], given["dtype"]))
model.invoke()
"""
_LONGEST_TRIAL = 60  # seconds


def _check_elsewhere(path: Path, content: bytes) -> None:
    """Run the model once in another process, because LiteRT crashes on damaged files."""
    try:
        done = subprocess.run([sys.executable, "-c", _TRIAL], input=content, capture_output=True,
                              timeout=_LONGEST_TRIAL)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{path}: running this model once took more than {_LONGEST_TRIAL} s; name a smaller "
                         "one") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        why = "LiteRT crashes" if done.returncode < 0 or not lines else cut(lines[-1])
        raise InputError(f"{path}: expected a segmentation model with one input and one output, running it failed "
                         f"({why}); copy it again or name another")


def _class_names(path: Path, content: bytes) -> tuple[str, ...]:
    """Return the lines of the label file that is appended to a model as a ZIP archive; empty if there is none."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return ()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            labels = [info for info in archive.infolist() if info.filename.endswith(".txt")
                      and info.file_size < 1 << 16]
            return tuple(archive.read(labels[0]).decode("utf-8", "replace").splitlines()) if labels else ()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError, zlib.error,
            struct.error) as error:
        raise InputError(f"{path}: the names of its classes are damaged ({cut(str(error))}); copy it again") from error


# Places of the fields in the tables of TensorFlow Lite's metadata_schema.fbs.
_SUBGRAPHS, _INPUTS, _PROCESSES, _TYPE, _OPTIONS, _MEAN, _STD = 3, 2, 4, 0, 1, 0, 1
_NORMALIZATION = 1  # in the union ProcessUnitOptions


def _scaling(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation that the metadata ask for, in the pixels' units; 0 and 255 without them."""
    from ai_edge_litert.schema_py_generated import ModelT

    model = ModelT.InitFromPackedBuf(content, 0)
    for entry in model.metadata or ():
        if entry.name == b"TFLITE_METADATA":
            data = bytes(bytearray(model.buffers[entry.buffer].data))
            for process in _tables(_first(_first(_root(data), _SUBGRAPHS), _INPUTS), _PROCESSES):
                if _byte(process, _TYPE) == _NORMALIZATION and (options := _table(process, _OPTIONS)) is not None:
                    return _floats(options, _MEAN, 0), _floats(options, _STD, 255)
    return np.zeros(1, np.float32), np.full(1, 255, np.float32)


# --- reading flatbuffers without a generated module ---------------------------------------------------

def _root(data: bytes) -> Any:
    from flatbuffers import encode, packer, table

    return table.Table(data, encode.Get(packer.uoffset, data, 0))


def _place(of: Any, field: int) -> int:
    """Position of a field in the data, 0 if it is missing."""
    offset = 0 if of is None else of.Offset(4 + 2 * field)
    return of.Pos + offset if offset else 0


def _byte(of: Any, field: int) -> int:
    place = _place(of, field)
    return of.Bytes[place] if place else 0


def _table(of: Any, field: int) -> Any:
    from flatbuffers import table

    place = _place(of, field)
    return table.Table(of.Bytes, of.Indirect(place)) if place else None


def _tables(of: Any, field: int) -> list[Any]:
    from flatbuffers import table

    if not _place(of, field):
        return []
    offset = of.Offset(4 + 2 * field)
    start = of.Vector(offset)
    return [table.Table(of.Bytes, of.Indirect(start + 4 * number)) for number in range(of.VectorLen(offset))]


def _first(of: Any, field: int) -> Any:
    return next(iter(_tables(of, field)), None)


def _floats(of: Any, field: int, missing: float) -> np.ndarray:
    offset = of.Offset(4 + 2 * field)
    if not offset:
        return np.full(1, missing, np.float32)
    start = of.Vector(offset)
    return np.frombuffer(of.Bytes, "<f4", of.VectorLen(offset), start).copy()
