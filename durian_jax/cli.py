"""The command line: one verb a capability, each a thin shell around a function of the library.

Whatever imports jax is imported inside the verbs, so that help is quick and XLA's flags are set in time.
"""

import click

from durian_jax import __version__
from durian_jax.errors import InputError


class _Verbs(click.Group):
    """Verbs in the order they are written below; a user's mistake is one line and exit status 2."""

    def list_commands(self, ctx):
        return list(self.commands)

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except InputError as error:
            click.echo(f"durian: error: {error}", err=True)
            ctx.exit(2)


def _sampling(command):
    """The options of every verb that samples from a checkpoint; the defaults of `inference.generate.Sampling`."""
    for option in reversed((
        click.option("--checkpoint", default="tiny", show_default=True, metavar="NAME|FOLDER",
                     help="The model: a shipped one by name, or a folder."),
        click.option("--steps", type=click.IntRange(1), default=1, show_default=True,
                     help="Of the sampler; more are crisper and less faithful with the shipped model."),
        click.option("--guidance", type=click.FloatRange(0), default=1.0, show_default=True,
                     help="Classifier-free guidance; 1 is none."),
        click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True,
                     help="Of the noise; the same seed gives the same files."),
        click.option("--sampler", type=click.Choice(["ddim", "dpm++"]), default="dpm++", show_default=True,
                     help="DDIM or DPM-Solver++(2M)."),
    )):
        command = option(command)
    return command


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="durian")
def main():
    """Animate a portrait while it takes over hair, glasses, beard or hat from other people.

    Start with `durian demo`, which needs neither network nor accelerator.
    """


@main.command()
@click.option("--out", default="demo", show_default=True, metavar="FOLDER", help="Where the pictures go.")
@click.option("--cases", type=click.IntRange(1), default=2, show_default=True,
              help="Transfers of each attribute.")
@_sampling
def demo(out, cases, checkpoint, steps, guidance, seed, sampler):
    """Show what the shipped model does.

    Transfers, composes and interpolates attributes of held-out procedural people.

    Writes videos, a contact sheet, index.html and report.json with the distance to the exact truth.
    """
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.evaluation.demo import run_demo
    from durian_jax.inference.generate import Sampling

    run_demo(out, checkpoint=checkpoint, cases=cases, sampling=Sampling(steps, guidance, seed, sampler))
    click.echo(f"open {out}/index.html")


@main.command()
@click.option("-s", "--source", required=True, metavar="PHOTO", help="The portrait to animate.")
@click.option("-d", "--driving", required=True, metavar="VIDEO", help="Whose motion it makes.")
@click.option("-a", "--attribute", "attributes", multiple=True, metavar="KIND=PHOTO",
              help="hair, glasses, beard or hat from another photo; repeat for more.")
@click.option("-o", "--out", "--output", required=True, metavar="FILE.mp4", help="The video to write.")
@click.option("--frames", type=click.IntRange(1), default=None, help="At most so many.  [default: all]")
@click.option("--size", type=click.IntRange(1), default=None,
              help="Picture size in pixels.  [default: the checkpoint's]")
@_sampling
def animate(source, driving, attributes, out, frames, size, checkpoint, steps, guidance, seed, sampler):
    """Animate a photo by a video.

    Attributes may come from other photos.

    Writes FILE.mp4, FILE_concat.mp4 (driving | source | attributes | result, with the driving video's
    sound) and FILE.json (settings, timings, versions).

    \b
    durian animate -s me.png -d talk.mp4 -a hair=friend.png -a glasses=aunt.png -o out.mp4
    """
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.animate import animate_files
    from durian_jax.inference.generate import Sampling

    report = animate_files(source, driving, attributes, out, checkpoint=checkpoint, frames=frames, size=size,
                           sampling=Sampling(steps, guidance, seed, sampler))
    click.echo(f"{out}: {report['frames']} frames in {report['seconds']['total']:.1f} s")


