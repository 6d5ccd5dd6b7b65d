"""The clips that a run's config names."""

import warnings

from durian_jax.data.recorded_clips import RecordedClips
from durian_jax.data.sources import ClipSource, Mixture, SyntheticClips
from durian_jax.errors import InputError
from durian_jax.training.config import RunConfig


def make_source(run: RunConfig) -> ClipSource:
    """Open the clips of a run.

    Args:
        run: its `source` names them; "synthetic" is the procedural world, drawn on demand.

    Raises:
        InputError: no clips, too few synthetic ones, `weights` that do not match the number of sources, or clips that
            the run cannot use: of another frame rate, or of one person where it needs several.
    """
    config, image_size = run.source, run.data.image_size
    names = [name for name in config.clips.split(",") if name]
    if not names:
        raise InputError("no training clips: --config.source.clips expects folders of records, written by `durian "
                         "prepare` or `durian synthesize`, or the word synthetic")
    if config.weights and len(config.weights) != len(names):
        raise InputError(f"source.weights: expected one number for each of {len(names)} sources, found "
                         f"{len(config.weights)}")
    if "synthetic" in names and config.synthetic_clips < 2:
        raise InputError(f"source.synthetic_clips: expected at least 2, found {config.synthetic_clips}")
    sources = [SyntheticClips("train", config.synthetic_clips, config.synthetic_frames, image_size,
                              fps=config.synthetic_fps)
               if name == "synthetic" else RecordedClips(name) for name in names]
    for name, source in zip(names, sources, strict=True):
        if run.recipe.temporal:
            run.data.check_rate(name, source.fps)
        if isinstance(source, RecordedClips):
            side = source.about["height"] - 2 * source.about["margin"]
            if side < image_size:
                warnings.warn(f"{source.directory} holds pictures of {side} px, which are enlarged to the model's "
                              f"{image_size} px", stacklevel=2)
    source = sources[0] if len(sources) == 1 else Mixture(sources, config.weights or None)
    run.data.check_clips(source)
    return source
