"""Several videos in one call, with stand-ins for the annotator and the model."""

import json

import numpy as np
import pytest

from durian_jax.animation import files as module
from durian_jax.animation.jobs import animate_jobs
from durian_jax.animation.requests import Request, Wanted, find_requests
from durian_jax.animation.settings import Settings
from durian_jax.errors import InputError
from durian_jax.prepare.attribute_file import write_attribute
from durian_jax.video import read_video, write_image, write_video
from tests.helpers.animation import CHECKPOINT, FRAMES, SIZE, stand_in
from tests.helpers.attributes import attribute
from tests.helpers.inference import photo


@pytest.fixture
def calls(monkeypatch):
    return stand_in(monkeypatch)


@pytest.fixture
def request_of(tmp_path):
    for index, name in enumerate(("a.png", "b.png")):
        write_image(tmp_path / name, photo(index).frames[0])
    write_video(tmp_path / "x.mp4", np.zeros((FRAMES, SIZE, SIZE, 3), np.uint8), 25)
    return lambda source, out, driving="x.mp4", **attributes: Request(
        tmp_path / source, tmp_path / driving,
        {kind: Wanted((str(tmp_path / name),)) for kind, name in attributes.items()}, tmp_path / "out" / out)


def test_a_failure_does_not_stop_the_rest(calls, request_of, tmp_path, monkeypatch):
    """Model and annotator are loaded once, and photos and videos that serve several requests are annotated once."""
    annotate = module.annotate_image

    def picky(path, *given, **options):
        if path.endswith("b.png") and "known" not in options:
            raise InputError(f"no face found in {path}")
        return annotate(path, *given, **options)
    monkeypatch.setattr(module, "annotate_image", picky)
    told, summary = [], tmp_path / "out" / "summary.json"
    requests = [request_of("a.png", "1.mp4"), request_of("b.png", "2.mp4"), request_of("none.png", "3.mp4"),
                request_of("a.png", "4.mp4", hair="b.png"), request_of("b.png", "5.mp4"),
                request_of("a.png", "6.mp4", driving="none.mp4")]
    outcomes = animate_jobs(requests, summary, Settings("mine"), lambda outcome: told.append(outcome.describe()))
    assert [outcome.state for outcome in outcomes] == ["done", "failed", "failed", "done", "failed", "failed"]
    assert [line.split(":")[0][-5:] for line in told] == ["3.mp4", "6.mp4", "1.mp4", "2.mp4", "4.mp4", "5.mp4"]
    assert "3.mp4: failed: " in told[0] and "none.png: no such file" in told[0] and "no face found" in told[3]
    assert f"{FRAMES} frames in " in told[2]
    assert [read_video(tmp_path / "out" / f"{name}.mp4")[0].shape[0] for name in (1, 4)] == [FRAMES, FRAMES]
    assert calls.loads == 1 and calls.annotators == 1 and calls.videos == [str(tmp_path / "x.mp4")]
    assert [path[-5:] for path, _, known in calls.photos] == ["a.png", "b.png"]
    found = json.loads(summary.read_text())
    assert (found["done"], found["failed"], found["waiting"]) == (2, 4, 0)
    assert [job["error"] for job in found["jobs"]] == [outcome.error for outcome in outcomes]
    assert found["jobs"][3]["attributes"] == {"hair": str(tmp_path / "b.png")} and found["jobs"][3]["frames"] == FRAMES


def test_a_mistake_of_the_program_is_noted_with_its_traceback(calls, request_of, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("odd")
    monkeypatch.setattr(module, "annotate_video", broken)
    (outcome,) = animate_jobs([request_of("a.png", "1.mp4")], tmp_path / "s.json", Settings("mine"))
    assert outcome.error == "unexpected ZeroDivisionError: odd" and calls.loads == 0
    assert "in broken" in json.loads((tmp_path / "s.json").read_text())["jobs"][0]["traceback"]


def test_what_fails_all_requests_is_an_error(calls, request_of, tmp_path, monkeypatch):
    requests = [request_of("a.png", "1.mp4"), request_of("b.png", "2.mp4")]
    with pytest.raises(InputError, match="steps: expected an integer from 1 to 1000"):
        animate_jobs(requests, tmp_path / "s.json", Settings("mine", sampling={"steps": 0}))
    with pytest.raises(InputError, match="would write the same file"):
        animate_jobs([requests[0], requests[0]], tmp_path / "s.json", Settings("mine"))
    with pytest.raises(InputError, match="expected a name ending in .json"):
        animate_jobs(requests, tmp_path / "s.txt", Settings("mine"))
    assert not calls.photos and not calls.annotators

    def refuse():
        raise InputError("the face annotator is not installed")
    monkeypatch.setattr(module, "Annotator", refuse)
    with pytest.raises(InputError, match="not installed"):
        animate_jobs(requests, tmp_path / "s.json", Settings("mine"))
    assert json.loads((tmp_path / "s.json").read_text())["waiting"] == 2


def test_settings_apply_to_all_videos(calls, request_of, tmp_path):
    settings = Settings("mine", frames=3, fps=10, crf=30, sampling={"seed": 5})
    animate_jobs([request_of("a.png", "1.mp4"), request_of("b.png", "2.mp4")], tmp_path / "s.json", settings)
    for name in ("1", "2"):
        frames, fps = read_video(tmp_path / "out" / f"{name}.mp4")
        assert len(frames) == 3 and fps == 10
        found = json.loads((tmp_path / "out" / f"{name}.json").read_text())["settings"]
        assert (found["fps"], found["crf"], found["seed"]) == (10, 30, 5)
    assert [sampling.steps for _, sampling in calls.sampled] == [CHECKPOINT.sampling.steps] * 2


def test_jobs_of_a_table_take_attribute_files(calls, request_of, tmp_path):
    """One file serves two jobs; a third names it as another kind."""
    write_attribute(tmp_path / "curls.attr", attribute())
    request_of("a.png", "x.mp4")
    (tmp_path / "jobs.csv").write_text("source,driving,attributes,out\na.png,x.mp4,hair=curls.attr,1.mp4\n"
                                       "b.png,x.mp4,hair=curls.attr,2.mp4\nb.png,x.mp4,hat=curls.attr,3.mp4\n")
    requests = find_requests(None, None, [], tmp_path / "out", tmp_path / "jobs.csv")
    outcomes = animate_jobs(requests, tmp_path / "out" / "summary.json", Settings("mine"))
    assert [outcome.state for outcome in outcomes] == ["done", "done", "failed"]
    assert "curls.attr: expected hat, found an attribute file of hair" in outcomes[2].error
    assert [path[-10:] for path, _, _ in calls.photos].count("curls.attr") == 1
