"""Durian-JAX: portrait animation with attribute transfer, in JAX.

The public names are listed here. Each is imported on first use, so that importing this package imports no JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from durian_jax.versions import __version__

if TYPE_CHECKING:
    from durian_jax.animation.files import animate_files
    from durian_jax.animation.jobs import animate_jobs
    from durian_jax.animation.paste import paste_back
    from durian_jax.checkpoints.weights import Checkpoint, load_checkpoint, save_checkpoint
    from durian_jax.configs import load_config
    from durian_jax.convert.exporter import export_checkpoint
    from durian_jax.diffusion.sampling import Sampling
    from durian_jax.errors import InputError
    from durian_jax.evaluation.comparison import compare_evaluations
    from durian_jax.evaluation.report import evaluate_checkpoint
    from durian_jax.inference.animator import Animator
    from durian_jax.prepare.annotate import annotate_image, annotate_video
    from durian_jax.prepare.attribute_file import read_attribute
    from durian_jax.prepare.attribute_shelf import save_attribute
    from durian_jax.training.loop import train

__all__ = [
    "Animator",
    "Checkpoint",
    "InputError",
    "Sampling",
    "__version__",
    "animate_files",
    "animate_jobs",
    "annotate_image",
    "annotate_video",
    "compare_evaluations",
    "evaluate_checkpoint",
    "export_checkpoint",
    "load_checkpoint",
    "load_config",
    "paste_back",
    "read_attribute",
    "save_attribute",
    "save_checkpoint",
    "train",
]

_MODULES = {
    "Animator": "inference.animator",
    "Checkpoint": "checkpoints.weights",
    "InputError": "errors",
    "Sampling": "diffusion.sampling",
    "animate_files": "animation.files",
    "animate_jobs": "animation.jobs",
    "annotate_image": "prepare.annotate",
    "annotate_video": "prepare.annotate",
    "compare_evaluations": "evaluation.comparison",
    "evaluate_checkpoint": "evaluation.report",
    "export_checkpoint": "convert.exporter",
    "load_checkpoint": "checkpoints.weights",
    "load_config": "configs",
    "paste_back": "animation.paste",
    "read_attribute": "prepare.attribute_file",
    "save_attribute": "prepare.attribute_shelf",
    "save_checkpoint": "checkpoints.weights",
    "train": "training.loop",
}


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
