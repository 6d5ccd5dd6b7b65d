"""Misspelt names are refused before JAX, PyTorch, TFDS or Beam are imported, and leave no trace."""

import subprocess
import sys

import pytest

CONFIG = "--config=tiny,stage=1"
RUN = """
import sys
from click.testing import CliRunner
from durian_jax.commands.main import main
result = CliRunner().invoke(main, sys.argv[1:])
heavy = {"jax", "torch", "tensorflow_datasets", "apache_beam", "grain", "orbax"} & set(sys.modules)
print(result.exit_code, sorted(heavy), result.stderr, end="")
"""


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A photo and a video that can be read."""
    import numpy as np

    from durian_jax.video import write_image, write_video

    folder = tmp_path_factory.mktemp("media")
    write_image(folder / "me.png", np.full((64, 64, 3), 90, np.uint8))
    write_video(folder / "talk.mp4", np.full((2, 64, 64, 3), 90, np.uint8), 25)
    return folder


@pytest.mark.parametrize(("arguments", "message"), [
    (["train", CONFIG, "--workdir=w", "--config.init_from=nope"], "no checkpoint 'nope'"),
    (["train", CONFIG, "--workdir=w", "--config.init_from", "empty"], "empty: no complete checkpoint yet"),
    (["train", CONFIG, "--workdir=w", "--config.source.clips=synthetic,nope"], "nope: expected a dataset"),
    (["train", CONFIG, "--workdir=w", "--config.source.samples=nope"], "nope: expected encoded samples"),
    (["train", CONFIG, "--workdir=file/w"], "cannot write into the folder file/w: Not a directory"),
    (["train", CONFIG, "--workdir=gs://bucket/w"], "gs://bucket/w: expected a folder on this machine"),
    (["train", "--config=tinny,stage=1", "--workdir=w"], "did you mean tiny?"),
    (["encode", CONFIG, "--samples=3", "--out=e", "--config.init_from=nope"], "no checkpoint 'nope'"),
    (["plan", CONFIG, "--topology=v5e:3x3"], "--topology v5e:3x3: expected even numbers of chips"),
    (["animate", "-s", "nope.png", "-d", "{media}/talk.mp4", "-o", "new/x.mp4"], "nope.png: no such file"),
    (["animate", "-s", "{media}/me.png", "-d", "nope.mp4", "-o", "new/x.mp4"], "nope.mp4: no such file"),
    (["animate", "-s", "{media}/me.png", "-d", "{media}/talk.mp4", "-o", "new/x.mp4", "--checkpoint", "nope"],
     "no checkpoint 'nope'"),
    (["animate", "-s", "{media}/me.png", "-d", "{media}/talk.mp4", "-o", "new/x.mp4", "--checkpoint", "nope",
      "--backend", "torch"], "expected an export with durian.json, found none"),
    (["reenact", "-s", "{media}/me.png", "-d", "{media}/talk.mp4", "-o", "new/x.mp4", "--checkpoint", "nope"],
     "no checkpoint 'nope'"),
    (["animate", "-s", "{media}/me.png", "-d", "{media}/talk.mp4", "-a", "hair=nope.attr", "-o", "new/x.mp4"],
     "nope.attr: no such file; expected an attribute file"),
    (["attribute", "save", "nope.png", "--kind", "hair", "-o", "new/x.attr"], "nope.png: no such file"),
    (["attribute", "show", "nope.attr"], "nope.attr: no such file"),
    (["verify", "nope"], "expected an export with durian.json, found none"),
    (["export", "--checkpoint", "nope", "--out", "x"], "no checkpoint 'nope'"),
    (["evaluate", "--checkpoint", "nope"], "no checkpoint 'nope'"),
    (["evaluate", "--benchmark", "reconstruction", "--clips", "nope"], "nope: expected a dataset"),
    (["evaluate", "--suite", "pose,nope"], "--suite nope: expected all, or some of extent, pose, light"),
    (["compare", "nope.json", "no.json", "--out", "x.html"], "nope.json is damaged: No such file or directory"),
    (["demo", "--checkpoint", "nope", "--out", "d"], "no checkpoint 'nope'"),
    (["demo", "--reenactment", "nope", "--out", "d"], "no checkpoint 'nope'"),
    (["import", "--out", "x"], "import: expected --unet or --transformer, or --base that has one of them; found none"),
    (["import", "--base", "nope", "--out", "x"], "nope: expected a folder, or a hub id"),
    (["import", "--base", "nobody/nothing", "--vae", "nope", "--out", "x"], "nope: expected a folder, or a hub id"),
    (["prepare", "nope", "--out", "p"], "nope: expected a file, a folder or a glob pattern, found nothing"),
    (["prepare", "https://example.org/a.mp4", "--out", "p"], "found an address; download it first"),
    (["expand", "nope"], "nope: expected a dataset"),
    (["sheet", "nope"], "nope: expected a dataset"),
    (["masks", "export", "nope", "a", "b"], "nope: expected a dataset"),
    (["synthesize", "--out", "file/d"], "cannot write into the folder file/d"),
], ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "")
def test_a_misspelt_name_is_refused_at_once(arguments, message, media, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    done = subprocess.run([sys.executable, "-c", RUN, *(text.format(media=media) for text in arguments)], cwd=tmp_path,
                          capture_output=True, text=True, check=True)
    status, line = done.stdout.split(" [] durian: error: ")
    assert status == "2" and message in line and line.count("\n") == 1, done.stdout
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["checkpoints", "empty", "file"]


@pytest.mark.parametrize(("start", "message"), [
    ([], "stage 1 needs a trained autoencoder (codec), found a fresh one"),
    (["--config.init_from=svdp-tiny"], "init_from=svdp-tiny: expected a model of the family durian, found one of svdp"),
])
def test_a_wrong_start_is_refused_before_the_machinery_of_training_is_imported(start, message, tmp_path):
    """The config needs JAX; Orbax and the data pipelines take as long again."""
    done = subprocess.run([sys.executable, "-c", RUN, "train", CONFIG, "--workdir=w", *start], cwd=tmp_path,
                          capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"2 ['jax'] durian: error: {message}")
    assert done.stdout.count("\n") == 1 and not list(tmp_path.iterdir())
