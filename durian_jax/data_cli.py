"""The verbs that make, change and show datasets; `cli` has the others."""

import os

import click

from durian_jax.errors import InputError


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--out", required=True, metavar="FOLDER", help="Where the dataset goes.")
@click.option("--size", type=click.IntRange(32, 2048), default=512, show_default=True,
              help="Side of the pictures that a model is shown, in pixels.")
@click.option("--margin", type=click.FloatRange(0, 1), default=0.25, show_default=True,
              help="Stored around them for augmentation, as a share of the side: 512 becomes 640.")
@click.option("--fps", type=click.FloatRange(0, min_open=True), default=25.0, show_default=True,
              help="Faster videos are thinned out to about this rate.")
@click.option("--segment-frames", type=click.IntRange(1), default=48, show_default=True, help="Longest clip.")
@click.option("--layout", type=click.Choice(["auto", "files", "vfhq", "celebv-text", "nersemble"]), default="auto",
              show_default=True, help="How a downloaded data set lies there; tells who is who.")
@click.option("--faces", type=click.Choice(["all", "largest", "left", "right"]), default="all", show_default=True,
              help="Of several seen together: a clip of each, or of one.")
@click.option("--masker", default="heuristic", show_default=True, metavar="NAME",
              help="heuristic, or segformer:FOLDER for a face-parsing model.")
@click.option("--masks", default=None, metavar="FOLDER", help="Your own: FOLDER/VIDEO/KIND/FRAME.png or KIND.mp4.")
@click.option("--encoding", type=click.Choice(["jpeg", "webp", "png", "webp-lossless"]), default="jpeg",
              show_default=True, help="Of the frames.")
@click.option("--max-rejected", type=click.IntRange(0), default=None, metavar="N",
              help="Stop when more videos than this cannot be used.  [default: never]")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True,
              help="Processes on this machine, each with an annotator.")
@click.option("--beam", "beam_options", multiple=True, metavar="OPTION",
              help="For Apache Beam, such as --beam=--runner=FlinkRunner; repeat for more.")
@click.option("--overwrite", is_flag=True, help="Replace the dataset that FOLDER holds.")
def prepare(inputs, out, size, margin, layout, max_rejected, workers, beam_options, overwrite, **settings):
    """Turn videos into a dataset for training.

    INPUT is a video, a folder, a glob pattern, a manifest (.csv or .jsonl: path, start, end, identity,
    labels), or the folder of a VFHQ, CelebV-Text or NeRSemble download. Finds the faces, follows each with
    a stable crop, and draws keypoints, head poses and masks. The same command again continues a killed run.

    FOLDER also gets report.json and rejected.jsonl, which names every video left out and why.
    """
    from durian_jax.prepare.clips import Settings
    from durian_jax.prepare.pipeline import prepare as prepare_clips

    report = prepare_clips(inputs, out, Settings(size=size, margin=round(size * margin / 2), **settings), layout=layout,
                           overwrite=overwrite, max_rejected=max_rejected, workers=workers,
                           beam_options=beam_options)
    click.echo(f"{out}: {report['accepted']} accepted, {report['rejected']} rejected, {report['clips']} clips of "
               f"{report['frames']} frames")


@click.command()
@click.option("--out", required=True, metavar="FOLDER", help="Where the records go.")
@click.option("--clips", type=click.IntRange(1), default=100, show_default=True, help="How many people.")
@click.option("--frames", type=click.IntRange(1), default=16, show_default=True, help="Frames a clip.")
@click.option("--size", type=click.IntRange(16, 1024), default=128, show_default=True,
              help="Picture size in pixels.")
@click.option("--split", type=click.Choice(["train", "validation", "benchmark"]), default="train",
              show_default=True, help="Disjoint sets of people.")
@click.option("--fps", type=click.FloatRange(0, min_open=True), default=25.0, show_default=True,
              help="Frames per second; fewer make the poses of a clip differ more.")
@click.option("--first", type=click.IntRange(0), default=0, show_default=True, help="Number of the first person.")
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="Processes that draw.")
@click.option("--overwrite", is_flag=True, help="Replace the records that FOLDER holds.")
def synthesize(out, clips, frames, size, split, fps, first, workers, overwrite):
    """Write records of procedural people.

    In the same format as `prepare` writes those of real people.
    """
    from durian_jax.data.recorded_clips import refuse_to_replace
    from durian_jax.data.synthesize import synthesize as draw
    from durian_jax.files import writable_folder

    if not overwrite:
        refuse_to_replace(out)
    draw(writable_folder(out), split, clips, frames, size, first=first, fps=fps, workers=workers)
    click.echo(f"{out}: {clips} clips of {frames} frames at {size} px")


@click.command()
@click.argument("dataset", metavar="DATASET")
@click.option("--generator", default="own", show_default=True, metavar="NAME",
              help="own: the checkpoint puts other people's attributes on the faces. diffusers:FOLDER or "
              "diffusers:OWNER/NAME: a Stable Diffusion XL draws people from prompts.")
@click.option("--checkpoint", default="tiny", show_default=True, metavar="NAME|FOLDER", help="For own.")
@click.option("--controlnet", default=None, metavar="FOLDER|OWNER/NAME",
              help="For diffusers; must follow keypoints as durian draws them.")
@click.option("--masker", default="heuristic", show_default=True, metavar="NAME",
              help="For diffusers, finds the attribute: heuristic, or segformer:FOLDER.")
