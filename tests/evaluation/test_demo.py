"""`durian demo` with stand-in models."""

import json

import numpy as np
import pytest

from durian_jax.checkpoints.weights import Checkpoint
from durian_jax.diffusion import Objective
from durian_jax.errors import InputError
from durian_jax.evaluation import demo, demo_reenactment
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.video import read_image, read_video
from tests.commands.runner import durian, options_of
from tests.helpers.evaluation import use_blank_model
from tests.helpers.models import random_params
from tests.helpers.svdp import tiny as tiny_svdp


@pytest.fixture
def batches(monkeypatch):
    return use_blank_model(monkeypatch, demo)


def test_demo_writes_all_its_files(batches, tmp_path):
    result = demo.run_demo(tmp_path / "demo", checkpoint="blank", cases=2, frames=4, reenactment=None)
    written = {path.name for path in (tmp_path / "demo").iterdir()}
    page = (tmp_path / "demo" / "index.html").read_text()
    videos = {name for name in written if name.endswith(".mp4")}
    assert len(videos) == 11 and {"index.html", "report.json", "sheet.png"} <= written
    assert all(f'src="{name}"' in page for name in videos) and 'src="sheet.png"' in page
    content = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert content["seconds"] == result["seconds"] > 0
    assert all(content["summary"][kind]["cases"] == 2 for kind in ATTRIBUTE_KINDS)
    frames, fps = read_video(tmp_path / "demo" / "transfer_hair_0.mp4")
    assert len(frames) == 2 * 4 - 2 and fps == 12.5
    # Two different batch shapes, so that only two functions are compiled.
    assert len({str(shapes) for shapes in batches}) == 2
    assert ["attribute_weights" in shapes for shapes in batches].count(True) == 1
    assert not any(name.startswith("reenact") for name in videos) and content["settings"]["reenactment"] is None


def test_demo_reenacts_people_beside_the_transfers(batches, monkeypatch, tmp_path):
    config = tiny_svdp()
    driven = Checkpoint(config, Objective(schedule="flow", prediction="sample"), random_params(config))
    monkeypatch.setattr(demo_reenactment, "load_checkpoint", {"driven": driven}.get)
    blank = demo.read_description("blank")
    monkeypatch.setattr(demo, "read_description", {"driven": driven.description, "blank": blank}.get)
    without, both = tmp_path / "without", tmp_path / "both"
    demo.run_demo(without, checkpoint="blank", cases=1, frames=4, reenactment=None)
    report = demo.run_demo(both, checkpoint="blank", cases=1, frames=4, reenactment="driven")
    assert report["settings"]["reenactment"] == "driven"
    page = (both / "index.html").read_text()
    videos = {path.name for path in both.glob("reenact_*.mp4")}
    assert len(videos) == 4 and all(f'src="{name}"' in page for name in videos)
    assert "with new hair" in page and len(read_image(both / "sheet.png")) > len(read_image(without / "sheet.png"))
    assert np.ptp(read_video(both / "reenact_3.mp4")[0].astype(int)) > 100
    with pytest.raises(InputError, match="--reenactment: expected a model driven by pixels"):
        demo.run_demo(tmp_path / "wrong", checkpoint="blank", reenactment="blank")


def test_reenactments_can_be_left_out(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(demo, "run_demo", lambda out, **options: asked.append(options["reenactment"]))
    for arguments in ((), ("--reenactment=none",), ("--reenactment=tiny",)):
        assert durian("demo", "--out", tmp_path, *arguments).exit_code == 0
    assert asked == [options_of("demo")["reenactment"].default, None, "tiny"] and asked[0] == "svdp-tiny"
