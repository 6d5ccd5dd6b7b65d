"""`durian animate` and `durian reenact` with folders and tables: lines, exit status, and refusals before any work."""

import json

import numpy as np
import pytest

from durian_jax.animation import files as module
from durian_jax.video import probe_video, write_image, write_video
from tests.commands.runner import durian
from tests.helpers.animation import FRAMES, SIZE, stand_in
from tests.helpers.inference import photo
from tests.helpers.sound import with_sound


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "photos").mkdir()
    for index, name in enumerate(("a.png", "b.png")):
        write_image(folder / "photos" / name, photo(index).frames[0])
    with_sound(folder / "x.mp4", np.zeros((FRAMES, SIZE, SIZE, 3), np.uint8), seconds=0.2)
    (folder / "jobs.csv").write_text("source,driving,attributes,out\nphotos/a.png,x.mp4,hair=photos/b.png,one.mp4\n"
                                     "photos/none.png,x.mp4,,two.mp4\n")
    return folder


def test_a_folder_of_photos_makes_a_video_of_each(inputs, tmp_path, monkeypatch):
    calls = stand_in(monkeypatch)
    result = durian("animate", "-s", inputs / "photos", "-d", inputs / "x.mp4", "-o", tmp_path / "out", "--frames", 3,
                    "--no-audio", "--paste-back", "--fps", 20, "--crf", 30)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{tmp_path}/out/a.mp4: 3 frames in ") and len(lines) == 3
    assert lines[2] == f"{tmp_path}/out/summary.json: 2 of 2 videos made" and calls.loads == 1
    for name in ("a", "b_crop", "b_concat"):
        info = probe_video(tmp_path / "out" / f"{name}.mp4")
        assert (info.fps, info.declared_frames, info.has_audio) == (20, 3, False)


def test_a_table_of_jobs_reports_what_failed(inputs, tmp_path, monkeypatch):
    stand_in(monkeypatch)
    result = durian("animate", "--jobs", inputs / "jobs.csv", "-o", tmp_path)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{tmp_path}/two.mp4: failed: {inputs}/photos/none.png: no such file")
    assert lines[1].startswith(f"{tmp_path}/one.mp4: {FRAMES} frames in ")
    assert lines[2] == f"{tmp_path}/summary.json: 1 of 2 videos made, 1 failed"
    assert [job["state"] for job in json.loads((tmp_path / "summary.json").read_text())["jobs"]] == ["done", "failed"]
    assert probe_video(tmp_path / "one.mp4").has_audio


@pytest.mark.parametrize("verb", ["animate", "reenact"])
@pytest.mark.parametrize(("given", "message"), [
    (("-d", "{inputs}/x.mp4", "-o", "{out}/a.mp4"), "expected a photo (-s) and a driving video (-d), or a table"),
    (("--jobs", "{inputs}/jobs.csv", "-d", "{inputs}/x.mp4", "-o", "{out}"), "leave out -s, -d, -a and --timeline"),
    (("-s", "{inputs}/photos", "-d", "{inputs}", "-o", "{out}"), "expected one folder, found two"),
    (("-s", "{inputs}/photos", "-d", "{inputs}/x.mp4", "-o", "{out}/a.mp4"), "expected a folder"),
    (("-s", "{inputs}/photos", "-d", "{inputs}/x.mp4", "-o", "{inputs}", "--fps", "nan"), "found nan"),
])
def test_combinations_that_make_no_sense_are_refused_at_once(inputs, tmp_path, monkeypatch, verb, given, message):
    calls = stand_in(monkeypatch)
    monkeypatch.setattr(module, "read_image", lambda path: pytest.fail("a photo was read"))
    result = durian(verb, *(text.format(inputs=inputs, out=tmp_path / "out") for text in given))
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1
    assert not calls.annotators and not list(tmp_path.iterdir())


def test_another_rate_makes_a_driver_fit(inputs, tmp_path):
    """A model that was trained at 25 frames per second refuses 5 of them, and says what to do."""
    write_video(tmp_path / "slow.mp4", np.zeros((5, SIZE, SIZE, 3), np.uint8), 5)
    run = lambda *more: durian("reenact", "-s", inputs / "photos" / "a.png", "-d", tmp_path / "slow.mp4", "-o",
                               tmp_path / "out.mp4", *more)
    result = run()
    assert result.exit_code == 2 and "found 5; resample it (--fps 25)" in result.stderr
    result = run("--fps", 25, "-a", "wig=a.png")
    assert result.exit_code == 2 and "unknown attribute kind" in result.stderr
