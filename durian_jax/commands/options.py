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


def checkpoint_option(default: str = "tiny"):
    """Return the option --checkpoint."""
    return click.option("--checkpoint", default=default, show_default=True, metavar="NAME|FOLDER",
                        help="Model: name of a shipped checkpoint, or a folder.")


seed_option = click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True,
                           help="Seed of the random numbers. The same seed gives the same files.")


def json_option(words: str):
    """Return the option --json, passed on as `json_path`."""
    return click.option("--json", "json_path", default=None, metavar="FILE", help=words)


def signing_options(command):
    """Add the options of every verb that writes generated videos, passed on as `c2pa_cert` and `c2pa_key`."""
    for option in reversed((
        click.option("--c2pa-cert", default=None, envvar="DURIAN_C2PA_CERT", show_envvar=True, metavar="CHAIN.pem",
                     help="Sign a C2PA manifest (\"AI generated\") with this certificate chain."),
        click.option("--c2pa-key", default=None, envvar="DURIAN_C2PA_KEY", show_envvar=True, metavar="KEY.pem",
                     help="Private key of the first certificate, without a passphrase."),
    )):
        command = option(command)
    return command


def sampling_options(command, checkpoint: str = "tiny"):
    """Add the options of every verb that samples from a checkpoint; see `sampling_argument`."""
    for option in reversed((
        checkpoint_option(checkpoint),
        click.option("--steps", type=click.IntRange(1), default=None,
                     help="Number of sampling steps.  [default: the checkpoint's]"),
        click.option("--guidance", type=_Scales(), default=None,
                     help="Scale of guidance, or one scale per condition of the model; 1 turns it off.  [default: the "
                     "checkpoint's]"),
        seed_option,
        click.option("--sampler", type=click.Choice(["ddim", "dpm++"]), default=None,
                     help="DDIM or DPM-Solver++(2M).  [default: the checkpoint's]"),
        click.option("--noise", type=click.Choice(["frame", "clip", "none"]), default=None,
                     help="What starts from noise of its own: every frame; a clip, whose frames share it; or none: "
                     "start from zero.  [default: the checkpoint's]"),
    )):
        command = option(command)
    return command


def sampling_argument(steps: int | None, guidance: float | tuple[float, ...] | None, seed: int, sampler: str | None,
                      noise: str | None) -> dict[str, Any]:
    """Return the fields of `diffusion.Sampling` that the options of `sampling_options` give."""
    given = {"steps": steps, "guidance_scale": guidance, "seed": seed, "sampler": sampler, "noise": noise}
    return {name: value for name, value in given.items() if value is not None}


def animation_options(checkpoint: str, driving: str):
    """Return a decorator that adds the options of every verb that animates a photo by a video.

    The function gets those of `commands.run_animation.run_animation` and those of `sampling_options`.

    Args:
        checkpoint: default of --checkpoint.
        driving: help of --driving.
    """
    def add(command):
        for option in reversed((
            click.option("-s", "--source", default=None, metavar="PHOTO|FOLDER",
                         help="Portrait to animate, or a folder of portraits."),
            click.option("-d", "--driving", default=None, metavar="VIDEO|FOLDER",
                         help=f"{driving} Or a folder of videos."),
            click.option("-a", "--attribute", "attributes", multiple=True, metavar="KIND=PHOTO",
                         help="Take hair, glasses, beard or hat from another photo, or from a file of durian attribute "
                         "save; repeat for more. KIND=none takes the portrait's own away, and KIND=PHOTO,PHOTO@0.3 "
                         "blends two."),
            click.option("--order", default=None, metavar="KIND[,KIND...]",
                         help="Which attribute covers which, the outermost first.  [default: hat,glasses,hair,beard]"),
            click.option("--timeline", default=None, metavar="FILE.json",
                         help="One more attribute, which changes from photo to photo over time (durian timeline)."),
            click.option("-o", "--out", "--output", required=True, metavar="FILE.mp4|FOLDER",
                         help="Video to write, or the folder of several."),
            click.option("--jobs", default=None, metavar="FILE.csv",
                         help="Make a video of each row. Columns: source, driving, attributes (KIND=PHOTO;...), "
                         "timeline, out."),
            click.option("--paste-back", is_flag=True,
                         help="Show the whole photo, in which the person moves; write the crop beside it."),
            click.option("--face", default="largest", show_default=True, metavar="largest|left|right|N",
                         help="Which face of the portrait, if it shows several; N counts from the left."),
            click.option("--driving-face", default="largest", show_default=True, metavar="largest|left|right|N",
                         help="Which person of the driving video."),
            click.option("--gaps", type=click.Choice(["bridge", "hold"]), default="bridge", show_default=True,
                         help="Frames without a face: move on to the next one within half a second, or hold the last "
                         "one for any time."),
            click.option("--frames", type=click.IntRange(1), default=None,
                         help="Maximum number of frames of the result.  [default: all]"),
            click.option("--fps", type=float, default=None,
                         help="Frames per second; the driving video is resampled.  [default: the driving video's]"),
            click.option("--crf", type=int, default=None,
                         help="Quality of H.264, 0 (lossless) to 51.  [default: 17, with a limit of the bit rate]"),
            click.option("--audio/--no-audio", default=True, show_default=True,
                         help="Keep the sound of the driving video."),
            click.option("--size", type=click.IntRange(1), default=None,
                         help="Picture size in pixels, if the model supports several.  [default: the checkpoint's]"),
            lambda command: sampling_options(command, checkpoint),
            signing_options,
            click.option("--backend", type=click.Choice(["jax", "torch"]), default="jax", show_default=True,
                         help="torch runs an export of `durian export` and needs no JAX."),
            click.option("--device", default=None, metavar="NAME",
                         help="Device of the torch backend.  [default: a GPU, else CPU]"),
            click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default=None,
                         help="Precision of the torch backend.  [default: the model's]"),
        )):
            command = option(command)
        return command
    return add