@main.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def train(ctx, flags):
    """Train a model, or go on with a run.

    \b
    durian train --config=configs/durian.py:tiny,stage=1 --workdir=runs/tiny
    durian train --config=configs/durian.py:tiny,stage=2 --workdir=runs/tiny2 --config.total_steps=8

    Any field of the config is a flag: --config.total_steps, --config.batch_size,
    --config.checkpoint_every, --config.log_every, --config.learning_rate, --config.seed, ... The same
    command again continues from the last checkpoint in the workdir; a larger total_steps goes on.
    The workdir gets metrics.jsonl, TensorBoard events, sample sheets and checkpoints.
    """
    if not flags or "--help" in flags or "-h" in flags:
        click.echo(ctx.get_help())
        return
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.training.cli import run

    run(list(flags))


@main.command()
@_sampling
@click.option("--benchmark", type=click.Choice(["synthetic", "reconstruction"]), default="synthetic",
              show_default=True, help="synthetic: cross-identity transfers whose exact answer is rendered; "
              "reconstruction: recorded people get their own attribute back.")
@click.option("--clips", default=None, metavar="FOLDER",
              help="For reconstruction: records of people held out of training.")
@click.option("--cases", type=click.IntRange(1), default=64, show_default=True,
              help="Transfers of each attribute.")
@click.option("--frames", type=click.IntRange(1), default=1, show_default=True, help="Length of each clip.")
@click.option("--json", "json_path", default=None, metavar="FILE", help="Write the summary there.")
@click.option("--sheet", default=None, metavar="FILE.png", help="Draw a contact sheet there.")
@click.option("--sheet-cases", type=click.IntRange(1), default=5, show_default=True,
              help="Cases of each attribute on the sheet.")
def evaluate(checkpoint, steps, guidance, seed, sampler, benchmark, clips, cases, frames, json_path, sheet,
             sheet_cases):
    """Measure a model on known answers.

    Means and 95 % confidence intervals of L1, PSNR, SSIM (whole frame and attribute region) and sharpness,
    beside two baselines: the unchanged portrait, and the attribute's pixels pasted by its keypoints.
    """
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.evaluation.report import evaluate_checkpoint
    from durian_jax.inference.generate import Sampling

    click.echo(evaluate_checkpoint(
        checkpoint, benchmark=benchmark, clips=clips, cases=cases, frames=frames,
        sampling=Sampling(steps, guidance, seed, sampler),
        json_path=json_path, sheet_path=sheet, sheet_cases=sheet_cases))


@main.command()
@click.argument("inputs", nargs=-1, required=True, metavar="CLIP_OR_FOLDER...")
@click.option("--out", required=True, metavar="FOLDER", help="Where the records go.")
@click.option("--size", type=click.IntRange(32, 1024), default=128, show_default=True,
              help="Picture size in pixels.")
@click.option("--overwrite", is_flag=True, help="Replace the records that FOLDER holds.")
def prepare(inputs, out, size, overwrite):
    """Turn videos into training records.

    Finds the face, follows it with a stable crop, and draws keypoints and attribute masks. FOLDER also
    gets report.json and rejected.jsonl, which names every clip left out and why.
    """
    from durian_jax.data.records import refuse_to_replace
    from durian_jax.prepare.pipeline import prepare as prepare_clips

    if not overwrite:
        refuse_to_replace(out)
    report = prepare_clips(inputs, out, size=size)
    click.echo(f"{out}: {report['accepted']} accepted, {report['rejected']} rejected")


@main.command()
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
    from durian_jax.data.records import refuse_to_replace
    from durian_jax.data.synthesize import synthesize as draw
    from durian_jax.files import writable_folder

    if not overwrite:
        refuse_to_replace(out)
    draw(writable_folder(out), split, clips, frames, size, first=first, fps=fps, workers=workers)
    click.echo(f"{out}: {clips} clips of {frames} frames at {size} px")


@main.command()
@click.option("--folder", default=None, metavar="FOLDER",
              help="Of the environment.  [default: one for the whole user; .venv-annotator is found too]")
def annotator(folder):
    """Install the face annotator.

    `animate` and `prepare` use it for real pictures. It gets an environment of its own, because
    MediaPipe needs another numpy than JAX does.
    """
    from durian_jax.prepare.environment import install_annotator

    click.echo(install_annotator(folder))


if __name__ == "__main__":
    main()
