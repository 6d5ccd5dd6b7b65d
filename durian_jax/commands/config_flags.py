"""Command line to config, for the verbs that take one: `durian train`, `durian plan` and `durian encode`."""

import ast
from contextlib import suppress

from absl import flags
from ml_collections import config_flags

from durian_jax.errors import InputError
from durian_jax.files import writable_file

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


def run_plan(argv: list[str]) -> None:
    """Plan a run as the arguments say.

    Args:
        argv: `--config=... --topology=v5e:16x16 [--mesh=data=16,fsdp=16] [--batch=256] [--full] [--search]
            [--price=1.2] [--json=FILE] [--config.FIELD=VALUE ...]`, or `--install`.

    Raises:
        InputError: a missing or unknown flag or field, and what `plan.plan` raises.
    """
    from durian_jax.planning import plan, tpu_compiler

    if argv == ["--install"]:
        print(tpu_compiler.install_compiler())
        return
    config, topology, mesh, batch, json_path, price, full, everything = parse(
        argv, "plan", ("topology",), optional=("mesh", "batch", "json", "price"), switches=("full", "search"))
    if everything and (full or mesh or batch):
        raise InputError("--search chooses mesh and batch itself, and makes no machine code: leave --mesh, --batch and "
                         "--full out")
    price = None if price is None else _number(price, "price", float)
    if json_path:
        writable_file(json_path, (".json",))
    if mesh:
        config.mesh = plan.parse_mesh(mesh)
    if batch:
        config.batch_size = _number(batch, "batch", int)
    name = next(flag.partition("=")[2] for flag in argv if flag.startswith("--config="))
    if not everything:
        found = plan.plan(config, topology, full=full, name=name)
    else:
        found, tried = plan.search(config, topology, name=name, report=lambda p: print(plan.summary(p), flush=True))
        if found is None:
            raise InputError(f"none of the {len(tried)} tried fits {topology}: take a chip with more memory, smaller "
                             "pictures or fewer frames")
        print("\nrecommended:")
    print(plan.describe(found, price))
    if json_path:
        plan.write_plan(json_path, found)


def _number(text: str, name: str, kind: type):
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if value <= 0:
        raise InputError(f"--{name}={text}: expected a number above 0")
    return value


def parse(argv: list[str], verb: str, names: tuple[str, ...], optional: tuple[str, ...] = (),
          switches: tuple[str, ...] = ()) -> tuple:
    """A config and other flags, which must be given.

    Args:
        argv: `--config=FILE.py:PRESET,stage=STAGE [--config.FIELD=VALUE ...] --NAME=VALUE ...`.
        verb: for errors.
        names: of the other flags.
        optional: names of flags that may be left out.
        switches: names of flags without a value.

    Returns:
        The config, then a string for each of `names`, one or None for each of `optional`, whether for each of
        `switches`.

    Raises:
        InputError: a missing or unknown flag or field.
    """
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file("config", None, "FILE.py:PRESET,stage=STAGE", flag_values=values)
    for name in (*names, *optional):
        flags.DEFINE_string(name, None, f"See durian {verb} --help.", flag_values=values)
    for name in switches:
        flags.DEFINE_bool(name, False, f"See durian {verb} --help.", flag_values=values)
    example = " ".join([f"durian {verb} {_CONFIG}", *(f"--{name}=..." for name in names)])
    try:
        rest = values([f"durian {verb}", *argv])[1:]
    except (flags.Error, FileNotFoundError, ValueError, AttributeError, KeyError, TypeError) as error:
        text = str(error)
        with suppress(ValueError, SyntaxError):
            text = str(ast.literal_eval(text))  # a KeyError's is a literal
        # What a config raises comes with a traceback.
        reason = text.strip().splitlines()[-1].removesuffix(".")
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
    return settings, *given, *(values[name].value for name in (*optional, *switches))
