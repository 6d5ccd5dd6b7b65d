"""Settings that the videos of one call share, and the model that they name."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from durian_jax.checkpoints.description import Description
from durian_jax.convert.bundle import read_bundle
from durian_jax.diffusion import Sampling
from durian_jax.errors import InputError
from durian_jax.faces.fill_region import ordered_layers
from durian_jax.families import get_family
from durian_jax.inference.backend import Backend
from durian_jax.inference.family import check_driven_by, check_options
from durian_jax.inference.size import at_size
from durian_jax.prepare.track import check_choice
from durian_jax.video import check_crf

# Programs that can run a model.
BACKENDS = ("jax", "torch")
# Frames per second that can be asked for.
_RATES = (1, 120)


@dataclass(frozen=True)
class Settings:
    """What the videos of one call have in common; `files.animate_files` explains the fields.

    Raises:
        InputError: an unknown backend, an option of another backend, an unknown kind in the order, or a rate or quality
            out of range.
    """

    checkpoint: str | Path = "tiny"
    frames: int | None = None
    size: int | None = None
    sampling: Sampling | Mapping[str, Any] | None = None
    backend: str = "jax"
    device: str | None = None
    dtype: str | None = None
    driven_by: str | None = None
    paste_back: bool = False
    audio: bool = True
    fps: float | None = None
    crf: int | None = None
    face: str = "largest"
    driving_face: str = "largest"
    gaps: str = "bridge"
    c2pa_cert: str | Path | None = None
    c2pa_key: str | Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.backend not in BACKENDS:
            raise InputError(f"unknown backend {self.backend!r}; expected one of {', '.join(BACKENDS)}")
        if self.backend == "jax" and (self.device or self.dtype):
            raise InputError("device and dtype are for backend='torch'; JAX takes its default device and the model's "
                             "dtype")
        if self.fps is not None and not _RATES[0] <= self.fps <= _RATES[1]:
            raise InputError(f"fps: expected {_RATES[0]} to {_RATES[1]} frames per second, found {self.fps:g}; leave "
                             "it out to keep the driving video's")
        check_crf(self.crf, "crf")
        for name in ("face", "driving_face"):
            check_choice(getattr(self, name), name)
        ordered_layers(self.options.get("order", ()))
        if self.gaps not in ("bridge", "hold"):
            raise InputError(f"gaps: expected bridge or hold, found {self.gaps!r}")

    def describe(self) -> Description:
        """Return the description of the model at the size and with the sampling of these settings.

        Raises:
            InputError: no such model or device, or a model that does not fit these settings.
        """
        if self.backend == "torch":
            import durian_jax.pytorch  # noqa: F401 - names a missing package

            found = read_bundle(self.checkpoint)[0]
        else:
            from durian_jax.checkpoints.weights import read_description

            found = read_description(self.checkpoint)
        found = replace(found, config=at_size(found.config, self.size, str(self.checkpoint)),
                        sampling=found.sampling_for(self.sampling))
        if self.driven_by is not None:
            check_driven_by(found.config, self.driven_by, str(self.checkpoint))
        check_options(found.config, self.options)
        if self.backend == "torch":
            from durian_jax.pytorch.device import choose_device  # imports PyTorch, which takes seconds

            choose_device(self.device)
        return found

    def load(self, found: Description) -> tuple[Backend, dict[str, str]]:
        """Load the model.

        Args:
            found: from `describe`.

        Returns:
            The model, and the settings of its backend for a report.
        """
        if self.backend == "torch":
            family = get_family(found.config.family).load("pytorch")
            pipeline = family.from_pretrained(self.checkpoint, self.dtype, found.config.image_size).to(self.device)
            return pipeline, {"device": str(pipeline.device), "dtype": str(pipeline.dtype)}
        from durian_jax.checkpoints.weights import load_checkpoint
        from durian_jax.inference.generate import JaxBackend

        return JaxBackend(replace(load_checkpoint(self.checkpoint), config=found.config)), {}
