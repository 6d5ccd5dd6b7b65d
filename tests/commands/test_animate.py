"""`durian animate`: one line for a mistake, before the model is built, and complete files."""

import json
import wave
from dataclasses import asdict, replace

import numpy as np
import pytest

from durian_jax.annotator.files import find_models
from durian_jax.checkpoints import weights as weights_module
from durian_jax.checkpoints.description import Description
from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.diffusion import Objective
from durian_jax.diffusion.sampling import Sampling
from durian_jax.images import to_uint8
from durian_jax.inference import generate as generate_module
from durian_jax.inference.backend import Segment
from durian_jax.models.durian.config import DurianConfig
from durian_jax.synthetic import render, sample_motion, sample_person, still
from durian_jax.video import probe_video, read_video, write_image, write_video
from tests.commands.runner import durian
from tests.helpers.tools import require

SIZE = 128
# Of the checkpoint, and not of `Sampling`.
DEFAULTS = Sampling(steps=3, guidance_scale=2.0, sampler="ddim")


@pytest.fixture
def no_model(monkeypatch):
    """A checkpoint with sizes and without weights: the test fails if the model is built."""
    def load_checkpoint(_):
        pytest.fail("the model was built")
    config = DurianConfig(image_size=SIZE, max_frames=8)
    monkeypatch.setattr(weights_module, "read_description", lambda _: Description(config, Objective(), DEFAULTS))
    monkeypatch.setattr(weights_module, "load_checkpoint", load_checkpoint)
    return config


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Procedural people, large enough for the face annotator, and pictures and videos without a face."""
    folder = tmp_path_factory.mktemp("files")
    person = sample_person("validation", 4).without("glasses", "hat")
    write_image(folder / "person.png", render(person, still(), size=256).frames[0])
    other = sample_person("validation", 5).without("glasses", "hat")
    talk = render(other, sample_motion("validation", 5, 12), size=256).frames
    with wave.open(str(folder / "tone.wav"), "wb") as tone:
        tone.setparams((1, 2, 22050, 0, "NONE", "not compressed"))
        tone.writeframes(np.int16(9000 * np.sin(np.arange(22050) * 0.1)).tobytes())
    write_video(folder / "talk.mp4", talk, 25, audio_from=folder / "tone.wav")
    gap = talk.copy()
    gap[4:11] = 128  # more than half a second
    write_video(folder / "gap.mp4", gap, 10)
    write_image(folder / "wall.png", np.full((256, 256, 3), 180, np.uint8))
    write_video(folder / "take_concat.mp4", talk[:2], 25)
    (folder / "busy.json").mkdir()
    (folder / "corrupt.png").write_bytes((folder / "person.png").read_bytes()[:900])
    (folder / "corrupt.mp4").write_bytes(b"not a video at all" * 50)
    return folder


def animate(files, out, *more, source="person.png", driving="talk.mp4"):
    return durian("animate", "-s", files / source, "-d", files / driving, "-o", out, *more)


@pytest.mark.parametrize(("change", "message"), [
    ({"source": "nobody.png"}, "nobody.png: no such file"),
    ({"source": "corrupt.png"}, "corrupt.png"),
    ({"driving": "nothing.mp4"}, "nothing.mp4: no such file"),
    ({"driving": "corrupt.mp4"}, "corrupt.mp4: not a readable video"),
    ({"driving": "person.png"}, "found a still picture"),
    ({"more": ("-a", "moustache={files}/person.png")}, "unknown attribute kind 'moustache'; expected one of"),
    ({"more": ("-a", "hair")}, "expected KIND=PHOTO"),
    ({"more": ("-a", "hair={files}/nobody.png")}, "nobody.png: no such file"),
    ({"more": ("-a", "hair={files}/person.png", "-a", "hair={files}/wall.png")}, "hair is given twice"),
    ({"more": ("--size", "256")}, "makes pictures of 128 x 128 pixels"),
    ({"out": "{files}/person.png/out.mp4"}, "cannot write into the folder"),
    ({"out": "{files}/talk.mp4"}, "talk.mp4 would replace the input"),
    ({"out": "{files}/../{name}/talk.mp4"}, "talk.mp4 would replace the input"),
    ({"out": "{files}/take.mp4", "driving": "take_concat.mp4"}, "take_concat.mp4 would replace the input"),
    ({"out": "{files}/busy.mp4"}, "busy.json is a folder"),
    ({"out": "{files}/out.avi"}, "expected a name ending in .mp4"),
])
def test_animate_names_the_mistake(files, tmp_path, no_model, change, message):
    before = {path.name: path.stat().st_mtime_ns for path in files.iterdir()}
    change = dict(change)
    out = change.pop("out", f"{tmp_path}/out.mp4").format(files=files, name=files.name)
    more = [text.format(files=files) for text in change.pop("more", ())]
    result = animate(files, out, *more, **change)
    assert result.exit_code == 2
    assert result.stderr.startswith("durian: error: ") and message in result.stderr
    assert result.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
    assert {path.name: path.stat().st_mtime_ns for path in files.iterdir()} == before


@pytest.fixture(scope="module")
def annotator():
    return require(find_models, "annotator")


def test_animate_names_photos_and_frames_without_a_face(files, tmp_path, no_model, annotator):
    result = animate(files, tmp_path / "out.mp4", source="wall.png")
    assert result.exit_code == 2 and "no face found in" in result.stderr and "wall.png" in result.stderr
    result = animate(files, tmp_path / "out.mp4", "-a", f"hair={files}/wall.png")
    assert result.exit_code == 2 and "wall.png" in result.stderr
    result = animate(files, tmp_path / "out.mp4", driving="gap.mp4")
    assert result.exit_code == 2 and "no face found in frames 4-10" in result.stderr
    assert not list(tmp_path.iterdir())


def test_animate_writes_videos_and_settings(files, tmp_path, monkeypatch, no_model, annotator):
    def generate(checkpoint, batch, sampling, **options):
        images = np.repeat(to_uint8(batch["portrait"])[:, None], batch["keypoints"].shape[1], 1)
        return Segment(images, np.zeros((*images.shape[:2], 2, 2, 4), np.float32))
    monkeypatch.setattr(generate_module, "generate_segment", generate)
    monkeypatch.setattr(generate_module, "references", lambda checkpoint, batch: None)
    monkeypatch.setattr(weights_module, "load_checkpoint", lambda _: Checkpoint(no_model, Objective(), {}))
    for name in ("a", "b"):
        result = animate(files, tmp_path / f"{name}.mp4", "-a", f"hair={files}/person.png", "--seed", 3,
                         "--steps", 5, "--frames", 10)
        assert result.exit_code == 0, result.stderr
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["warnings"] == []
    result = animate(files, tmp_path / "c.mp4", "-a", f"beard={files}/person.png", "--frames", 2)
    assert result.stderr.count("durian: warning: ") == result.stderr.count("little evidence of beard") == 1
    note, = json.loads((tmp_path / "c.json").read_text())["warnings"]
    assert note in result.stderr and note.startswith(f"{files}/person.png: little evidence of beard was found")
    assert report["frames"] == 10 and asdict(replace(DEFAULTS, steps=5, seed=3)).items() <= report["settings"].items()
    assert report["settings"]["attributes"] == {"hair": f"{files}/person.png"}
    assert set(report["seconds"]) == {"load", "annotate", "animate", "write", "total"}
    assert report["versions"]["jax"]
    clean, fps = read_video(tmp_path / "a.mp4")
    joined, _ = read_video(tmp_path / "a_concat.mp4")
    assert clean.shape == (10, SIZE, SIZE, 3) and fps == 25
    assert joined.shape == (10, SIZE, 4 * SIZE, 3)
    assert probe_video(tmp_path / "a_concat.mp4").has_audio and probe_video(tmp_path / "a.mp4").has_audio
    for suffix in (".mp4", "_concat.mp4"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_animate_names_an_unknown_checkpoint(files, tmp_path):
    result = animate(files, tmp_path / "out.mp4", "--checkpoint", "nobody")
    assert result.exit_code == 2 and "durian: error: no checkpoint 'nobody'" in result.stderr
