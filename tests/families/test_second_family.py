"""Shared rooms know no model family: a second family needs no change of them, and none of them names a family."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from durian_jax.checkpoints.weights import load_checkpoint
from durian_jax.convert.bundle import read_bundle
from durian_jax.convert.exporter import export_checkpoint
from durian_jax.errors import InputError
from durian_jax.evaluation.demo import run_demo
from durian_jax.evaluation.report import evaluate_checkpoint
from durian_jax.inference.animator import Animator
from durian_jax.models.parameters import init_params
from durian_jax.planning.plan import plan
from durian_jax.planning.tpu_compiler import compiler_environment
from durian_jax.synthetic import render, sample_motion, sample_person, still
from durian_jax.training.encode import encode_samples
from durian_jax.training.loop import train
from tests.helpers import toy
from tests.helpers.runs import losses
from tests.helpers.tools import require

ROOT = Path(__file__).parents[2]
# A family's own files, the table of families, and the public name of a family's PyTorch pipeline.
OWN = re.compile(r"(^|/)(durian|svdp)(/|\.py$)|^families\.py$|^torch\.py$")
# Names of families: of the papers, their classes and their modules; not of the project and its program.
NAMES = re.compile(
    r"\bDurian(?!-JAX)(Config|Samples|Pipeline|Job)?\b|\bSVDP|\bSvdp|[\"']svdp[\"']|famil.{0,20}[\"']durian[\"']|"
    r"(models|samples|recipes|inference|families|pytorch|parity|configs)\.(durian|svdp)\b")


@pytest.fixture(scope="module")
def trained(records, tmp_path_factory):
    """Three steps of the second family."""
    toy.register()
    workdir = tmp_path_factory.mktemp("toy")
    train(toy.config(**{"source": {"clips": str(records)}}), workdir)
    return workdir


def test_no_shared_room_names_a_family():
    package = ROOT / "durian_jax"
    found = []
    for path in sorted(package.rglob("*.py")):
        if not OWN.search(path.relative_to(package).as_posix()):
            found += [f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
                      for number, line in enumerate(path.read_text().splitlines(), 1) if NAMES.search(line)]
    assert not found, "\n".join(found)


def test_a_second_family_trains_and_resumes(trained, records, tmp_path):
    config = toy.config(**{"source": {"clips": str(records)}, "total_steps": 2})
    train(config, tmp_path)
    config.total_steps = 3
    train(config, tmp_path)
    assert losses(tmp_path) == losses(trained) and sorted(losses(trained)) == [1, 2, 3]
    assert (trained / "samples" / "0000002.png").is_file()
    after, before = load_checkpoint(trained / "export"), init_params(toy.ToyConfig(), 0)
    assert after.config == toy.ToyConfig()
    moved = {path for path in before if not np.allclose(after.params[path], before[path], atol=2e-3)}
    assert moved and all(path.startswith("painter/") for path in moved)


def test_a_second_family_samples(trained):
    photo, driving = (render(sample_person("validation", i), motion, 32)
                      for i, motion in ((0, still()), (1, sample_motion("validation", 1, 3))))
    animator = Animator(trained / "export")
    whole = animator.animate(photo, [], driving)
    assert whole.shape == (3, 32, 32, 3)
    # Frame by frame, references are computed once; the noise belongs to the frame of the video.
    np.testing.assert_allclose(animator.animate(photo, [], driving, single=True), whole, atol=1)


def test_a_second_family_is_exported(trained, tmp_path):
    folder = export_checkpoint(trained / "export", tmp_path / "out", "fp32")
    found, dtype = read_bundle(folder)
    assert (found.config, dtype) == (toy.ToyConfig(), "fp32")
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"codec", "painter", "scheduler"}


def test_a_second_family_trains_from_encoded_samples(trained, records, tmp_path):
    config = toy.config(**{"source": {"clips": str(records)}, "init_from": str(trained / "export"), "total_steps": 1})
    encode_samples(config, tmp_path / "samples", 4)
    config.source.samples, config.sample_every = str(tmp_path / "samples"), 0
    train(config, tmp_path / "run")
    assert list(losses(tmp_path / "run")) == [1]


@pytest.mark.slow
def test_a_second_family_is_planned():
    require(compiler_environment, "compiler")
    toy.register()
    config = toy.config(batch_size=4)
    config.mesh.data = 4
    found = plan(config, "v5e:2x2", progress=False)
    assert found.fits and found.parameters == sum(x.size for x in init_params(toy.ToyConfig(), 0).values())


def test_what_a_family_lacks_is_refused(trained, tmp_path):
    for refuses in (evaluate_checkpoint, lambda checkpoint: run_demo(tmp_path, checkpoint=checkpoint)):
        with pytest.raises(InputError, match="transfers attributes, found one of the family toy"):
            refuses(trained / "export")
    with pytest.raises(InputError, match="no part 'parity'"):
        toy.families.get_family(toy.NAME).load("parity")


def test_the_run_says_its_family(trained):
    assert json.loads((trained / "config.json").read_text())["family"] == toy.NAME
    assert json.loads((trained / "export" / "config.json").read_text())["model"]["family"] == toy.NAME
