"""`durian animate`."""

import click

from durian_jax.commands.options import animation_options, sampling_argument
from durian_jax.interruption import stoppable


@click.command()
@animation_options(checkpoint="tiny", driving="Video whose motion the portrait makes.")
@stoppable(lambda out, **_: f"nothing was written, an earlier {out} is unchanged; repeat the command to start again")
def animate(*, guidance, steps, seed, sampler, out, **given):
    """Animate a photo with the motion of a video.

    Attributes can come from other photos.

    Writes FILE.mp4, FILE_concat.mp4 (driving | source | attributes | result, with the sound of the driving
    video) and FILE.json (settings, timings, versions).

    \b
    durian animate -s me.png -d talk.mp4 -a hair=friend.png -a glasses=aunt.png -o out.mp4
    """
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.animation.files import animate_files

    report = animate_files(out=out, **given, sampling=sampling_argument(steps, guidance, seed, sampler))
    click.echo(f"{out}: {report['frames']} frames in {report['seconds']['total']:.1f} s")
