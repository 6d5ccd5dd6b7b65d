"""Location and installation of the TPU compiler (libtpu).

It is installed in a separate folder. In jax's own environment it would search for TPUs at every start of jax, for
half a minute.
"""

import importlib.util
import os
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

from durian_jax.errors import InputError
from durian_jax.files import writable_folder

_VARIABLE = "TPU_LIBRARY_PATH"  # JAX's own
_LIBRARY = Path("libtpu", "libtpu.so")


def requirement() -> str:
    """Return the requirement of the installed jax, for example "libtpu==0.0.42.*"."""
    return next(text.partition(";")[0].strip() for text in requires("jax") if text.startswith("libtpu"))


def default_folder() -> Path:
    """Return the folder that `durian plan --install` uses, one per version."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "durian" / requirement().replace("==", "-").removesuffix(".*")


def find_compiler() -> Path:
    """Return the path of libtpu.so.

    It is the file in TPU_LIBRARY_PATH, else the one installed beside jax, else the one from `install_compiler`.

    Raises:
        InputError: no libtpu.so found.
    """
    named = os.environ.get(_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise InputError(f"{_VARIABLE}={named}: expected a file libtpu.so, found none; correct or unset the "
                             "variable")
        return Path(named)
    package = importlib.util.find_spec("libtpu")
    for folder in ([Path(package.origin).parents[1]] if package else []) + [default_folder()]:
        if (folder / _LIBRARY).is_file():
            return folder / _LIBRARY
    raise InputError("the TPU compiler is not installed (libtpu, for Linux on x86-64, about 700 MB); run `durian plan "
                     "--install` once to install it")


def install_compiler(folder: str | Path | None = None) -> Path:
    """Download the TPU compiler that the installed jax requires, unless it exists already.

    Args:
        folder: target folder. None uses the compiler that `find_compiler` finds, or else `default_folder()`.

    Returns:
        The path of libtpu.so.

    Raises:
        InputError: the compiler cannot be installed.
    """
    if folder is None:
        try:
            return find_compiler()
        except InputError:
            folder = default_folder()
    folder = writable_folder(folder)
    if not (folder / _LIBRARY).is_file():
        done = subprocess.run([sys.executable, "-m", "pip", "install", "--no-deps", "--disable-pip-version-check",
                               "--target", str(folder), requirement()], check=False, text=True, stderr=subprocess.PIPE)
        if done.returncode or not (folder / _LIBRARY).is_file():
            raise InputError(f"{requirement()} could not be installed in {folder}: "
                             + "\n".join(done.stderr.strip().splitlines()[-3:]))
    return folder / _LIBRARY


def compiler_environment() -> dict[str, str]:
    """Return the environment variables of a process that compiles for TPUs on a machine without TPUs."""
    # XLA_FLAGS are meant for CPUs, and programs for TPUs must not enter the compilation cache.
    kept = {name: value for name, value in os.environ.items()
            if name not in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "JAX_DISABLE_MOST_OPTIMIZATIONS")}
    return {**kept, "JAX_PLATFORMS": "cpu", _VARIABLE: str(find_compiler()), "TPU_SKIP_MDS_QUERY": "1",
            # Several processes may load the library, because none of them drives chips.
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
