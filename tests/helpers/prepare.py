"""Procedural people, meshes and files for the tests of the preparation of data."""

from dataclasses import replace

import numpy as np

from durian_jax.faces.clip import Clip
from durian_jax.faces.topology import ATTRIBUTE_KINDS, GROUPS, MEDIAPIPE_INDICES
from durian_jax.synthetic import render, sample_motion, sample_person, still

SIZE, FPS = 256, 25.0
_PERSON = 20  # has pigtails and no other attributes


def draw(person: int = _PERSON, size: int = SIZE, frames: int = 1, **curves) -> Clip:
    """Return a clip of a procedural person; a motion curve is one value or one value per frame."""
    motion = still(frames)
    arrays = {name: np.broadcast_to(np.float32(value), frames) for name, value in curves.items()}
    return render(sample_person("validation", person), replace(motion, **arrays), size)


def calm_talk() -> np.ndarray:
    """Return 30 calm frames: the head sways, and the mouth opens a little."""
    time = np.arange(30) / FPS
    return draw(frames=30, yaw=10 * np.sin(4 * time), mouth=0.3 * np.sin(9 * time) ** 2).frames


def wearers() -> dict[str, Clip]:
    """Return a clip of one frame per attribute kind, of a procedural person who wears the kind; its masks are exact."""
    found = {kind: sample_person("validation", 3, require=(kind,)) for kind in ATTRIBUTE_KINDS}
    return {kind: render(person, sample_motion("validation", i, 1), size=128)
            for i, (kind, person) in enumerate(found.items())}


def face_mesh(centre=(300.0, 260.0), height: float = 200.0, frames: int = 20) -> np.ndarray:
    """Return (T, 478, 3) meshes whose contour is an ellipse of the given height in pixels."""
    points = np.zeros((frames, 478, 3), np.float32)
    angle = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    contour = MEDIAPIPE_INDICES[GROUPS["contour"]]
    points[:] = (*centre, 0)
    points[:, contour, 0] = centre[0] + 0.4 * height * np.sin(angle)
    points[:, contour, 1] = centre[1] - 0.5 * height * np.cos(angle)
    return points


def touch(folder, *names: str) -> None:
    """Create empty files below a folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
