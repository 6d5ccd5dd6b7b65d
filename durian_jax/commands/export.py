"""`durian export`."""

import click

from durian_jax.commands.options import checkpoint_option
from durian_jax.interruption import stoppable


@click.command()
@checkpoint_option()
@click.option("--out", required=True, metavar="FOLDER", help="Folder to write.")
@click.option("--dtype", type=click.Choice(["fp32", "fp16", "bf16"]), default="fp16", show_default=True,
              help="Precision of the files.")
@click.option("--overwrite", is_flag=True, help="Replace FOLDER.")
@stoppable(lambda out, **_: f"{out} is unchanged; repeat the command to start again")
def export(checkpoint, out, dtype, overwrite):
    """Write a checkpoint for PyTorch.

    Uses the layout of diffusers, whose classes load the U-Nets and the autoencoder where they fit.
    `durian animate --backend torch` and `durian_jax.torch` run the whole export without JAX. Pass the folder
    export/ of a training run to export its averaged weights (EMA).

    \b
    durian export --checkpoint runs/tiny2/export --out exported
    durian animate --backend torch --checkpoint exported -s me.png -d talk.mp4 -o out.mp4
    """
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.checkpoints.weights import find_checkpoint

    find_checkpoint(checkpoint)  # before JAX is imported
    from durian_jax.convert.exporter import export_checkpoint

    export_checkpoint(checkpoint, out, dtype, overwrite)
    click.echo(f"{out}: run it with durian animate --backend torch --checkpoint {out}, or compare it with "
               f"JAX by durian verify {out} --checkpoint {checkpoint}")
