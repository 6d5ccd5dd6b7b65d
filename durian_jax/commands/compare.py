"""`durian compare`."""

import click

from durian_jax.interruption import stoppable


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="A.json B.json...")
@click.option("-o", "--out", required=True, metavar="FILE.html", help="Page to write.")
@click.option("--pictures", type=click.IntRange(0), default=2, show_default=True,
              help="Number of the worst and of the best cases to show per benchmark or suite, if the evaluations have "
              "--examples.")
@stoppable(lambda out, **_: f"{out} is unchanged; repeat the command to start again")
def compare(files, out, pictures):
    """Compare evaluations of the same cases on one page.

    Takes files of durian evaluate --json. The page has all means with intervals, paired differences from the first
    file, plots, and the worst and best cases. It is one file and needs no network.

    \b
    durian evaluate --suite all --checkpoint tiny --json tiny.json --examples tiny
    durian evaluate --suite all --checkpoint runs/mine/export --json mine.json --examples mine
    durian compare tiny.json mine.json --out compare.html
    """
    from durian_jax.evaluation.comparison import compare_evaluations

    click.echo(compare_evaluations(files, out, pictures=pictures))
    click.echo(f"open {out}")
