"""`durian demo`."""

import click

from durian_jax.commands.options import sampling_argument, sampling_options


@click.command()
@click.option("--out", default="demo", show_default=True, metavar="FOLDER", help="Folder to write.")
@click.option("--cases", type=click.IntRange(1), default=2, show_default=True,
              help="Number of transfers per attribute.")
@click.option("--reenactment", default=None, metavar="NAME|FOLDER",
              help="Model that reenacts four people, too.  [default: none]")
@sampling_options
def demo(out, cases, reenactment, checkpoint, steps, guidance, seed, sampler):
    """Show what the shipped model does.

    Transfers, composes and interpolates attributes of procedural people who are not in the training data.

    Writes videos, a contact sheet, index.html and report.json, which holds the distance to the exact answers.
    """
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.evaluation.demo import run_demo

    run_demo(out, checkpoint=checkpoint, cases=cases, reenactment=reenactment,
             sampling=sampling_argument(steps, guidance, seed, sampler))
    click.echo(f"open {out}/index.html")
