"""Command line to config, for the verbs that take one: `durian train` and `durian encode`."""

from absl import flags
from ml_collections import config_flags

from durian_jax.errors import InputError

_CONFIG = "--config=configs/durian.py:PRESET,stage=STAGE"


def run(argv: list[str]) -> None:
    """Train as the arguments say.

    Args:
        argv: `--config=configs/durian.py:tiny,stage=1 --workdir=DIR [--profile=10:15] [--config.FIELD=VALUE ...]`.

    Raises:
        InputError: a missing or unknown flag or field.
    """
    settings, workdir, profile = parse(argv, "train", ("workdir",), optional=("profile",))
    steps = None if profile is None else _steps(profile)
    from durian_jax.training import cluster
    cluster.join()
    from durian_jax.training.loop import train
    cluster.check_joined()
    with cluster.leaving_at_once():
        finished = train(settings, workdir, steps)
    if not cluster.is_first():
        return
    if finished:
        print(f"{workdir}/export holds the averaged weights: pass it to --checkpoint, or go on from it with "
              "--config.init_from")
    else:
        print("asked to stop (SIGTERM): saved; the same command goes on from here")


def _steps(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
        raise InputError(f"--profile={text}: expected the first and the last step to trace, as in --profile=10:15")
    return int(first), int(last)


def parse(argv: list[str], verb: str, names: tuple[str, ...], optional: tuple[str, ...] = ()) -> tuple:
    """A config and other flags, which must be given.

    Args:
        argv: `--config=FILE.py:PRESET,stage=STAGE [--config.FIELD=VALUE ...] --NAME=VALUE ...`.
        verb: for errors.
        names: of the other flags.
        optional: names of flags that may be left out.

    Returns:
        The config, then a string for each of `names`, then one or None for each of `optional`.

    Raises:
        InputError: a missing or unknown flag or field.
    """
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file("config", None, "FILE.py:PRESET,stage=STAGE", flag_values=values)
    for name in (*names, *optional):
        flags.DEFINE_string(name, None, f"See durian {verb} --help.", flag_values=values)
    example = " ".join([f"durian {verb} {_CONFIG}", *(f"--{name}=..." for name in names)])
    try:
        rest = values([f"durian {verb}", *argv])[1:]
    except (flags.Error, FileNotFoundError, ValueError, AttributeError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1].removesuffix(".")  # what a config raises comes with a traceback
        raise InputError(f"durian {verb}: {reason}. Example: {example}") from error
    if rest:
        raise InputError(f"durian {verb}: unexpected {' '.join(rest)}; options begin with two dashes, as in "
                         f"--config.seed=8")
    try:
        settings = config.value
        getattr(settings, "stage", None)  # one that could not be loaded says so only when it is used
    except OSError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"durian {verb}: the config cannot be read: {reason}. Paths are relative to this folder; the "
                         "project's configs lie in its repository") from error
    given = [values[name].value for name in names]
    missing = [] if settings is not None else [_CONFIG]
    missing += [f"--{name}=..." for name, value in zip(names, given, strict=True) if value is None]
    if missing:
        raise InputError(f"durian {verb} needs {' and '.join(missing)}")
    return settings, *given, *(values[name].value for name in optional)
