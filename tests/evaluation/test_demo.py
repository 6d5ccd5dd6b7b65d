"""`durian demo` with a stand-in model."""

import json

import pytest

from durian_jax.evaluation import demo
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.video import read_video
from tests.helpers.evaluation import use_blank_model


@pytest.fixture
def batches(monkeypatch):
    return use_blank_model(monkeypatch, demo)


def test_demo_writes_all_its_files(batches, tmp_path):
    result = demo.run_demo(tmp_path / "demo", checkpoint="blank", cases=2, frames=4)
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
