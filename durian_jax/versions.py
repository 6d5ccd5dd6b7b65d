"""Which versions made a picture."""

import platform
from importlib.metadata import version

from durian_jax import __version__

_LIBRARIES = ("jax", "jaxlib", "flax", "numpy", "opencv-python-headless", "av")


def versions() -> dict[str, str]:
    """Versions of what decides the pixels: this package, Python, and the numeric libraries."""
    return {"durian-jax": __version__, "python": platform.python_version(),
            **{name: version(name) for name in _LIBRARIES}}
