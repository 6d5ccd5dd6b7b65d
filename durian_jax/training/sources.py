"""The clips that a config names."""

from ml_collections import ConfigDict

from durian_jax.data import DataConfig, Mixture, RecordedClips, SyntheticClips
from durian_jax.data.sources import ClipSource
from durian_jax.errors import InputError


def make_source(config: ConfigDict, data: DataConfig) -> ClipSource:
    """Where a run's clips come from.

    Args:
        config: `synthetic_clips` and `synthetic_frames`: procedural clips rendered as they are needed;
            `records`: folders of recorded clips, separated by commas; `weights`: one number a source, the
            procedural world (if any) first.
        data: for the picture's size.

    Raises:
        InputError: no source, or another number of weights than sources.
    """
    sources = []
    if config.synthetic_clips:
        sources.append(SyntheticClips("train", config.synthetic_clips, config.synthetic_frames, data.image_size))
    sources += [RecordedClips(folder) for folder in config.records.split(",") if folder]
    if not sources:
        raise InputError("no training clips: set source.synthetic_clips or source.records")
    if len(sources) == 1:
        return sources[0]
    weights = config.weights or (1.0,) * len(sources)
    if len(weights) != len(sources):
        raise InputError(f"source.weights has {len(weights)} numbers for {len(sources)} sources")
    return Mixture(sources, weights)
