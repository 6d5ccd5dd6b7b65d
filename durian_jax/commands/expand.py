"""`durian expand`."""

import click

from durian_jax.commands.options import seed_option
from durian_jax.errors import InputError
from durian_jax.interruption import stoppable

# Options that belong to generated regions only.
_REGIONS = ("generator", "controlnet", "masker", "frames", "kinds", "batch")


@click.command()
@click.argument("dataset", metavar="DATASET")
@click.option("--pairs", is_flag=True,
              help="Add drivers instead of regions: other people of the dataset who make each clip's motion.")
@click.option("--generator", default="own", show_default=True, metavar="NAME",
              help="own: the checkpoint transfers attributes of other people to the faces. diffusers:FOLDER or "
              "diffusers:OWNER/NAME: a Stable Diffusion XL model draws people from prompts.")
@click.option("--checkpoint", default="tiny", show_default=True, metavar="NAME|FOLDER",
              help="Model of the generator own, or of --pairs.")
@click.option("--controlnet", default=None, metavar="FOLDER|OWNER/NAME",
              help="For diffusers: a ControlNet that follows keypoints as durian draws them.")
@click.option("--masker", default="default", show_default=True, metavar="NAME",
              help="For diffusers: finds the attribute; default, heuristic or segformer:FOLDER.")
@click.option("--frames", type=click.IntRange(1), default=2, show_default=True,
              help="Number of frames per clip, spread over its head poses.")
@click.option("--kinds", default="hair,glasses,beard,hat", show_default=True, metavar="KIND,...",
              help="Attributes to generate, where a clip shows them.")
@click.option("--steps", type=click.IntRange(1), default=None,
              help="Number of sampling steps.  [default: own the checkpoint's, diffusers 30]")
@seed_option
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True,
              help="Number of pictures to generate at once.")
@click.option("--overwrite", is_flag=True, help="Replace the generated regions, or the drivers, of the clips.")
@click.pass_context
@stoppable(lambda dataset, **_: f"{dataset} keeps all finished shards; repeat the command to continue")
def expand(ctx, dataset, pairs, kinds, **options):
    """Add generated mask regions, or drivers, to a dataset.

    Mask expansion: generates hair, glasses, beards or hats of other shapes for each person, at the same
    keypoints, and stores the regions that they cover. Training blanks these regions too, so that the model
    learns to put long hair on short hair.

    With --pairs, a checkpoint lets another person make the motion of each clip. Models that are driven by pixels
    train on these pairs. Repeat the command to continue after it was killed.
    """
    if pairs:
        for name in _REGIONS:
            if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
                raise InputError(f"--{name}: expected no --pairs; it is an option of generated regions")
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.data.recorded_clips import find_dataset

    find_dataset(dataset)  # before JAX is imported
    if pairs:
        from durian_jax.expansion.pairs import add_drivers

        done = add_drivers(dataset, **{name: options[name] for name in ("checkpoint", "seed", "steps", "overwrite")})
        click.echo(f"{dataset}: {done['clips']} clips with drivers, {sum(done['left_out'].values())} left out")
        return
    from durian_jax.expansion.dataset import expand as expand_dataset

    done = expand_dataset(dataset, kinds=[kind.strip() for kind in kinds.split(",")], **options)
    click.echo(f"{dataset}: {done['clips']} clips with generated regions (" + ", ".join(
        f"{kind} {count}" for kind, count in done["regions"].items()) + f"), {sum(done['left_out'].values())} left out")
