"""Versions of the software that made an output."""

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

__version__ = "0.1.0"

_LIBRARIES = ("jax", "jaxlib", "flax", "torch", "diffusers", "numpy", "opencv-python-headless", "av")


def versions() -> dict[str, str]:
    """Return the versions of this package, of Python and of the installed libraries that affect pixels."""
    found = {"durian-jax": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
