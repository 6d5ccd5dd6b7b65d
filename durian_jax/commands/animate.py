"""`durian animate`."""

import click

from durian_jax.commands.options import animation_options, sampling_argument
from durian_jax.commands.run_animation import run_animation, said_of_stopping
from durian_jax.interruption import stoppable


@click.command()
@animation_options(checkpoint="tiny", driving="Video whose motion the portrait makes.")
@stoppable(said_of_stopping)
def animate(*, guidance, steps, seed, sampler, noise, **given):
    """Animate a photo with the motion of a video.

    Attributes can come from other photos.

    Writes FILE.mp4, FILE_concat.mp4 (driving | source | attributes | result) and FILE.json (settings, timings,
    versions). With --paste-back, FILE.mp4 shows the whole photo and FILE_crop.mp4 the crop. Of a folder or a table
    of jobs, it makes several videos and FOLDER/summary.json; the exit status is 1 if some failed.

    \b
    durian animate -s me.png -d talk.mp4 -a hair=friend.png -a glasses=aunt.png -o out.mp4
    durian animate -s me.png -d talk.mp4 -o out.mp4 --paste-back
    durian animate -s photos/ -d talk.mp4 -o videos/
    durian animate --jobs jobs.csv -o videos/
    """
    run_animation(**given, sampling=sampling_argument(steps, guidance, seed, sampler, noise))