@click.option("--frames", type=click.IntRange(1), default=2, show_default=True,
              help="Of each clip, spread over its head poses.")
@click.option("--kinds", default="hair,glasses,beard,hat", show_default=True, metavar="KIND,...",
              help="Generated where a clip shows them.")
@click.option("--steps", type=click.IntRange(1), default=None, help="Of the sampler.  [default: own 1, diffusers 30]")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True,
              help="Of donors, prompts and noise.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Pictures generated at once.")
@click.option("--overwrite", is_flag=True, help="Replace the regions that clips have.")
def expand(dataset, kinds, **options):
    """Add generated regions to a dataset.

    Mask expansion: where hair, glasses, a beard or a hat of another shape would lie on each person, at the same
    keypoints. Training blanks these regions too, and so learns to put long hair on short. The same command
    again continues a killed run.
    """
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.expansion.dataset import expand as expand_dataset

    done = expand_dataset(dataset, kinds=[kind.strip() for kind in kinds.split(",")], **options)
    click.echo(f"{dataset}: {done['clips']} clips with generated regions (" + ", ".join(
        f"{kind} {count}" for kind, count in done["regions"].items()) + f"), {sum(done['left_out'].values())} left out")


@click.command()
@click.argument("dataset", metavar="DATASET")
@click.option("--out", default=None, metavar="FILE",
              help="The page, ending in .html; with --batches, the picture.  [default: DATASET/sheet.html]")
@click.option("--limit", type=click.IntRange(1), default=None, metavar="N",
              help="Show so many clips, evenly spread.  [default: all]")
@click.option("--batches", type=click.IntRange(1), default=None, metavar="N",
              help="Draw so many training samples instead; the options below are theirs.")
@click.option("--size", type=click.IntRange(16), default=128, show_default=True, help="Picture size in pixels.")
@click.option("--frames", type=click.IntRange(1), default=3, show_default=True, help="Frames to reconstruct.")
@click.option("--attributes", type=click.IntRange(1), default=1, show_default=True, help="Attribute slots.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of what is drawn.")
@click.pass_context
def sheet(ctx, dataset, out, limit, batches, size, frames, attributes, seed):
    """Show what is in a dataset.

    Writes one page with every clip's frames, masks, keypoints and qualities, sortable, and what was
    rejected and why; its pictures lie in FILE_pictures beside it. With --batches, one picture of what a
    model is given.

    \b
    durian sheet data/clips
    durian sheet data/clips --batches 12 --out batches.png
    """
    # Many small products: on a busy machine, BLAS's own threads make them ten times slower. Read by numpy at import.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from durian_jax.data import DataConfig, RecordedClips
    from durian_jax.data.batch_sheet import batch_sheet
    from durian_jax.data.dataset_sheet import dataset_sheet
    from durian_jax.files import writable_file
    from durian_jax.video import IMAGE_SUFFIXES, write_image

    others = ("limit",) if batches else ("size", "frames", "attributes", "seed")
    for name in others:
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise InputError(f"--{name}: expected {'no' if batches else 'also'} --batches; it is an option of the "
                             f"{'page' if batches else 'picture of samples'}")
    if not batches:
        click.echo(f"open {dataset_sheet(dataset, out, limit)}")
        return
    if out is None:
        raise InputError("--batches: expected --out FILE.png, found none; name the picture to draw")
    path = writable_file(out, IMAGE_SUFFIXES)
    config = DataConfig(image_size=size, frames=frames, attributes=attributes)
    write_image(path, batch_sheet(RecordedClips(dataset), config, seed, batches))
    click.echo(f"{out}: {batches} samples")


@click.group()
def masks():
    """Correct a clip's masks by hand.

    Export them, paint on them, put them back. Only that clip is written again.

    \b
    durian masks export data/clips talk#0 talk
    durian masks replace data/clips talk#0 talk
    """


@masks.command("export")
@click.argument("dataset", metavar="DATASET")
@click.argument("clip", metavar="CLIP")
@click.argument("folder", metavar="FOLDER")
def export_masks(dataset, clip, folder):
    """Write a clip's masks as pictures.

    FOLDER/KIND/FRAME.png for hair, glasses, beard and hat, white where it is seen, and, to paint by,
    FOLDER/frames/FRAME.png. `durian sheet` shows the names of clips.
    """
    from durian_jax.data.mask_files import export_masks as export

    click.echo(f"{folder}: masks of {export(dataset, clip, folder)} frames")


@masks.command("replace")
@click.argument("dataset", metavar="DATASET")
@click.argument("clip", metavar="CLIP")
@click.argument("folder", metavar="FOLDER")
def replace_masks(dataset, clip, folder):
    """Take a clip's masks from pictures.

    Reads FOLDER/KIND/FRAME.png as `export` writes them. Kinds without a folder stay as they are.
    """
    from durian_jax.data.mask_files import replace_masks as replace

    about = replace(dataset, clip, folder)
    click.echo(f"{dataset}: {clip} has other masks of {', '.join(about['replaced'])}")


@click.command()
@click.option("--folder", default=None, metavar="FOLDER",
              help="Of the environment.  [default: one for the whole user; .venv-annotator is found too]")
def annotator(folder):
    """Install the face annotator.

    `animate` and `prepare` use it for real pictures. It gets an environment of its own, because
    MediaPipe needs another numpy than JAX does.
    """
    from durian_jax.prepare.environment import install_annotator

    click.echo(install_annotator(folder))
