"""`durian timeline`."""

import click

from durian_jax.interruption import stoppable


@click.group()
def timeline():
    """Let an attribute change in a video.

    `durian animate --timeline FILE.json` takes photos of hair, glasses, beards or hats, and their weights over time.
    """


@timeline.command()
@click.argument("file", metavar="FILE.json")
@click.option("--every", type=click.FloatRange(0.01, 3600), default=0.5, show_default=True,
              help="Seconds between the lines of the table.")
@stoppable(lambda **_: "nothing was written; repeat the command to start again")
def check(file, every):
    """Check a timeline and print its weights over time.

    Also checks that its photos can be read.

    \b
    {"attribute": "hair",
     "photos": ["short.png", "long.png"],
     "keys": [{"seconds": 0, "weights": [1, 0]}, {"seconds": 2.5, "weights": [0, 1]}]}
    """
    from durian_jax.animation.timeline import describe, read_timeline
    from durian_jax.prepare.annotate import check_photo

    found = read_timeline(file)
    for photo in found.photos:
        check_photo(photo, (found.attribute,))
    click.echo(describe(found, every))
