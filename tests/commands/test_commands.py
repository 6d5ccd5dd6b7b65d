"""The command line: readable help, one line and status 2 for a user's mistake, and files that are whole."""

import json
import subprocess
import sys
import wave
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from durian_jax.checkpoints import weights as weights_module
from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.commands.main import main
from durian_jax.diffusion import SAMPLERS, Objective
from durian_jax.diffusion.sampling import Sampling
from durian_jax.errors import InputError
from durian_jax.files import writable_file, write_json
from durian_jax.images import to_uint8
from durian_jax.inference import generate as generate_module
from durian_jax.models.durian.config import DurianConfig
from durian_jax.prepare.environment import find_annotator
from durian_jax.synthetic import render, sample_motion, sample_person, still
from durian_jax.video import probe_video, read_video, write_image, write_video

SIZE = 128


def durian(*arguments: str):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# --- help ---------------------------------------------------------------------------------------------

def test_help_lists_every_verb():
    result = durian("--help")
    assert result.exit_code == 0
    for verb in ("demo", "animate", "check", "train", "evaluate", "prepare", "sheet", "masks", "expand", "synthesize",
                 "annotator"):
        assert verb in result.output
        help_of_verb = durian(verb, "--help")
        assert help_of_verb.exit_code == 0 and "Usage: " in help_of_verb.output
    assert "..." not in result.output.split("Commands:")[1]  # no sentence is cut off


