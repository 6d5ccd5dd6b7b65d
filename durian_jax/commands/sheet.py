"""`durian sheet`."""

import os

import click

from durian_jax.commands.options import seed_option
from durian_jax.errors import InputError
from durian_jax.interruption import stoppable


@click.command()
@click.argument("dataset", metavar="DATASET")
@click.option("--out", default=None, metavar="FILE",
              help="Page to write (.html); with --batches, the picture.  [default: DATASET/sheet.html]")
@click.option("--limit", type=click.IntRange(1), default=None, metavar="N",
              help="Maximum number of clips, evenly spread.  [default: all]")
@click.option("--batches", type=click.IntRange(1), default=None, metavar="N",
              help="Draw N training samples instead; the options below belong to it.")
@click.option("--size", type=click.IntRange(16), default=128, show_default=True, help="Picture size in pixels.")
@click.option("--frames", type=click.IntRange(1), default=3, show_default=True,
              help="Number of frames to reconstruct.")
@click.option("--attributes", type=click.IntRange(1), default=1, show_default=True,
              help="Number of attribute references.")
@click.option("--config", default=None, metavar="PRESET,stage=STAGE",
              help="Draw the samples of a training config, see durian train, instead of the three options above.")
@seed_option
@click.pass_context
@stoppable(lambda **_: "no page was written, an earlier one is complete; repeat the command to start again")
def sheet(ctx, dataset, out, limit, batches, size, frames, attributes, config, seed):
    """Show what is in a dataset.

    Writes one sortable page with the frames, masks, keypoints and qualities of every clip, and with the rejected
    videos and the reasons. Its pictures lie in the folder FILE_pictures. With --batches, draws the inputs of a
    model as one picture.

    \b
    durian sheet data/clips
    durian sheet data/clips --batches 12 --out batches.png
    durian sheet data/clips --batches 12 --config tiny,stage=2 --out batches.png
    """
    # The products are small: on a busy machine BLAS's threads make them ten times slower. NumPy reads this at import.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from durian_jax.data import RecordedClips
    from durian_jax.data.dataset_sheet import dataset_sheet
    from durian_jax.data.recorded_clips import find_dataset
    from durian_jax.families import DEFAULT, get_family
    from durian_jax.files import writable_file
    from durian_jax.video import IMAGE_SUFFIXES, write_image

    own = ("size", "frames", "attributes")
    given = [name for name in (*own, "limit", "config", "seed")
             if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    if config is not None and {*own} & {*given}:
        raise InputError(f"--{given[0]}: expected no --config, which says how samples are made; leave one of them out")
    for name in given:
        if (name == "limit") == bool(batches):
            raise InputError(f"--{name}: expected {'no' if batches else 'also'} --batches; it is an option of the "
                             f"{'page' if batches else 'picture of samples'}")
    if not batches:
        click.echo(f"open {dataset_sheet(dataset, out, limit)}")
        return
    if out is None:
        raise InputError("--batches: expected --out FILE.png, found none; name the picture to draw")
    path = writable_file(out, IMAGE_SUFFIXES)
    find_dataset(dataset)  # before Grain and JAX are imported
    from durian_jax.data.batch_sheet import batch_sheet

    if config is None:
        samples = get_family(DEFAULT).load("samples")(image_size=size, frames=frames, attributes=attributes)
    else:
        from durian_jax.configs import load_config
        from durian_jax.training.config import RunConfig

        samples = RunConfig.read(load_config(config)).data
    write_image(path, batch_sheet(RecordedClips(dataset), samples, seed, batches))
    click.echo(f"{out}: {batches} samples")
