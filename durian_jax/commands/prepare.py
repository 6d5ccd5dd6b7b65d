"""`durian prepare`."""

import click

from durian_jax.interruption import stoppable


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--out", required=True, metavar="FOLDER", help="Dataset to write.")
@click.option("--size", type=click.IntRange(32, 2048), default=512, show_default=True,
              help="Side of the model's pictures in pixels.")
@click.option("--margin", type=click.FloatRange(0, 1), default=0.25, show_default=True,
              help="Extra border to store for augmentation, as a fraction of the side: 512 becomes 640.")
@click.option("--fps", type=click.FloatRange(0, min_open=True), default=25.0, show_default=True,
              help="Target frame rate; frames of faster videos are skipped.")
@click.option("--segment-frames", type=click.IntRange(1), default=48, show_default=True,
              help="Maximum number of frames per clip.")
@click.option("--layout", type=click.Choice(["auto", "files", "vfhq", "celebv-text", "nersemble"]), default="auto",
              show_default=True, help="Folder layout of a downloaded data set; it tells the identities.")
@click.option("--faces", type=click.Choice(["all", "largest", "left", "right"]), default="all", show_default=True,
              help="Which faces get a clip if several are visible.")
@click.option("--masker", default="default", show_default=True, metavar="NAME",
              help="default, heuristic, segmentation:FOLDER (durian masks train), segformer:FOLDER or tflite:FILE.")
@click.option("--masks", default=None, metavar="FOLDER",
              help="Your own masks: FOLDER/VIDEO/KIND/FRAME.png or FOLDER/VIDEO/KIND.mp4.")
@click.option("--corrections", multiple=True, metavar="DATASET",
              help="Keep masks that were corrected in this dataset too, not only in FOLDER; repeat for more.")
@click.option("--encoding", type=click.Choice(["jpeg", "webp", "png", "webp-lossless"]), default="jpeg",
              show_default=True, help="Encoding of the frames.")
@click.option("--max-rejected", type=click.IntRange(0), default=None, metavar="N",
              help="Stop when more than N videos are rejected.  [default: never]")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True,
              help="Number of processes on this machine, each with its own annotator.")
@click.option("--beam", "beam_options", multiple=True, metavar="OPTION",
              help="Option for Apache Beam, for example --beam=--runner=FlinkRunner; repeat for more.")
@click.option("--overwrite", is_flag=True, help="Replace the dataset in FOLDER.")
@stoppable(lambda out, **_: f"{out} keeps all finished videos; repeat the command to continue")
def prepare(inputs, out, size, margin, layout, max_rejected, workers, beam_options, overwrite, **settings):
    """Turn videos into a training dataset.

    INPUT is a video, a folder, a glob pattern, a manifest (.csv or .jsonl with path, start, end, identity,
    labels), or the folder of a VFHQ, CelebV-Text or NeRSemble download. Finds the faces, follows each with a
    stable crop, and stores keypoints, head poses and masks. Repeat the command to continue after it was killed.

    FOLDER also gets report.json, and rejected.jsonl with every rejected video and the reason.
    """
    from durian_jax.annotator.files import find_models
    from durian_jax.files import check_folder
    from durian_jax.prepare.inputs import files_and_folders

    check_folder(out)  # before Apache Beam is imported, which takes seconds
    for given in inputs:
        files_and_folders(given)
    find_models()
    from durian_jax.prepare.clips import Settings
    from durian_jax.prepare.pipeline import prepare as prepare_clips

    report = prepare_clips(inputs, out, Settings(size=size, margin=round(size * margin / 2), **settings), layout=layout,
                           overwrite=overwrite, max_rejected=max_rejected, workers=workers,
                           beam_options=beam_options)
    click.echo(f"{out}: {report['accepted']} accepted, {report['rejected']} rejected, {report['clips']} clips of "
               f"{report['frames']} frames")
