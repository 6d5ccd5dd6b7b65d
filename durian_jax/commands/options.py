"""Options that several verbs share."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from durian_jax.diffusion.sampling import Sampling

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
        click.option("--guidance", type=click.FloatRange(0), default=None,
                     help="Scale of classifier-free guidance; 1 turns it off.  [default: the checkpoint's]"),
        seed_option,
        click.option("--sampler", type=click.Choice(["ddim", "dpm++"]), default=None,
                     help="DDIM or DPM-Solver++(2M).  [default: the checkpoint's]"),
    )):
        command = option(command)
    return command


def sampling_argument(steps: int | None, guidance: float | None, seed: int, sampler: str | None) -> "Sampling":
    """Return the `sampling` argument for the options of `sampling_options`; None means the default."""
    given = {"steps": steps, "guidance_scale": guidance, "seed": seed, "sampler": sampler}
    given = {name: value for name, value in given.items() if value is not None}
    from durian_jax.diffusion.sampling import Sampling

    return Sampling(**given)
