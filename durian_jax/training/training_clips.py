"""The clips that a config names."""

import warnings

from ml_collections import ConfigDict

from durian_jax.data import DataConfig, Mixture, RecordedClips, SyntheticClips
from durian_jax.data.sources import ClipSource
from durian_jax.errors import InputError


def make_source(config: ConfigDict, data: DataConfig) -> ClipSource:
    """Where a run's clips come from.

    Args:
        config: `clips`: folders of records separated by commas, and "synthetic" for the procedural world
            drawn as it is needed (`synthetic_clips` people, `synthetic_frames` each, `synthetic_fps` a second);
            `weights`: the share of each in the samples, on any scale; none: by their numbers of clips.
        data: for the picture's size.

    Raises:
        InputError: no clips, or another number of weights than sources.
    """
    names = [name for name in config.clips.split(",") if name]
    if not names:
        raise InputError("no training clips: --config.source.clips expects folders of records, written by `durian "
                         "prepare` or `durian synthesize`, or the word synthetic")
    sources = [SyntheticClips("train", config.synthetic_clips, config.synthetic_frames, data.image_size,
                              fps=config.synthetic_fps)
               if name == "synthetic" else RecordedClips(name) for name in names]
    for source in sources:
        if isinstance(source, RecordedClips):
            side = source.about["height"] - 2 * source.about["margin"]
            if side < data.image_size:
                warnings.warn(f"{source.directory} holds pictures of {side} px, which are enlarged to the model's "
                              f"{data.image_size} px", stacklevel=2)
    if len(sources) == 1:
        return sources[0]
    if config.weights and len(config.weights) != len(sources):
        raise InputError(f"source.weights has {len(config.weights)} numbers for {len(sources)} sources")
    return Mixture(sources, config.weights or None)
