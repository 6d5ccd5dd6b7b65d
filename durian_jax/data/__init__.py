"""From clips to training batches: records, sources, samples and the Grain pipeline."""

from typing import TYPE_CHECKING

from durian_jax.data.dataset_writer import write_clips as write_clips
from durian_jax.data.recorded_clips import RecordedClips as RecordedClips
from durian_jax.data.samples.config import SampleConfig as SampleConfig
from durian_jax.data.sources import ClipList as ClipList
from durian_jax.data.sources import Mixture as Mixture
from durian_jax.data.sources import SyntheticClips as SyntheticClips
from durian_jax.data.synthesize import synthesize as synthesize

if TYPE_CHECKING:
    from durian_jax.data.pipeline import make_loader as make_loader


def __getattr__(name: str):
    if name != "make_loader":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from durian_jax.data.pipeline import make_loader  # Grain imports JAX, which the other names do not need

    return make_loader
