"""`durian reenact`."""

import click

from durian_jax.commands.options import animation_options, sampling_argument
from durian_jax.commands.run_animation import run_animation, said_of_stopping
from durian_jax.interruption import stoppable


@click.command()
@animation_options(checkpoint="svdp-tiny", driving="Video whose head, eyes and mouth the portrait follows.")
@click.option("--source-scale", type=click.FloatRange(0), default=None,
              help="Guidance by the portrait (the paper's lambda_s; 2 there).  [default: the checkpoint's]")
@click.option("--driving-scale", type=click.FloatRange(0), default=None,
              help="Guidance by the driving video (lambda_d; 2.5 there).  [default: the checkpoint's]")
@click.option("--history-scale", type=click.FloatRange(0), default=None,
              help="Guidance by the frames before (lambda_p; 1 there).  [default: the checkpoint's]")
@click.option("--regions", default=None, metavar="NAME[,NAME...]",
              help="What the model sees of the driver: some of eyes (with brows), nose and mouth.  [default: all]")
@click.option("--absolute", is_flag=True,
              help="Leave the driver's head where it is, instead of moving it onto the portrait's in one frame.")
@click.option("--align-frame", type=click.IntRange(0), default=None, metavar="N",
              help="Frame in which the driver's head is moved onto the portrait's.  [default: the one most like the "
              "portrait]")
@stoppable(said_of_stopping)
def reenact(source_scale, driving_scale, history_scale, regions, absolute, align_frame, *, guidance, steps, seed,
            sampler, noise, **given):
    """Animate a photo with eyes, nose and mouth of a video.

    Attributes can come from other photos. Writes the same files as `durian animate`, and takes folders and tables
    of jobs as it does.

    \b
    durian reenact -s me.png -d talk.mp4 -o out.mp4
    durian reenact -s me.png -d talk.mp4 -a hair=friend.png -o out.mp4
    durian reenact -s me.png -d talk.mp4 -o out.mp4 --paste-back
    """
    scales = {"source": source_scale, "driving": driving_scale, "history": history_scale}
    sampling = sampling_argument(steps, guidance, seed, sampler, noise)
    sampling["scales"] = {name: scale for name, scale in scales.items() if scale is not None}
    options = {"absolute": absolute, "align_frame": align_frame}
    if regions is not None:
        options["regions"] = tuple(name for name in regions.split(",") if name)
    run_animation(**given, driven_by="pixels", sampling=sampling, options=options)
