"""`durian attribute`."""

import click

from durian_jax.interruption import stoppable


@click.group()
def attribute():
    """Keep hair, glasses, beards and hats of photos in files.

    Cut an attribute out of a photo once. The file takes the photo's place in `durian animate`, `durian reenact`,
    tables of jobs and `durian check`. All other pixels of the photo are blank. Glasses show the eyes behind them,
    beards the skin beneath.

    \b
    durian attribute save friend.jpg --kind hair -o curls.attr
    durian attribute show curls.attr -o curls.png
    durian attribute list shelf/
    durian animate -s me.png -d talk.mp4 -a hair=curls.attr -o out.mp4
    """


@attribute.command()
@click.argument("photo", metavar="PHOTO")
@click.option("--kind", required=True, metavar="KIND", help="hair, glasses, beard or hat.")
@click.option("-o", "--out", "--output", required=True, metavar="FILE.attr", help="File to write.")
@click.option("--face", default="largest", show_default=True, metavar="largest|left|right|N",
              help="Which face of the photo, if it shows several; N counts from the left.")
@click.option("--masker", default="default", show_default=True, metavar="NAME",
              help="default, heuristic, segmentation:FOLDER (durian masks train), segformer:FOLDER or tflite:FILE.")
@stoppable(lambda out, **_: f"an earlier {out} is unchanged; repeat the command to start again")
def save(photo, kind, out, face, masker):
    """Cut one attribute out of a photo and write it to a file."""
    from durian_jax.prepare.attribute_shelf import describe_attribute, save_attribute

    click.echo(describe_attribute(out, save_attribute(photo, kind, out, masker=masker, face=face)))


@attribute.command()
@click.argument("file", metavar="FILE")
@click.option("-o", "--out", "--output", default=None, metavar="FILE.png",
              help="Picture to write: the attribute on a checkerboard, and with keypoints and the mask's outline.")
@stoppable(lambda **_: "nothing was written; repeat the command to start again")
def show(file, out):
    """Print where an attribute file comes from, and draw it."""
    from durian_jax.files import writable_file
    from durian_jax.prepare.attribute_file import read_attribute
    from durian_jax.prepare.attribute_shelf import describe_attribute, draw_attribute
    from durian_jax.video import IMAGE_SUFFIXES, write_image

    if out is not None:
        writable_file(out, IMAGE_SUFFIXES)
    found = read_attribute(file)
    if out is not None:
        write_image(out, draw_attribute(found))
    click.echo(describe_attribute(file, found))


@attribute.command("list")
@click.argument("folder", metavar="FOLDER")
@click.pass_context
@stoppable(lambda **_: "nothing was written; repeat the command to start again")
def list_folder(ctx, folder):
    """Print one line per attribute file of a folder.

    The exit status is 1 if a file cannot be read.
    """
    from durian_jax.errors import InputError
    from durian_jax.prepare.attribute_shelf import list_attributes, summarize_attribute

    failed = False
    for path, found in list_attributes(folder):
        if isinstance(found, InputError):
            click.echo(f"durian: error: {found}", err=True)
            failed = True
        else:
            click.echo(summarize_attribute(path, found))
    ctx.exit(1 if failed else 0)
