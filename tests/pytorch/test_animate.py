"""`durian animate --backend torch`, from files to files."""

import json
from unittest.mock import MagicMock

import pytest

from durian_jax.animation import files
from durian_jax.synthetic import render, sample_motion, sample_person
from durian_jax.video import read_video, write_image, write_video
from tests.commands.runner import durian


@pytest.mark.slow
def test_animate_runs_an_export_from_files_to_files(exported, tmp_path, monkeypatch):
    folder, size = exported("like_sd")[1], 32
    clip = render(sample_person("validation", 1, require=("hair",)), sample_motion("validation", 1, 3), size=size)
    write_image(tmp_path / "me.png", clip.frames[0])
    write_video(tmp_path / "talk.mp4", clip.frames, 25)
    monkeypatch.setattr(files, "Annotator", MagicMock())
    monkeypatch.setattr(files, "annotate_image", lambda *_, **__: clip[:1])
    monkeypatch.setattr(files, "annotate_video", lambda *_, **__: (clip, []))
    run = lambda *more: durian("animate", "-s", tmp_path / "me.png", "-d", tmp_path / "talk.mp4", "-a",
                               f"hair={tmp_path}/me.png", "-o", tmp_path / "out.mp4", "--checkpoint", folder, *more)
    result = run("--backend", "torch", "--device", "cpu", "--dtype", "bfloat16")
    assert result.exit_code == 0, result.output
    assert read_video(tmp_path / "out.mp4")[0].shape == (3, size, size, 3)
    assert read_video(tmp_path / "out_concat.mp4")[0].shape == (3, size, 4 * size, 3)
    settings = json.loads((tmp_path / "out.json").read_text())["settings"]
    assert (settings["backend"], settings["device"], settings["dtype"]) == ("torch", "cpu", "torch.bfloat16")
    for wrong, message in ((("--device", "cpu"), "are for backend='torch'"),
                           (("--backend", "torch", "--device", "cudx"), "expected one such as cpu or cuda"),
                           (("--backend", "torch", "--checkpoint", tmp_path), "expected an export")):
        result = run(*wrong)
        assert result.exit_code == 2 and message in result.output
