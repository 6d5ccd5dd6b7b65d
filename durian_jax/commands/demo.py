"""`durian demo`."""

import click

from durian_jax.commands.options import sampling_argument, sampling_options, signing_options
from durian_jax.interruption import stoppable


@click.command()
@click.option("--out", default="demo", show_default=True, metavar="FOLDER", help="Folder to write.")
@click.option("--cases", type=click.IntRange(1), default=2, show_default=True,
              help="Number of transfers per attribute.")
@click.option("--reenactment", default="svdp-tiny", show_default=True, metavar="NAME|FOLDER|none",
              help="Model that makes four people do what a driver does. `none` skips this part.")
@sampling_options
@signing_options
@stoppable(lambda out, **_: f"{out} is unchanged; repeat the command to start again")
def demo(out, cases, reenactment, checkpoint, steps, guidance, seed, sampler, noise, c2pa_cert, c2pa_key):
    """Show what the shipped models do.

    Transfers, composes and interpolates attributes of procedural people who are not in the training data, and
    reenacts some of them.

    Writes videos, a contact sheet, index.html and report.json, which holds the distance to the exact answers.
    """
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.checkpoints.weights import find_checkpoint
    from durian_jax.files import check_folder
    from durian_jax.video.signing import load_signer

    check_folder(out)  # before JAX is imported
    signer = load_signer(c2pa_cert, c2pa_key)
    for name in (checkpoint, *([] if reenactment == "none" else [reenactment])):
        find_checkpoint(name)
    from durian_jax.evaluation.demo import run_demo

    run_demo(out, checkpoint=checkpoint, cases=cases, reenactment=None if reenactment == "none" else reenactment,
             sampling=sampling_argument(steps, guidance, seed, sampler, noise), signer=signer)
    click.echo(f"open {out}/index.html")
