"""`durian verify`."""

import click

from durian_jax.commands.options import json_option
from durian_jax.interruption import stoppable


@click.command()
@click.argument("folder", metavar="EXPORT")
@click.option("--checkpoint", default="tiny", show_default=True, metavar="NAME|FOLDER",
              help="Checkpoint that was exported.")
@click.option("--frames", type=click.IntRange(1), default=4, show_default=True, help="Number of frames of the clip.")
@click.option("--size", type=click.IntRange(1), default=None, help="Picture size in pixels.  [default: the model's]")
@click.option("--steps", type=click.IntRange(1), default=4, show_default=True,
              help="Number of sampling steps of the finished clip.")
@json_option("Write the report to this file.")
@click.pass_context
@stoppable(lambda folder, **_: f"{folder} is unchanged; repeat the command to start again")
def verify(ctx, folder, checkpoint, frames, size, steps, json_path):
    """Prove that an export is the same model.

    Runs JAX and PyTorch in float32 on the same clip and noise, with the weights of the export (rounded to its
    dtype). Compares every block of a guided denoising step, and the finished video. Writes the errors into the
    export (parity.json, and the metadata of the denoiser's file). The exit status is 1 if one step differs by
    more than 1e-4, or if the PSNR of the videos is below 40 dB.
    """
    from durian_jax import runtime

    runtime.configure()
    import durian_jax.pytorch  # noqa: F401 - first, because its error names the missing package
    from durian_jax.checkpoints.weights import read_description
    from durian_jax.convert.bundle import find_bundle
    from durian_jax.files import writable_file, write_json

    if json_path:
        writable_file(json_path, (".json",))
    find_bundle(folder)
    read_description(checkpoint)
    from durian_jax.evaluation.parity import describe, verify_export  # imports JAX and PyTorch

    report = verify_export(folder, checkpoint, frames=frames, size=size, steps=steps)
    click.echo(describe(report))
    if json_path:
        write_json(json_path, report)
    ctx.exit(0 if report["passed"] else 1)
