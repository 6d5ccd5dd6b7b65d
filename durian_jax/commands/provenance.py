"""`durian provenance`."""

import click

from durian_jax.commands.options import json_option
from durian_jax.interruption import stoppable


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE.mp4...")
@json_option("Write the findings to this file.")
@click.pass_context
@stoppable(lambda **_: "nothing was written; repeat the command to start again")
def provenance(ctx, files, json_path):
    """Say whether videos are marked as AI generated.

    Shows the metadata that durian writes into every generated video, and checks the C2PA manifest if there is one.
    The exit status is 1 if a manifest is invalid, for example because the video was changed after signing. Metadata
    and manifest can be removed: a video without them may be generated, too.

    \b
    durian provenance out.mp4
    """
    from durian_jax.files import writable_file, write_json
    from durian_jax.video.provenance import describe, read_provenance

    if json_path:
        writable_file(json_path, (".json",))
    found = [read_provenance(file) for file in files]
    for one in found:
        click.echo(describe(one))
    if json_path:
        write_json(json_path, {"files": found})
    ctx.exit(1 if any(one["c2pa"]["state"] == "invalid" for one in found) else 0)
