"""Run every notebook of colab/ with small settings."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]

# A model of each family in the notebook of that name, with small values for the settings cells.
SMALL = {
    "animate": {"tiny": {"FRAMES": 2, "KINDS": ["glasses"]},
                "svdp": {"FRAMES": 2, "KINDS": [], "CHECKPOINT": "svdp-tiny"}},
    "train_tiny": {
        "tiny": {"CLIPS": 4, "STEPS": {"durian": {"codec": 2, "1": 2, "2": 2}}, "SAMPLE_EVERY": 2,
                 "CHANGES": {"batch_size": 1, "warmup_steps": 1, "data_workers": 0, "optimizer": "adamw", "model": {
                     "unet": {"channels": (16,), "heads": (1,), "attention": (True,)}, "keypoint_channels": (8,),
                     "codec": {"encoder_channels": (8, 8), "decoder_channels": (8, 8)}}}},
        "svdp": {"FAMILY": "svdp", "CLIPS": 4, "SAMPLE_EVERY": 2,
                 "STEPS": {"svdp": {"image": 2, "retouch": 2, "video": 2, "history": 2}},
                 "CHANGES": {"batch_size": 1, "warmup_steps": 1, "data_workers": 0, "optimizer": "adamw",
                             "model": {"mmdit": {"width": 128, "layers": 1, "stem_width": 16}}}}},
    "export_to_pytorch": {"tiny": {"FRAMES": 2}},
}


def notebooks():
    return sorted((ROOT / "colab").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("notebook, model", [(notebook, model) for notebook in SMALL for model in SMALL[notebook]])
def test_a_notebook_runs(notebook, model, tmp_path, monkeypatch):
    book = nbformat.read(ROOT / "colab" / f"{notebook}.ipynb", 4)
    assert not any(cell.get("outputs") for cell in book.cells), "expected no outputs; clear them"
    (settings,) = (cell for cell in book.cells if "settings" in cell.metadata.get("tags", ()))
    settings.source += "\n" + "\n".join(f"{name} = {value!r}" for name, value in SMALL[notebook][model].items())
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    NotebookClient(book, timeout=1200, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    videos = [output for cell in book.cells for output in cell.get("outputs", ())
              if "text/html" in output.get("data", {}) and "<video" in output["data"]["text/html"]]
    pictures = [output for cell in book.cells for output in cell.get("outputs", ())
                if "image/png" in output.get("data", {})]
    assert videos or len(pictures) >= 4, "expected a video, or pictures of every stage and of the model"


def test_every_notebook_has_small_settings():
    assert {path.stem for path in notebooks()} == SMALL.keys()
