"""`durian train`."""

import re
import signal

import click

from durian_jax.commands.config_flags import config_command, given_fields, read_config
from durian_jax.errors import InputError
from durian_jax.interruption import exit_status, stoppable


@config_command()
@click.option("--workdir", required=True, metavar="FOLDER",
              help="Folder of the run: metrics.jsonl, TensorBoard events, sample sheets, checkpoints, export.")
@click.option("--profile", default=None, metavar="FIRST:LAST",
              help="Write a trace of these steps to WORKDIR/profile.  [default: no trace]")
@click.pass_context
@stoppable(lambda workdir, **_: _kept(workdir))
def train(ctx, config, overrides, workdir, profile):
    """Train a model, or continue a run.

    \b
    durian train --config=tiny,stage=1 --workdir=runs/tiny --config.init_from=runs/codec
    durian train --config=tiny,stage=2 --workdir=runs/tiny2 --config.init_from=runs/tiny

    Repeat the command to continue from the last checkpoint in the workdir, on any number of devices and hosts.
    Raise --config.total_steps to train longer. Ctrl-C saves a checkpoint and stops the run (status 130). So does
    SIGTERM (status 143, or 0 with several processes). The scripts in launch/ start a run on several hosts.
    """
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.training.named_files import check_codec, check_family, check_named_files, has_started, what_is_kept

    steps = None if profile is None else _steps(profile)
    check_named_files(given_fields(overrides), workdir)
    settings = read_config(config, overrides)
    from durian_jax.training.config import RunConfig

    if not has_started(workdir):
        run_config = RunConfig.read(settings)
        check_codec(run_config)
        check_family(run_config)
    from durian_jax.training import cluster

    cluster.join()  # before anything else uses JAX
    from durian_jax.training.loop import train as run

    cluster.check_joined()
    with cluster.leaving_at_once():
        finished = run(settings, workdir, steps)
    if not cluster.is_first():
        return
    if finished:
        click.echo(f"{workdir}/export holds the averaged weights: pass it to --checkpoint, or start another run from "
                   "it with --config.init_from")
    else:
        click.echo(f"asked to stop (SIGTERM): saved; {what_is_kept(workdir)}")
        if cluster.is_alone():  # a launcher takes another status than 0 of one process for a failure of all
            ctx.exit(exit_status(signal.SIGTERM))


def _kept(workdir: str) -> str:
    from durian_jax.training.named_files import what_is_kept

    return what_is_kept(workdir)


def _steps(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+):(\d+)", text, re.ASCII)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"--profile={text}: expected the first and the last step to trace, as in --profile=10:15")
    return int(match[1]), int(match[2])
