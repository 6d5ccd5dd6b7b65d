"""`durian animate`."""

import click

from durian_jax.commands.options import sampling_argument, sampling_options


@click.command()
@click.option("-s", "--source", required=True, metavar="PHOTO", help="Portrait to animate.")
@click.option("-d", "--driving", required=True, metavar="VIDEO", help="Video whose motion the portrait makes.")
@click.option("-a", "--attribute", "attributes", multiple=True, metavar="KIND=PHOTO",
              help="Take hair, glasses, beard or hat from another photo; repeat for more.")
@click.option("-o", "--out", "--output", required=True, metavar="FILE.mp4", help="Video to write.")
@click.option("--frames", type=click.IntRange(1), default=None, help="Maximum number of frames.  [default: all]")
@click.option("--size", type=click.IntRange(1), default=None,
              help="Picture size in pixels, if the model supports several.  [default: the checkpoint's]")
@sampling_options
@click.option("--backend", type=click.Choice(["jax", "torch"]), default="jax", show_default=True,
              help="torch runs an export of `durian export` and needs no JAX.")
@click.option("--device", default=None, metavar="NAME", help="Device of the torch backend.  [default: a GPU, else CPU]")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default=None,
              help="Precision of the torch backend.  [default: the model's]")
def animate(source, driving, attributes, out, frames, size, checkpoint, steps, guidance, seed, sampler, backend,
            device, dtype):
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

    report = animate_files(source, driving, attributes, out, checkpoint=checkpoint, frames=frames, size=size,
                           sampling=sampling_argument(steps, guidance, seed, sampler), backend=backend, device=device,
                           dtype=dtype)
    click.echo(f"{out}: {report['frames']} frames in {report['seconds']['total']:.1f} s")
