"""Find and install the annotator's own Python environment.

MediaPipe 0.10.21 is the last release whose wheel contains every model that we need, so nothing is downloaded at run
time. It requires numpy < 2 and cannot share an environment with JAX. So it runs in a virtual environment of its own
and communicates over a pipe (`prepare.client`).
"""

import os
import subprocess
import sys
import venv
from contextlib import suppress
from pathlib import Path

from durian_jax.errors import InputError

ENVIRONMENT_VARIABLE = "DURIAN_ANNOTATOR_PYTHON"
FOLDER = ".venv-annotator"
REQUIREMENTS = Path(__file__).with_name("annotator-requirements.txt")

_CHECK = "import numpy, mediapipe; assert mediapipe.__version__ == '0.10.21'; mediapipe.solutions.face_mesh"


def default_folder() -> Path:
    """Return the folder that `durian annotator` uses by default: one for all projects of the user."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "durian" / "annotator"


def find_annotator() -> Path:
    """Return the Python executable of the annotator's environment.

    Search order: the variable DURIAN_ANNOTATOR_PYTHON (a Python executable), the folder .venv-annotator in the
    working directory, the same folder in the package's source tree, the user's cache folder.

    Raises:
        InputError: no environment is found, or the variable names no executable.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        if not os.access(named, os.X_OK) or Path(named).is_dir():
            raise InputError(f"{ENVIRONMENT_VARIABLE}={named}: expected a Python executable; "
                             "correct or unset the variable")
        return Path(named)
    source_tree = Path(__file__).resolve().parents[2]
    for folder in (Path.cwd() / FOLDER, source_tree / FOLDER, default_folder()):
        python = _python_of(folder)
        if python.exists():
            return python
    raise InputError("the face annotator is not installed (MediaPipe in an environment of its own, about 450 MB); "
                     "run `durian annotator` once to install it")


def install_annotator(folder: str | Path | None = None, progress: bool = True) -> Path:
    """Create or complete the annotator's environment and check that it works.

    Args:
        folder: the environment's folder; None: keep a working environment that `find_annotator` finds, else use
            `default_folder()`.
        progress: show pip's output.

    Returns:
        The environment's Python executable.

    Raises:
        InputError: the Python version is not supported, the folder is not writable, or the installation fails.
    """
    if sys.version_info >= (3, 13):
        raise InputError("MediaPipe 0.10.21 needs Python 3.9 to 3.12, found Python "
                         f"{sys.version_info.major}.{sys.version_info.minor}; create an environment from "
                         f"{REQUIREMENTS} with an older Python and set {ENVIRONMENT_VARIABLE} to its executable")
    if folder is None:
        with suppress(InputError):
            found = find_annotator()
            if _works(found) is None:
                return found
    folder = Path(folder) if folder is not None else default_folder()
    python = _python_of(folder)
    if python.exists() and _works(python) is None:
        return python
    try:
        venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(f"{folder}: cannot create a Python environment here ({error}); "
                         "choose another folder") from error
    command = [str(python), "-m", "pip", "install", "--no-deps", "--disable-pip-version-check",
               "-r", str(REQUIREMENTS)]
    result = subprocess.run(command, check=False, text=True, stderr=subprocess.PIPE,
                            stdout=None if progress else subprocess.DEVNULL)
    problem = result.stderr if result.returncode else _works(python)
    if problem is not None:
        raise InputError(f"installing the annotator in {folder} failed; the last lines of the output are:\n"
                         + "\n".join(problem.strip().splitlines()[-5:]))
    return python


def _python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _works(python: Path) -> str | None:
    """Return None if this Python can import MediaPipe, else the error text."""
    result = subprocess.run([str(python), "-c", _CHECK], check=False, text=True, capture_output=True)
    return None if result.returncode == 0 else result.stderr or f"exit status {result.returncode}"
