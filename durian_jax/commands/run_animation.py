"""What `durian animate` and `durian reenact` do with their options."""

from pathlib import Path
from typing import Any

import click


def run_animation(*, source: str | None, driving: str | None, attributes: tuple[str, ...], out: str, jobs: str | None,
                  timeline: str | None, order: str | None, options: dict[str, Any] | None = None, **settings: Any
                  ) -> None:
    """Make one video, or those of a folder or table, and print a line per video; exit with 1 if some failed.

    Args:
        source, driving, attributes, out, jobs, timeline: see `animation.requests.find_requests`.
        order: kinds that cover others, see `faces.fill_region.ordered_layers`, separated by commas.
        options: of the model's family.
        settings: fields of `animation.settings.Settings`.
    """
    from durian_jax import runtime

    runtime.configure()
    from durian_jax.animation.files import animate_files
    from durian_jax.animation.jobs import DONE, animate_jobs
    from durian_jax.animation.requests import Request, find_requests
    from durian_jax.animation.settings import Settings

    options = dict(options or {})
    if order is not None:
        options["order"] = tuple(kind.strip() for kind in order.split(","))
    found = find_requests(source, driving, attributes, out, jobs, timeline)
    if isinstance(found, Request):
        report = animate_files(source, driving, attributes, out, timeline=timeline, **settings, **options)
        click.echo(f"{out}: {report['frames']} frames in {report['seconds']['total']:.1f} s")
        return
    summary = Path(out) / "summary.json"
    outcomes = animate_jobs(found, summary, Settings(**settings, options=options),
                            lambda outcome: click.echo(outcome.describe()))
    failed = sum(outcome.state != DONE for outcome in outcomes)
    click.echo(f"{summary}: {len(outcomes) - failed} of {len(outcomes)} videos made"
               f"{f', {failed} failed' if failed else ''}")
    click.get_current_context().exit(1 if failed else 0)


def said_of_stopping(*, source: str | None, driving: str | None, out: str, jobs: str | None, **_: Any) -> str:
    """Return what a stopped command leaves behind, see `interruption.stoppable`."""
    if jobs is None and not any(given and Path(given).is_dir() for given in (source, driving)):
        return f"nothing was written, an earlier {out} is unchanged; repeat the command to start again"
    return (f"{out} keeps all finished videos, see its summary.json; repeat the command to make all again, or name "
            "only the others")
