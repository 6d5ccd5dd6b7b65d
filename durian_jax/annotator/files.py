"""The annotator's model files: where they are, and how they get there.

They are MediaPipe's published models (Apache-2.0). The wheel of MediaPipe 0.10.21 is the last one that contains them.
pip downloads it for one platform, because its models are the same for all; it is not installed.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from durian_jax.errors import InputError
from durian_jax.files import atomic_file, writable_folder

ENVIRONMENT_VARIABLE = "DURIAN_ANNOTATOR"
FOLDER = ".annotator"
PACKAGE = "mediapipe==0.10.21"

# Name -> folder in the wheel and SHA-256.
MODELS = {
    "face_detection_short_range.tflite": (
        "face_detection", "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8"),
    "face_detection_full_range_sparse.tflite": (
        "face_detection", "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1"),
    "face_landmark_with_attention.tflite": (
        "face_landmark", "e06a804e0144f9929eda782122916b35d60c697c3c9344013ca2bbe76a6ce2b4"),
    "selfie_segmentation.tflite": (
        "selfie_segmentation", "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c"),
}


def default_folder() -> Path:
    """Return the folder that `durian annotator` uses by default: one for all projects of the user."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "durian" / "annotator-models"


def find_models() -> Path:
    """Return the folder of the model files.

    Search order: the folder in the variable DURIAN_ANNOTATOR, the folder .annotator in the working directory, the same
    folder in the package's source tree, the user's cache folder.

    Raises:
        InputError: no folder has all the files, the named folder lacks some, or a file is damaged.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        missing = _missing(Path(named))
        if missing:
            raise InputError(f"{ENVIRONMENT_VARIABLE}={named}: expected a folder of `durian annotator`, found none of "
                             f"{', '.join(missing)}; correct or unset the variable")
        return _checked(Path(named))
    source_tree = Path(__file__).resolve().parents[2]
    for folder in (Path.cwd() / FOLDER, source_tree / FOLDER, default_folder()):
        if not _missing(folder):
            return _checked(folder)
    raise InputError("the models of the face annotator are missing (4 MB, out of MediaPipe's wheel of 36 MB); run "
                     "`durian annotator` once to get them")


def install_models(folder: str | Path | None = None, wheel: str | Path | None = None, progress: bool = True) -> Path:
    """Put the model files into a folder, unless they are there.

    Args:
        folder: where to; None: keep the files that `find_models` finds, else use `default_folder()`.
        wheel: the wheel of MediaPipe 0.10.21; None: download it with pip.
        progress: show pip's output.

    Returns:
        The folder.

    Raises:
        InputError: the folder is not writable, the download fails, or a file in the wheel is not the expected one.
    """
    if folder is None:
        try:
            return find_models()
        except InputError:
            folder = default_folder()
    folder = Path(folder)
    if not _missing(folder) and not _damaged(folder):
        return folder
    writable_folder(folder)
    if wheel is not None:
        _unpack(Path(wheel), folder)
        return folder
    with tempfile.TemporaryDirectory() as temporary:
        _unpack(_download(Path(temporary), progress), folder)
    return folder


def _download(folder: Path, progress: bool) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--dest",
               str(folder), "--python-version", "3.12", "--platform", "manylinux_2_28_x86_64", "--only-binary=:all:",
               PACKAGE]
    result = subprocess.run(command, check=False, text=True, stderr=subprocess.PIPE,
                            stdout=None if progress else subprocess.DEVNULL)
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        words = (result.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise InputError(f"downloading {PACKAGE} with pip failed ({words}); get its wheel for Python 3.12 on another "
                         "machine and run `durian annotator --wheel FILE`")
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, (module, expected) in MODELS.items():
                content = archive.read(f"mediapipe/modules/{module}/{name}")
                if hashlib.sha256(content).hexdigest() != expected:
                    raise InputError(f"{wheel}: {name} is not the model of {PACKAGE}; download the wheel again")
                with atomic_file(folder / name) as temporary:
                    Path(temporary).write_bytes(content)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{wheel}: expected the wheel of {PACKAGE}, found an unreadable file or one without the "
                         f"models ({error}); download it again") from error


def _missing(folder: Path) -> list[str]:
    return [name for name in MODELS if not (folder / name).is_file()]


def _damaged(folder: Path) -> list[str]:
    return [name for name, (_, expected) in MODELS.items()
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected]


def _checked(folder: Path) -> Path:
    damaged = _damaged(folder)
    if damaged:
        raise InputError(f"{folder}: {', '.join(damaged)} is damaged; delete the folder and run `durian annotator`")
    return folder
