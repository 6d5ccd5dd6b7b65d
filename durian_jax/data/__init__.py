"""From clips to training batches: records, sources, samples and the Grain pipeline."""

from durian_jax.data.pipeline import make_loader as make_loader
from durian_jax.data.recorded_clips import RecordedClips as RecordedClips
from durian_jax.data.recorded_clips import write_clips as write_clips
from durian_jax.data.samples.config import SampleConfig as SampleConfig
from durian_jax.data.sources import ClipList as ClipList
from durian_jax.data.sources import Mixture as Mixture
from durian_jax.data.sources import SyntheticClips as SyntheticClips
from durian_jax.data.synthesize import synthesize as synthesize
