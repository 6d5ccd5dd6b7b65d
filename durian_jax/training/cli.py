"""`durian train`: command line to config to loop."""

from absl import flags
from ml_collections import config_flags

from durian_jax.errors import InputError


def run(argv: list[str]) -> None:
    """Train as the arguments say.

    Args:
        argv: `--config=configs/durian.py:tiny,stage=1 --workdir=DIR [--config.FIELD=VALUE ...]`.

    Raises:
        InputError: a missing or unknown flag or field.
    """
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file("config", None, "FILE.py:PRESET,stage=STAGE", flag_values=values)
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    try:
        rest = values(["durian train", *argv])[1:]
    except (flags.Error, FileNotFoundError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise InputError(f"durian train: {error}. Example: durian train --config=configs/durian.py:tiny,stage=1 "
                         f"--workdir=runs/tiny1 --config.total_steps=1000") from error
    if rest:
        raise InputError(f"durian train: unexpected {' '.join(rest)}; options begin with two dashes, as in "
                         f"--config.total_steps=8")
    try:
        settings = config.value
        getattr(settings, "stage", None)  # one that could not be loaded says so only when it is used
    except OSError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"durian train: the config cannot be read: {reason}. Paths are relative to this folder; the "
                         "project's configs lie in its repository") from error
    if values.workdir is None or settings is None:
        raise InputError("durian train needs --config=configs/durian.py:PRESET,stage=STAGE and --workdir=DIR")
    from durian_jax.training.loop import train
    train(settings, values.workdir)
    print(f"{values.workdir}/export holds the averaged weights: pass it to --checkpoint, or go on from it with "
          "--config.init_from")
