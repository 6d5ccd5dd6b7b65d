"""What every preset starts from: the defaults of a run's typed parts, as a ConfigDict.

`training.config.RunConfig`, `diffusion.Objective`, `diffusion.Sampling` and the family's sample settings explain the
fields.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, fields
from difflib import get_close_matches
from typing import Any

from ml_collections import ConfigDict

from durian_jax.diffusion import Objective, Sampling
from durian_jax.families import get_family
from durian_jax.training.config import defaults


def base(family: str, stage: str) -> ConfigDict:
    """The defaults of a family's run, without a model."""
    samples = get_family(family).load("samples")
    data = {f.name: f.default for f in fields(samples) if f.name not in samples.from_model}
    return ConfigDict({
        "family": family, "stage": stage, **defaults(), "data": data, "objective": asdict(Objective()),
        "sampling": Sampling().defaults(), "model": {}})


def parse(arguments: str, presets: Mapping[str, Callable], options: Mapping[str, Mapping[str, Any] | None]
          ) -> tuple[str, dict[str, str]]:
    """Parse "PRESET,OPTION=VALUE,...".

    Args:
        presets: the known presets.
        options: option -> its known values; None: any value.

    Returns:
        The preset and the given options.

    Raises:
        ValueError: an unknown preset, option or value; lists the known ones.
    """
    preset, *rest = arguments.split(",")
    given = dict(option.partition("=")[::2] for option in rest)
    _check("preset", preset, presets)
    for name, value in given.items():
        _check("option", name, options)
        values = options[name]
        if values is not None:
            _check(name, value, values)
    return preset, given


def _check(what: str, word: str, known: Collection[str]) -> None:
    if word not in known:
        near = get_close_matches(word, known, 1)
        raise ValueError(f"unknown {what} {word!r}; expected one of {', '.join(sorted(known))}"
                         + (f"; did you mean {near[0]}?" if near else ""))
