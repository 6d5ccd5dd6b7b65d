"""`durian reenact --backend torch`, from files to files."""

import json
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from durian_jax.animation import files
from durian_jax.inference.animator import Animator
from durian_jax.synthetic import render, sample_motion, sample_person
from durian_jax.torch import SVDPPipeline
from durian_jax.video import read_video, video_writer, write_image, write_video
from tests.commands.runner import durian


def test_reenact_runs_an_export_from_files_to_files(exported, tmp_path, monkeypatch):
    """Several segments, guidance of each condition, the same frames as the pipeline, and all of them in the photo."""
    folder, size = exported("one_way")[1], 32
    clip = render(sample_person("validation", 1, require=("hair",)), sample_motion("validation", 1, 6), size=size)
    write_image(tmp_path / "me.png", clip.frames[0])
    write_video(tmp_path / "talk.mp4", clip.frames, 25)
    detector = SimpleNamespace(person=lambda image: np.full(image.shape[:2], 255, np.uint8), turn=lambda image: 0)
    monkeypatch.setattr(files, "Annotator", lambda: detector)
    photo = replace(clip[:1], box=np.float32([[size / 2, size / 2, size]]))
    monkeypatch.setattr(files, "annotate_image", lambda *_, **__: photo)
    monkeypatch.setattr(files, "annotate_video", lambda *_, **__: (clip, []))
    written: dict[str, list[np.ndarray]] = {}

    @contextmanager
    def recording(path, *rest):
        frames = written.setdefault(path.name, [])
        with video_writer(path, *rest) as write:
            yield lambda frame: (frames.append(frame), write(frame))
    monkeypatch.setattr(files, "video_writer", recording)
    result = durian("reenact", "-s", tmp_path / "me.png", "-d", tmp_path / "talk.mp4", "-a", f"hair={tmp_path}/me.png",
                    "-o", tmp_path / "out.mp4", "--checkpoint", folder, "--backend", "torch", "--device", "cpu",
                    "--dtype", "float32", "--steps", 2, "--driving-scale", 2.5, "--regions", "eyes,mouth",
                    "--paste-back")
    assert result.exit_code == 0, result.output
    assert read_video(tmp_path / "out.mp4")[0].shape == (6, size, size, 3)
    settings = json.loads((tmp_path / "out.json").read_text())["settings"]
    assert (settings["backend"], settings["device"], settings["dtype"]) == ("torch", "cpu", "torch.float32")
    pipeline = SVDPPipeline.from_pretrained(folder).to("cpu")  # the same layout in memory, so the same sums
    scales = settings["guidance_scale"]
    assert scales[1] == 2.5
    expected = Animator(pipeline).animate(clip[:1], [("hair", clip[:1])], clip, regions=("eyes", "mouth"),
                                          sampling=pipeline.sampling.changed({"steps": 2, "guidance_scale": scales}))
    np.testing.assert_array_equal(written["out_crop.mp4"], expected)
    # The crop is the whole photo here. Its background was made in other colours by the untrained model.
    assert [frame.shape for frame in written["out.mp4"]] == [(size, size, 3)] * 6
    assert np.corrcoef(np.ravel(written["out.mp4"]), np.ravel(expected))[0, 1] > 0.9
    # Driver, source, attribute and result side by side.
    assert [frame.shape for frame in written["out_concat.mp4"]] == [(size, 4 * size, 3)] * 6
