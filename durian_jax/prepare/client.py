"""Client of MediaPipe, which runs in its own environment (`prepare.mediapipe_worker`)."""

import struct
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from durian_jax.errors import InputError
from durian_jax.faces.topology import MESH_POINTS
from durian_jax.prepare.environment import find_annotator

_WORKER = Path(__file__).with_name("mediapipe_worker.py")
# The detectors work at 128..256 pixels, so sending larger pictures through the pipe gains nothing.
_LONGEST_SIDE = 1024


class AnnotatorStopped(InputError):
    """MediaPipe's process exited while it was in use."""


class Annotator:
    """A running MediaPipe process and context manager. One process serves any number of files in turn.

    Raises:
        InputError: the environment is missing or broken.
    """

    def __init__(self):
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (stays open as long as the process runs)
        self._process = subprocess.Popen([str(find_annotator()), str(_WORKER)], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=self._log)
        self._answer()

    def __enter__(self) -> "Annotator":
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Stop the process."""
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._log.close()

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def mesh(self, image: np.ndarray, tracked: bool = False) -> np.ndarray | None:
        """Return the face mesh of the largest face.

        Args:
            image: (H, W, 3) uint8 RGB.
            tracked: the picture is the next frame of the same video.

        Returns:
            (478, 3) float32: x and y in pixels, depth on the same scale; None if no face is found.
        """
        found = self._meshes(b"T" if tracked else b"M", image)
        return found[0] if len(found) else None

    def meshes(self, image: np.ndarray) -> np.ndarray:
        """Return (n, 478, 3) float32 meshes of up to four faces in the next frame of a video; units as in `mesh`."""
        return self._meshes(b"A", image)

    def person(self, image: np.ndarray) -> np.ndarray:
        """Return (H, W) uint8 confidences 0..255 that each pixel of an (H, W, 3) uint8 picture shows a person."""
        return np.frombuffer(self._ask(b"P", image), np.uint8).reshape(image.shape[:2])

    def reset(self) -> None:
        """Forget the tracked faces; call this before the first frame of another video or shot."""
        self._ask(b"R", np.empty((0, 0, 3), np.uint8))

    def _meshes(self, op: bytes, image: np.ndarray) -> np.ndarray:
        scale = min(1.0, _LONGEST_SIDE / max(image.shape[:2]))
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return np.frombuffer(self._ask(op, image), "<f4").reshape(-1, MESH_POINTS, 3) / np.float32(scale)

    def _ask(self, op: bytes, image: np.ndarray) -> bytes:
        try:
            self._process.stdin.write(struct.pack("<cII", op, *image.shape[:2]))
            self._process.stdin.write(np.ascontiguousarray(image).tobytes())
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # The process has exited; `_answer` raises the error with its log.
        return self._answer()

    def _answer(self) -> bytes:
        head = self._process.stdout.read(4)
        body = self._process.stdout.read(struct.unpack("<I", head)[0]) if len(head) == 4 else None
        if body is None or len(body) < struct.unpack("<I", head)[0]:
            self._process.wait()
            self._log.seek(0)
            words = self._log.read().decode(errors="replace").strip().splitlines()[-5:]
            raise AnnotatorStopped("the face annotator has exited; run `durian annotator` to repair its environment. "
                             "The last lines of its log are:\n" + "\n".join(words))
        return body