def test_help_imports_no_jax():
    code = ("import sys; from durian_jax.commands.main import main; main(['--help'], standalone_mode=False); "
            "assert 'jax' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("verb", ["demo", "animate", "evaluate"])
def test_help_shows_the_defaults_of_the_sampler(verb):
    options = {option.name: option for option in main.commands[verb].params}
    names = {"steps": "steps", "guidance": "guidance_scale", "seed": "seed", "sampler": "sampler"}
    assert {names[name]: options[name].default for name in names} == asdict(Sampling())
    assert all(options[name].show_default for name in names)
    assert tuple(options["sampler"].type.choices) == SAMPLERS


def test_train_passes_its_flags_on(monkeypatch):
    import durian_jax.commands.config_flags as training

    given = []
    monkeypatch.setattr(training, "run", given.append)
    flags = ["--config=configs/durian.py:tiny,stage=1", "--workdir=runs/a", "--config.total_steps=8"]
    assert durian("train", *flags).exit_code == 0
    assert given == [flags]
    assert "metrics.jsonl" in durian("train").output and len(given) == 1


# --- mistakes -----------------------------------------------------------------------------------------

@pytest.fixture
def no_model(monkeypatch):
    """A checkpoint of which only the sizes exist: whoever builds the model fails the test."""
    def load_checkpoint(_):
        pytest.fail("the model was built")
    config = DurianConfig(image_size=SIZE, max_frames=8)
    monkeypatch.setattr(weights_module, "read_config", lambda _: (config, None, Path()))
    monkeypatch.setattr(weights_module, "load_checkpoint", load_checkpoint)
    return config


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Procedural people, large enough to be found by the face annotator, and things that are no people."""
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
    gap[4:7] = 128
    write_video(folder / "gap.mp4", gap, 25)
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
    try:
        return find_annotator()
    except InputError as error:
        pytest.skip(str(error))


def test_animate_names_photos_and_frames_without_a_face(files, tmp_path, no_model, annotator):
    result = animate(files, tmp_path / "out.mp4", source="wall.png")
    assert result.exit_code == 2 and "no face found in" in result.stderr and "wall.png" in result.stderr
    result = animate(files, tmp_path / "out.mp4", "-a", f"hair={files}/wall.png")
    assert result.exit_code == 2 and "wall.png" in result.stderr
    result = animate(files, tmp_path / "out.mp4", driving="gap.mp4")
    assert result.exit_code == 2 and "no face found in frames 4-6" in result.stderr
    assert not list(tmp_path.iterdir())


def test_animate_writes_videos_and_settings(files, tmp_path, monkeypatch, no_model, annotator):
    def generate(checkpoint, batch, sampling, **options):
        return np.repeat(to_uint8(batch["portrait"])[:, None], batch["keypoints"].shape[1], 1)
    monkeypatch.setattr(generate_module, "generate", generate)
    monkeypatch.setattr(generate_module, "project_references", lambda checkpoint, batch: None)
    monkeypatch.setattr(weights_module, "load_checkpoint", lambda _: Checkpoint(no_model, Objective(), {}))
    for name in ("a", "b"):
        result = animate(files, tmp_path / f"{name}.mp4", "-a", f"hair={files}/person.png", "--seed", 3,
                         "--frames", 10)
        assert result.exit_code == 0, result.stderr
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["frames"] == 10 and asdict(Sampling(seed=3)).items() <= report["settings"].items()
    assert report["settings"]["attributes"] == {"hair": f"{files}/person.png"}
    assert set(report["seconds"]) == {"load", "annotate", "animate", "write", "total"}
    assert report["versions"]["jax"]
    clean, fps = read_video(tmp_path / "a.mp4")
    joined, _ = read_video(tmp_path / "a_concat.mp4")
    assert clean.shape == (10, SIZE, SIZE, 3) and fps == 25
    assert joined.shape == (10, SIZE, 4 * SIZE, 3)
    assert probe_video(tmp_path / "a_concat.mp4").has_audio and not probe_video(tmp_path / "a.mp4").has_audio
    for suffix in (".mp4", "_concat.mp4"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_exit_status_of_the_program(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "durian_jax", "evaluate", "--checkpoint", str(tmp_path / "none")],
        capture_output=True, text=True)
    assert result.returncode == 2 and result.stdout == ""
    assert "durian: error: no checkpoint" in result.stderr and "Traceback" not in result.stderr


def test_outputs_are_checked_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for arguments in (("demo", "--out", tmp_path / "file" / "demo"),
                      ("evaluate", "--json", tmp_path / "file" / "x.json"),
                      ("evaluate", "--sheet", tmp_path / "x.tiff"),
                      ("synthesize", "--out", tmp_path / "file" / "records"),
                      ("prepare", tmp_path, "--out", tmp_path / "file" / "records"),
                      ("train", "--config=configs/durian.py:tiny,stage=1", f"--workdir={tmp_path}/file/run")):
        result = durian(*arguments)
        assert result.exit_code == 2 and result.stderr.startswith("durian: error: "), arguments


def test_records_are_not_replaced_by_accident(tmp_path):
    def draw(*more):
        return durian("synthesize", "--out", tmp_path, "--clips", 1, "--frames", 2, "--size", 32, "--workers", 0, *more)
    assert draw().exit_code == 0
    for result in (draw(), durian("prepare", __file__, "--out", tmp_path)):
        assert result.exit_code == 2 and "--overwrite" in result.stderr
    (tmp_path / "report.json").write_text("of the records before")
    assert draw("--overwrite").exit_code == 0 and not (tmp_path / "report.json").exists()


def test_a_missing_training_config_is_named(tmp_path):
    result = durian("train", "--config=configs/nope.py:tiny", f"--workdir={tmp_path}/run")
    assert result.exit_code == 2 and "configs/nope.py" in result.stderr


def test_animate_names_an_unknown_checkpoint(files, tmp_path):
    result = animate(files, tmp_path / "out.mp4", "--checkpoint", "nobody")
    assert result.exit_code == 2 and "durian: error: no checkpoint 'nobody'" in result.stderr


# --- files --------------------------------------------------------------------------------------------

def test_writing_json_needs_no_video_library():
    code = "import sys, durian_jax.files; assert not {'av', 'cv2', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_json_has_no_nan_and_appears_whole(tmp_path):
    path = writable_file(tmp_path / "new" / "x.json", (".json",))
    write_json(path, {"a": float("nan"), "b": np.float32(0.5), "c": (1, np.int64(2)), "d": path})
    assert json.loads(path.read_text()) == {"a": None, "b": 0.5, "c": [1, 2], "d": str(path)}
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]
