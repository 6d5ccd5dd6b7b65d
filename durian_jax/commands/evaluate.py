"""`durian evaluate`."""

import click

from durian_jax.commands.options import json_option, sampling_argument, sampling_options
from durian_jax.interruption import stoppable


@click.command()
@sampling_options
@click.option("--benchmark", type=click.Choice(["synthetic", "reconstruction", "reenactment"]), default="synthetic",
              show_default=True, help="synthetic: cross-identity transfers whose exact answer is rendered; "
              "reconstruction: recorded people get their own attribute back; reenactment: people make another "
              "person's motion, whose answer is rendered.")
@click.option("--clips", default=None, metavar="FOLDER",
              help="Records of people who are not in the training data, for the benchmark reconstruction.")
@click.option("--cases", type=click.IntRange(1), default=64, show_default=True,
              help="Number of transfers per attribute, or of reenactments.")
@click.option("--frames", type=click.IntRange(1), default=8, show_default=True, help="Number of frames per clip.")
@click.option("--split", type=click.Choice(["benchmark", "validation"]), default="benchmark", show_default=True,
              help="People of the benchmark synthetic; validation: others, to choose settings with.")
@click.option("--robustness", is_flag=True,
              help="Reenactment only: also measure subsets of regions, shifted and hidden regions, and other guidance "
              "scales.")
@json_option("Write the summary and all scores to this file.")
@click.option("--sheet", default=None, metavar="FILE.png", help="Draw a contact sheet into this file.")
@click.option("--sheet-cases", type=click.IntRange(1), default=5, show_default=True,
              help="Number of cases per attribute on the sheet.")
@stoppable(lambda **_: "nothing was written; repeat the command to start again")
def evaluate(checkpoint, steps, guidance, seed, sampler, noise, benchmark, clips, cases, frames, split, robustness,
             json_path, sheet, sheet_cases):
    """Measure a model against known answers.

    Prints means and 95 % confidence intervals. Whole frame: PSNR, L1, SSIM, sharpness (mean gradient), gradient at the
    truth's edges. Region of the attribute: PSNR, SSIM, and PSNR where the old attribute was. Over time, in grey levels:
    change where the truth stands still, the same far from motion, and error of the change (tde). Three baselines stand
    beside the model: the unchanged portrait, the attribute pasted by keypoints, and both warped to every frame.
    """
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.checkpoints.weights import find_checkpoint
    from durian_jax.data.recorded_clips import find_dataset

    find_checkpoint(checkpoint)  # before JAX is imported
    if clips is not None:
        find_dataset(clips)
    from durian_jax.evaluation.report import evaluate_checkpoint

    click.echo(evaluate_checkpoint(
        checkpoint, benchmark=benchmark, clips=clips, cases=cases, frames=frames, split=split,
        sampling=sampling_argument(steps, guidance, seed, sampler, noise),
        json_path=json_path, sheet_path=sheet, sheet_cases=sheet_cases, robustness=robustness))
