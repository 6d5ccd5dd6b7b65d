"""`durian annotator`."""

import click

from durian_jax.interruption import stoppable


@click.command()
@click.option("--folder", default=None, metavar="FOLDER",
              help="Where to put the files.  [default: one folder per user; .annotator is found, too]")
@click.option("--wheel", default=None, metavar="FILE", help="The wheel, if this machine cannot download it.")
@stoppable(lambda **_: "nothing was installed; repeat the command to start again")
def annotator(folder, wheel):
    """Download the models of the face annotator.

    `animate`, `reenact`, `check` and `prepare` use them for real pictures. pip downloads MediaPipe's wheel (36 MB). It
    is not installed; four of its models (4 MB) are kept.
    """
    from durian_jax.annotator.files import install_models

    how = "set DURIAN_ANNOTATOR to this folder, so that" if folder else "from now on"
    click.echo(f"{install_models(folder, wheel)}: the models are here; {how} every command finds them")
