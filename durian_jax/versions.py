"""Versions of the software that made an output."""

import platform
import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

__version__ = "0.1.0"

_LIBRARIES = ("jax", "jaxlib", "flax", "torch", "diffusers", "numpy", "opencv-python-headless", "av")


def is_newer(version: object) -> bool:
    """Whether a version of this package, such as "0.2.0", is newer than this one; False for anything else."""
    numbers = [re.findall(r"\d{1,9}", text) for text in (str(version), __version__)]
    found, own = ([int(number) for number in text] for text in numbers)
    return isinstance(version, str) and found > own


def versions() -> dict[str, str]:
    """Return the versions of this package, of Python and of the installed libraries that affect pixels."""
    found = {"durian-jax": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
