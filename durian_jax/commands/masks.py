"""`durian masks`."""

import click

from durian_jax.interruption import stoppable


@click.group()
def masks():
    """Correct masks by hand, and train a network on corrected masks.

    Export the masks, paint on them, and put them back. Only this clip is rewritten.

    \b
    durian masks export data/clips talk#0 talk
    durian masks replace data/clips talk#0 talk
    durian masks train data/clips --out network
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


@masks.command("train")
@click.argument("datasets", nargs=-1, required=True, metavar="DATASET...")
@click.option("--out", required=True, metavar="FOLDER", help="Folder to write; --masker segmentation:FOLDER uses it.")
@click.option("--steps", type=click.IntRange(1), default=2400, show_default=True,
              help="Optimiser steps of the head's network.")
@click.option("--eye-steps", type=click.IntRange(1), default=1200, show_default=True,
              help="Optimiser steps of the eyes' network.")
@click.option("--real", type=click.FloatRange(0, 1, min_open=True), default=0.75, show_default=True,
              help="Share of examples from DATASET; the others are procedural.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Seed of the weights and examples.")
@stoppable(lambda out, **_: f"{out} is unchanged; repeat the command to start again")
def train_network(datasets, out, seed, **settings):
    """Train a network that finds hair, hats and glasses, on datasets with corrected masks.

    DATASET comes from `durian prepare`. Training uses up to four frames of each clip and procedural people, and changes
    their colours, light and position at random. The default steps take about 11 minutes on two cores.
    """
    from durian_jax.data.recorded_clips import find_dataset
    from durian_jax.segmentation.network import check_output

    for dataset in datasets:
        find_dataset(dataset)
    check_output(out)
    from durian_jax.segmentation.datasets import examples_of_datasets
    from durian_jax.segmentation.training import TrainingSettings, train

    losses = train(*examples_of_datasets(datasets, seed), out, TrainingSettings(seed=seed, **settings))
    last = losses[-100:]
    click.echo(f"{out}: {len(losses)} steps, loss {sum(last) / len(last):.3f}; use it with --masker segmentation:{out}")
