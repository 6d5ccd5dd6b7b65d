"""The TPU compiler (libtpu): where it is, and how it gets there.

It has a folder of its own. Beside jax in one environment it would look for TPUs whenever jax starts, for half a minute.
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
    """What the installed jax wants, "libtpu==0.0.42.*"."""
    return next(text.partition(";")[0].strip() for text in requires("jax") if text.startswith("libtpu"))


def default_folder() -> Path:
    """Where `durian plan --install` puts it: one place for each version."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "durian" / requirement().replace("==", "-").removesuffix(".*")


def find_compiler() -> Path:
    """libtpu.so: what TPU_LIBRARY_PATH names, one that is installed beside jax, or that of `install_compiler`.

    Raises:
        InputError: there is none.
    """
    named = os.environ.get(_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise InputError(f"{_VARIABLE}={named}: expected a file, libtpu.so; correct or unset the variable")
        return Path(named)
    package = importlib.util.find_spec("libtpu")
    for folder in ([Path(package.origin).parents[1]] if package else []) + [default_folder()]:
        if (folder / _LIBRARY).is_file():
            return folder / _LIBRARY
    raise InputError("the TPU compiler is not installed (libtpu, for Linux on x86-64, about 700 MB); run `durian plan "
                     "--install` once to install it")


def install_compiler(folder: str | Path | None = None) -> Path:
    """Fetch the TPU compiler that the installed jax wants, unless it is there.

    Args:
        folder: where; None keeps one that `find_compiler` finds, else is `default_folder()`.

    Raises:
        InputError: it cannot be installed.
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
    """The environment of a process that compiles for TPUs on a machine without any."""
    # XLA's flags are for CPUs, and what is compiled for TPUs is not kept.
    kept = {name: value for name, value in os.environ.items()
            if name not in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "JAX_DISABLE_MOST_OPTIMIZATIONS")}
    return {**kept, "JAX_PLATFORMS": "cpu", _VARIABLE: str(find_compiler()), "TPU_SKIP_MDS_QUERY": "1",
            # Two processes may use the library at a time: it drives no chips.
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
