"""What every preset starts from: the defaults of a run's typed parts, as a ConfigDict.

`training.config.RunConfig`, `diffusion.Objective`, `diffusion.Sampling` and the family's sample settings explain the
fields.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
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
    known = all(name in options and ((values := options[name]) is None or value in values)
                for name, value in given.items())
    if preset not in presets or not known:
        listed = "".join(f"[,{name}={name.upper() if values is None else '|'.join(sorted(values))}]"
                         for name, values in options.items())
        raise ValueError(f"expected PRESET{listed} with a preset of {sorted(presets)}, got {arguments!r}")
    return preset, given
