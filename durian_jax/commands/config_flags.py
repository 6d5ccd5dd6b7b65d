"""The options of verbs that take a training config: --config and its overrides --config.FIELD=VALUE."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

from durian_jax.errors import InputError, listed

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_HELP = "Training config: PRESET,stage=STAGE or FILE.py:PRESET,stage=STAGE; see below."


class ConfigCommand(click.Command):
    """A verb whose help explains --config and lists the presets."""

    def format_epilog(self, ctx, formatter):
        """Write the forms of --config and the presets below the options."""
        from durian_jax.configs import presets

        known = [(family, preset, summary) for family, found in presets().items() for preset, summary in found.items()]
        family, preset, _ = known[0]
        with formatter.section("Configs"):
            formatter.write_dl([
                (f"{preset},stage=1", "A preset and its options. Presets need no file and work in any folder."),
                (f"{family}:{preset},stage=1", "The same preset, with its model family."),
                (f"configs/{family}.py:{preset},stage=1", "A preset of a config file: yours, or the packaged one."),
                ("--config.FIELD=VALUE", "Changes a field; repeat it for more, as in --config.total_steps=8 "
                                         "--config.mesh.fsdp=4. The files in durian_jax/configs explain the fields."),
            ])
        with formatter.section("Presets"):
            formatter.write_dl([(f"{family}:{preset}", summary) for family, preset, summary in known])


def config_command(name: str | None = None, *, config_help: str = _HELP, no_args_is_help: bool = True):
    """Decorate a verb: its function gets `config`, the text of --config or None, and `overrides`; see `read_config`."""
    def decorate(function):
        function = click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="[--config.FIELD=VALUE]...")(
            click.option("--config", default=None, metavar="NAME", help=config_help)(function))
        return click.command(name, cls=ConfigCommand, no_args_is_help=no_args_is_help,
                             context_settings={"ignore_unknown_options": True})(function)
    return decorate


def given_fields(overrides: Sequence[str]) -> dict[str, str]:
    """Return dotted name -> text of the fields that the overrides change, unchecked.

    `read_config` takes seconds, because it imports JAX. The files that a run names are looked up before.
    """
    fields, rest = {}, list(overrides)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name.startswith("--config."):
            fields[name.removeprefix("--config.")] = value if equals or not rest else rest.pop(0)
    return fields


def read_config(config: str | None, overrides: Sequence[str]) -> "ConfigDict":
    """Load a config and change its fields.

    Args:
        config: see `configs.load_config`.
        overrides: "--config.FIELD=VALUE" each.

    Returns:
        The config, locked: it takes no further fields.

    Raises:
        InputError: no config, an unknown one, an unknown field or option, or a value of the wrong type.
    """
    from absl import flags
    from ml_collections import config_flags

    from durian_jax.configs import load_config

    if config is None:
        raise InputError("--config: expected a training config, found none; for example --config=tiny,stage=1")
    values, argv = flags.FlagValues(), ["durian", *overrides]
    settings = load_config(config)
    for name in given_fields(overrides):
        _check_field(settings, name)
    try:
        config_flags.DEFINE_config_dict("config", settings, flag_values=values, sys_argv=argv)
        rest = values(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        raise InputError(_unknown(error.flagname)) from error
    except (flags.Error, ValueError, TypeError) as error:
        raise InputError(_wrong_value(settings, " ".join(str(error).split()))) from error
    if rest:
        raise InputError(f"unexpected {' '.join(rest)}; options begin with two dashes, as in --config.seed=8")
    return settings


# Number of fields that an error lists.
_LISTED = 8


def _check_field(settings: "ConfigDict", name: str) -> None:
    """Refuse a field that the config does not have."""
    found, path = settings, name.split(".")
    for depth, part in enumerate(path):
        if found is None:  # a part of the model that this config leaves out
            return
        known = list(found) if hasattr(found, "keys") else []
        if part not in known:
            inside = ".".join(path[:depth])
            near = get_close_matches(part, known, 1)
            hint = f"did you mean {'.'.join([*path[:depth], near[0]])}?" if near else \
                f"{inside or 'it'} has {listed(sorted(known), _LISTED) or 'no fields'}"
            raise InputError(f"the config has no field {name or 'without a name'}; {hint}")
        found = found[part]


def _unknown(option: str) -> str:
    """Return the message about an option that a verb does not have."""
    context = click.get_current_context(silent=True)
    known = ["--config"] + [name for parameter in (context.command.params if context else [])
                            for name in parameter.opts if name.startswith("--")]
    near = get_close_matches(f"--{option}".partition(".")[0], known, 1)
    meant = f"did you mean {near[0]}{'.FIELD=VALUE' if '.' in option else ''}?" if near else \
        "a field of the config is changed as in --config.seed=8"
    return f"unknown option --{option}; {meant}"


def _wrong_value(settings: "ConfigDict", text: str) -> str:
    """Return the message about an override that the config's flags refuse with this text."""
    from ml_collections import ConfigDict

    match = re.match(r"flag --config\.([\w.]+)=(.*?): ", text)
    if match is None:
        return f"{text.removesuffix('.')}; a field of the config is changed as in --config.seed=8"
    name, value = match.groups()
    kind = settings.get_type(name) if "." not in name else \
        settings[name.rpartition(".")[0]].get_type(name.rpartition(".")[2])
    if kind is ConfigDict:
        inner = next(iter(settings[name]))
        return f"--config.{name}={value}: expected one of its fields, such as --config.{name}.{inner}"
    return f"--config.{name}={value}: expected {_KINDS.get(kind, f'a {kind.__name__}')}, found {value!r}"


# Type of a field -> how a value is written.
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text",
          tuple: "numbers in parentheses, such as (1,2), in quotes"}
