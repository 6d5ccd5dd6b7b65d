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
@click.option("--suite", default=None, metavar="NAME[,NAME...]|all",
              help="Run suites of hard cases instead of a benchmark: extent, pose, light, masks, pairs, triples, long, "
              "removal.")
@click.option("--cases", type=click.IntRange(1), default=None,
              help="Number of transfers per attribute or per row of a suite, or of reenactments.  [default: 64; 16 per "
              "row of a suite]")
@click.option("--frames", type=click.IntRange(1), default=8, show_default=True,
              help="Number of frames per clip; the suite long takes 8 times as many.")
@click.option("--split", type=click.Choice(["benchmark", "validation"]), default="benchmark", show_default=True,
              help="People of the benchmark synthetic and of suites; validation: others, to choose settings with.")
@click.option("--robustness", is_flag=True,
              help="Reenactment only: also measure subsets of regions, shifted and hidden regions, and other guidance "
              "scales.")
@json_option("Write the summary and all scores to this file.")
@click.option("--sheet", default=None, metavar="FILE.png", help="Draw a contact sheet into this file.")
@click.option("--sheet-cases", type=click.IntRange(1), default=5, show_default=True,
              help="Number of cases per attribute on the sheet.")
@click.option("--examples", default=None, metavar="FOLDER",
              help="Store pictures of the worst and the best cases there, for durian compare; needs --json.")
@click.option("--example-cases", type=click.IntRange(1), default=3, show_default=True,
              help="Number of the worst, and of the best, cases per row in --examples.")
@stoppable(lambda **_: "nothing was written; repeat the command to start again")
def evaluate(checkpoint, steps, guidance, seed, sampler, noise, benchmark, clips, suite, cases, frames, split,
             robustness, json_path, sheet, sheet_cases, examples, example_cases):
    """Measure a model against known answers.

    Prints means and 95 % confidence intervals. Whole frame: PSNR, L1, SSIM, sharpness (mean gradient), gradient at the
    truth's edges. Region of the attribute: PSNR, SSIM, and PSNR where the old attribute was. Over time, in grey levels:
    change where the truth stands still, the same far from motion, and error of the change (tde). Three baselines stand
    beside the model: the unchanged portrait, the attribute pasted by keypoints, and both warped to every frame.
    docs/evaluation.md explains every column and every suite. Compare evaluations with durian compare.

    \b
    durian evaluate --checkpoint runs/mine/export --json mine.json
    durian evaluate --suite pose,pairs --split validation --json mine.json --examples mine
    """
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.checkpoints.weights import find_checkpoint
    from durian_jax.data.recorded_clips import find_dataset
    from durian_jax.evaluation.columns import suite_names

    suites = () if suite is None else suite_names(suite)
    find_checkpoint(checkpoint)  # before JAX is imported
    if clips is not None:
        find_dataset(clips)
    from durian_jax.evaluation.report import evaluate_checkpoint

    click.echo(evaluate_checkpoint(
        checkpoint, benchmark=benchmark, clips=clips, suites=suites, cases=cases, frames=frames, split=split,
        sampling=sampling_argument(steps, guidance, seed, sampler, noise),
        json_path=json_path, sheet_path=sheet, sheet_cases=sheet_cases, examples=examples,
        example_cases=example_cases, robustness=robustness))
