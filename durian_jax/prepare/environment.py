"""The annotator's own Python: where it is, and how it gets there.

MediaPipe 0.10.21 (the last release whose wheel carries every model we need, so that nothing is
downloaded at run time) requires numpy < 2 and cannot share an environment with JAX. It lives in a
virtual environment of its own and is spoken to over a pipe (`prepare.client`).
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
    """Where `durian annotator` installs unless told otherwise: one place for the whole user."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "durian" / "annotator"


def find_annotator() -> Path:
    """Python of the annotator's environment.

    Looked for in this order: the variable DURIAN_ANNOTATOR_PYTHON (a Python executable), the folder
    .venv-annotator of the working directory, the one beside the package's source tree, the user's
    cache folder.

    Raises:
        InputError: there is none, or the variable names no executable.
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
    raise InputError("the face annotator is not installed (MediaPipe, in an environment of its own, about "
                     "450 MB); run `durian annotator` once to install it")


def install_annotator(folder: str | Path | None = None, progress: bool = True) -> Path:
    """Create the annotator's environment, or complete it, and check that it works.

    Args:
        folder: where; None keeps a working one that `find_annotator` finds, else is `default_folder()`.
        progress: show pip's own output.

    Returns:
        Its Python executable.

    Raises:
        InputError: unsuitable Python, unwritable folder, or failed installation.
    """
    if sys.version_info >= (3, 13):
        raise InputError("MediaPipe 0.10.21 exists for Python 3.9 to 3.12; this is Python "
                         f"{sys.version_info.major}.{sys.version_info.minor}. Make an environment with an "
                         f"older one from {REQUIREMENTS} and name its Python in {ENVIRONMENT_VARIABLE}")
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
        raise InputError(f"{folder}: cannot create an environment there ({error}); "
                         "choose another folder") from error
    command = [str(python), "-m", "pip", "install", "--no-deps", "--disable-pip-version-check",
               "-r", str(REQUIREMENTS)]
    result = subprocess.run(command, check=False, text=True, stderr=subprocess.PIPE,
                            stdout=None if progress else subprocess.DEVNULL)
    problem = result.stderr if result.returncode else _works(python)
    if problem is not None:
        raise InputError(f"the annotator could not be installed in {folder}; the last lines were:\n"
                         + "\n".join(problem.strip().splitlines()[-5:]))
    return python


def _python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _works(python: Path) -> str | None:
    """None if MediaPipe can be imported there, else what went wrong."""
    result = subprocess.run([str(python), "-c", _CHECK], check=False, text=True, capture_output=True)
    return None if result.returncode == 0 else result.stderr or f"exit status {result.returncode}"
