"""Run every notebook of colab/ with small settings."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]

# Small values for the settings cells.
SMALL = {
    "animate": {"FRAMES": 2, "KINDS": ["glasses"]},
    "train_tiny": {"CLIPS": 4, "STEPS": {"codec": 2, "1": 2, "2": 2}, "SAMPLE_EVERY": 2,
                   "CHANGES": {"batch_size": 1, "warmup_steps": 1, "data_workers": 0, "optimizer": "adamw", "model": {
                       "unet": {"channels": (16,), "heads": (1,), "attention": (True,)}, "keypoint_channels": (8,),
                       "codec": {"encoder_channels": (8, 8), "decoder_channels": (8, 8)}}}},
    "export_to_pytorch": {"FRAMES": 2},
}


def notebooks():
    return sorted((ROOT / "colab").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    book = nbformat.read(path, 4)
    assert not any(cell.get("outputs") for cell in book.cells), "expected no outputs; clear them"
    (settings,) = (cell for cell in book.cells if "settings" in cell.metadata.get("tags", ()))
    settings.source += "\n" + "\n".join(f"{name} = {value!r}" for name, value in SMALL[path.stem].items())
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    NotebookClient(book, timeout=1200, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    videos = [output for cell in book.cells for output in cell.get("outputs", ())
              if "text/html" in output.get("data", {}) and "<video" in output["data"]["text/html"]]
    pictures = [output for cell in book.cells for output in cell.get("outputs", ())
                if "image/png" in output.get("data", {})]
    assert videos or len(pictures) >= 4, "expected a video, or pictures of every stage and of the model"


def test_every_notebook_has_small_settings():
    assert {path.stem for path in notebooks()} == SMALL.keys()
