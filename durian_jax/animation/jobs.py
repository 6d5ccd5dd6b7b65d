"""Several videos in one call: the model and the annotator are loaded once. A failure does not stop the rest."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from durian_jax.animation.files import Session
from durian_jax.animation.requests import Request, check_apart
from durian_jax.animation.settings import Settings
from durian_jax.errors import InputError
from durian_jax.files import writable_file, write_json
from durian_jax.progress import SHORT, progress_bar
from durian_jax.versions import versions

WAITING, DONE, FAILED = "waiting", "done", "failed"


@dataclass
class Outcome:
    """What became of a request.

    Attributes:
        request: the video to make.
        state: "waiting", "done" or "failed".
        frames: number of frames of the video.
        seconds: duration of the work.
        error: why it failed.
        traceback: of a failure that is a mistake of the program.
    """

    request: Request
    state: str = WAITING
    frames: int = 0
    seconds: float = 0.0
    error: str = ""
    traceback: str = ""

    @contextmanager
    def noting_failure(self) -> Iterator[None]:
        """Note an exception of the block, and end the block."""
        try:
            yield
        except InputError as error:
            self.state, self.error = FAILED, str(error)
        except Exception as error:  # noqa: BLE001 (one odd file must not stop the others)
            self.state, self.error = FAILED, f"unexpected {type(error).__name__}: {error}"
            self.traceback = traceback.format_exc()

    def describe(self) -> str:
        """Return one line."""
        made = f"{self.frames} frames in {self.seconds:.1f} s" if self.state == DONE else f"{self.state}: {self.error}"
        return f"{self.request.out}: {made}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        request = {name: str(getattr(self.request, name)) for name in ("source", "driving", "out")}
        return {**request, "attributes": self.request.described, "state": self.state, "frames": self.frames,
                "seconds": self.seconds, "error": self.error, "traceback": self.traceback}


def animate_jobs(requests: Sequence[Request], summary: str | Path, settings: Settings | None = None,
                 told: Callable[[Outcome], None] | None = None) -> list[Outcome]:
    """Make several videos, one after the other.

    All inputs are checked before the model is built. A request that fails, at once or later, does not stop the others.
    `summary` is a JSON file with the state of each request; it is written again after each of them.

    Args:
        requests: from `requests.find_requests`, or your own.
        summary: the .json to write.
        settings: of all videos; None: the defaults.
        told: is called when a request is done or has failed.

    Returns:
        The outcome of each request, in order.

    Raises:
        InputError: the settings do not fit the checkpoint, the annotator is not installed, or two requests write the
            same file.
    """
    settings = settings or Settings()
    summary = writable_file(summary, (".json",))
    check_apart(requests, summary, settings.paste_back)
    outcomes = [Outcome(request) for request in requests]

    def finished(outcome: Outcome) -> None:
        _write(summary, outcomes, settings)
        if told is not None:
            told(outcome)

    session = Session(settings)
    session.describe()
    _ = session.provenance  # without a usable certificate, no request can be served
    for outcome in progress_bar(outcomes, desc="checking", unit="job", leave=False, delay=SHORT):
        with outcome.noting_failure():
            session.check(outcome.request)
        if outcome.state == FAILED:
            finished(outcome)
    _write(summary, outcomes, settings)
    session.load_annotator()  # without an annotator or a model, no request can be served
    for outcome in outcomes:
        if outcome.state == FAILED:
            continue
        inputs = None
        with outcome.noting_failure():
            inputs = session.annotate(outcome.request)
        if inputs is not None:
            session.load()
            with outcome.noting_failure():
                report = session.make(outcome.request, inputs)
                outcome.state = DONE
                outcome.frames, outcome.seconds = report["frames"], report["seconds"]["total"]
        finished(outcome)
    return outcomes


def _write(summary: Path, outcomes: Sequence[Outcome], settings: Settings) -> None:
    states = [outcome.state for outcome in outcomes]
    write_json(summary, {**{state: states.count(state) for state in (DONE, FAILED, WAITING)},
                         "jobs": [outcome.as_dict() for outcome in outcomes], "settings": asdict(settings),
                         "versions": versions()})
