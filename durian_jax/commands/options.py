"""Options that several verbs share."""

from typing import Any

import click


class _Scales(click.ParamType):
    """A number of at least 0, or several that are separated by commas."""

    name = "number[,number...]"

    def convert(self, value, param, ctx):
        try:
            numbers = tuple(float(number) for number in value.split(","))
        except ValueError:
            numbers = ()
        if not numbers or not all(number >= 0 for number in numbers):
            self.fail(f"expected numbers of at least 0, found {value!r}", param, ctx)
        return numbers[0] if len(numbers) == 1 else numbers


checkpoint_option = click.option("--checkpoint", default="tiny", show_default=True, metavar="NAME|FOLDER",
                                 help="Model: name of a shipped checkpoint, or a folder.")

seed_option = click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True,
                           help="Seed of the random numbers. The same seed gives the same files.")


def json_option(words: str):
    """Return the option --json, passed on as `json_path`."""
    return click.option("--json", "json_path", default=None, metavar="FILE", help=words)


def sampling_options(command):
    """Add the options of every verb that samples from a checkpoint; see `sampling_argument`."""
    for option in reversed((
        checkpoint_option,
        click.option("--steps", type=click.IntRange(1), default=None,
                     help="Number of sampling steps.  [default: the checkpoint's]"),
        click.option("--guidance", type=_Scales(), default=None,
                     help="Scale of guidance, or one scale per condition of the model; 1 turns it off.  [default: the "
                     "checkpoint's]"),
        seed_option,
        click.option("--sampler", type=click.Choice(["ddim", "dpm++"]), default=None,
                     help="DDIM or DPM-Solver++(2M).  [default: the checkpoint's]"),
    )):
        command = option(command)
    return command


def sampling_argument(steps: int | None, guidance: float | tuple[float, ...] | None, seed: int, sampler: str | None
                      ) -> dict[str, Any]:
    """Return the fields of `diffusion.Sampling` that the options of `sampling_options` give."""
    given = {"steps": steps, "guidance_scale": guidance, "seed": seed, "sampler": sampler}
    return {name: value for name, value in given.items() if value is not None}
