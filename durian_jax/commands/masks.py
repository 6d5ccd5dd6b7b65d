"""`durian masks`."""

import click

from durian_jax.interruption import stoppable


@click.group()
def masks():
    """Correct the masks of a clip by hand.

    Export the masks, paint on them, and put them back. Only this clip is rewritten.

    \b
    durian masks export data/clips talk#0 talk
    durian masks replace data/clips talk#0 talk
    """


@masks.command("export")
@click.argument("dataset", metavar="DATASET")
@click.argument("clip", metavar="CLIP")
@click.argument("folder", metavar="FOLDER")
@stoppable(lambda folder, **_: f"{folder} is unchanged; repeat the command to start again")
def export_masks(dataset, clip, folder):
    """Write the masks of a clip as pictures.

    Writes FOLDER/KIND/FRAME.png for hair, glasses, beard and hat, white where the attribute is visible, and
    FOLDER/frames/FRAME.png to compare with. `durian sheet` shows the names of the clips.
    """
    from durian_jax.data.mask_files import export_masks as export

    click.echo(f"{folder}: masks of {export(dataset, clip, folder)} frames")


@masks.command("replace")
@click.argument("dataset", metavar="DATASET")
@click.argument("clip", metavar="CLIP")
@click.argument("folder", metavar="FOLDER")
@stoppable(lambda dataset, **_: f"{dataset} is complete, with the old or the new masks; repeat the command")
def replace_masks(dataset, clip, folder):
    """Replace the masks of a clip by pictures.

    Reads FOLDER/KIND/FRAME.png as `export` writes them. Kinds without a folder stay as they are.
    """
    from durian_jax.data.mask_files import replace_masks as replace

    about = replace(dataset, clip, folder)
    click.echo(f"{dataset}: {clip} has other masks of {', '.join(about['replaced'])}")
