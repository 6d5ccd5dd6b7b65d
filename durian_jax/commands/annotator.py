"""`durian annotator`."""

import click

from durian_jax.interruption import stoppable


@click.command()
@click.option("--folder", default=None, metavar="FOLDER",
              help="Folder of the environment.  [default: one per user; .venv-annotator is found, too]")
@stoppable(lambda **_: "the environment may be incomplete; repeat the command to complete it")
def annotator(folder):
    """Install the face annotator.

    `animate` and `prepare` use it for real pictures. It gets its own environment, because MediaPipe needs
    another version of NumPy than JAX.
    """
    from durian_jax.prepare.environment import install_annotator

    click.echo(install_annotator(folder))
