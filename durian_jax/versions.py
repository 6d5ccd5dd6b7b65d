"""Which versions made a picture."""

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from durian_jax import __version__

_LIBRARIES = ("jax", "jaxlib", "flax", "torch", "diffusers", "numpy", "opencv-python-headless", "av")


def versions() -> dict[str, str]:
    """Versions of what decides the pixels: this package, Python, and the numeric libraries that are installed."""
    found = {"durian-jax": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
