"""`durian check`."""

import click

from durian_jax.commands.options import json_option
from durian_jax.interruption import stoppable


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("-a", "--attribute", "attributes", multiple=True, metavar="KIND=PHOTO",
              help="Check whether PHOTO, or a file of durian attribute save, can give hair, glasses, beard or hat. "
              "Repeatable.")
@json_option("Write the reports with all measurements to this file.")
@click.pass_context
@stoppable(lambda **_: "nothing was written; repeat the command to start again")
def check(ctx, files, attributes, json_path):
    """Report problems of photos and videos.

    Checks source photos, attribute photos and driving videos for `durian animate`: small, blurred, turned or
    hidden faces, cuts, a first frame that is not calm, and more. Says how to fix each problem. The exit status
    is 1 if a file has an error, and 0 if it has only warnings.

    \b
    durian check me.png friend.png talk.mp4
    durian check me.png talk.mp4 -a glasses=aunt.jpg
    """
    from durian_jax.animation.requests import parse_attributes
    from durian_jax.files import writable_file, write_json
    from durian_jax.prepare.check import check_files, describe

    if json_path:
        writable_file(json_path, (".json",))
    asked = [(kind, photo) for text in attributes for kind, wanted in parse_attributes([text]).items()
             for photo in wanted.photos]
    if not files and not asked:
        raise click.UsageError("expected a photo or a video, or --attribute KIND=PHOTO; got nothing to check")
    reports = check_files(files, attributes=asked)
    for report in reports:
        click.echo(describe(report))
    if json_path:
        write_json(json_path, {"files": [report.as_dict() for report in reports]})
    ctx.exit(0 if all(report.ok for report in reports) else 1)
