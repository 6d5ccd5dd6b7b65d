"""`durian synthesize`."""

import click

from durian_jax.interruption import stoppable


@click.command()
@click.option("--out", required=True, metavar="FOLDER", help="Folder of records to write.")
@click.option("--clips", type=click.IntRange(1), default=100, show_default=True,
              help="Number of clips, each of another person.")
@click.option("--frames", type=click.IntRange(1), default=16, show_default=True, help="Number of frames per clip.")
@click.option("--size", type=click.IntRange(16, 1024), default=128, show_default=True,
              help="Picture size in pixels.")
@click.option("--split", type=click.Choice(["train", "validation", "benchmark"]), default="train",
              show_default=True, help="Disjoint sets of people.")
@click.option("--fps", type=click.FloatRange(0, min_open=True), default=25.0, show_default=True,
              help="Frames per second; a lower rate gives more different poses per clip.")
@click.option("--first", type=click.IntRange(0), default=0, show_default=True, help="Number of the first person.")
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True,
              help="Number of processes that draw; 0 draws in this process.")
@click.option("--drivers", is_flag=True,
              help="Also draw another person who makes the same motion, for models driven by pixels.")
@click.option("--overwrite", is_flag=True, help="Replace the records in FOLDER.")
@stoppable(lambda out, **_: f"{out} is as it was before; repeat the command to start again")
def synthesize(out, clips, frames, size, split, fps, first, workers, drivers, overwrite):
    """Write records of procedural people.

    The format is the same as that of `durian prepare`.
    """
    from durian_jax.data.dataset_writer import refuse_to_replace
    from durian_jax.data.synthesize import synthesize as draw
    from durian_jax.files import check_folder

    if not overwrite:
        refuse_to_replace(out)
    draw(check_folder(out), split, clips, frames, size, first=first, fps=fps, workers=workers,
         drivers=drivers)
    click.echo(f"{out}: {clips} clips of {frames} frames at {size} px")
