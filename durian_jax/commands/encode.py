"""`durian encode`."""

import re

import click

from durian_jax.commands.config_flags import config_command, given_fields, read_config
from durian_jax.errors import InputError
from durian_jax.interruption import stoppable


@config_command()
@click.option("--out", required=True, metavar="FOLDER", help="Folder to write.")
@click.option("--samples", required=True, type=click.IntRange(1), help="Number of samples.")
@click.option("--part", default="0/1", show_default=True, metavar="I/N",
              help="Make files I, I + N, I + 2N, ...: to share the work between N machines.")
@stoppable(lambda out, **_: f"{out} keeps all finished files; repeat the command to continue")
def encode(config, overrides, out, samples, part):
    """Encode training samples once instead of in every step.

    \b
    durian encode --config=sd15,stage=1 --config.init_from=data/start \\
        --config.source.clips=data/mine --samples=100000 --out=data/encoded
    durian train --config=sd15,stage=1 --config.init_from=data/start \\
        --config.source.samples=data/encoded --workdir=runs/sd1

    Writes samples with latents and embeddings instead of pictures. They are augmented once, as the config says,
    so make many. Repeat the command to continue after it was killed.
    """
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.training.named_files import check_named_files

    numbers = re.fullmatch(r"(\d+)/(\d+)", part)
    if not numbers:
        raise InputError(f"--part={part}: expected --part=I/N, for example --part=0/4")
    check_named_files(given_fields(overrides), out, resumable=False)
    settings = read_config(config, overrides)
    from durian_jax.training.encode import encode_samples

    encode_samples(settings, out, samples, part=(int(numbers[1]), int(numbers[2])))
    click.echo(f"{out}: pass it to --config.source.samples")
