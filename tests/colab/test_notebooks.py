"""The notebooks of colab/: each runs with small settings, installs the package from SOURCE, and stops at a failure."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from durian_jax.versions import __version__
from tests.helpers.build import copy_sources

ROOT = Path(__file__).parents[2]

# A model of each family in the notebook of that name, with small values for the settings cells.
SMALL = {
    "animate": {"tiny": {"FRAMES": 2, "KINDS": ["glasses"]},
                "svdp": {"FRAMES": 2, "KINDS": [], "CHECKPOINT": "svdp-tiny"}},
    "train_tiny": {
        "tiny": {"CLIPS": 4, "STEPS": {"durian": {"codec": 2, "1": 2, "2": 2}}, "LOG_EVERY": 1, "SAMPLE_EVERY": 2,
                 "CHANGES": {"batch_size": 1, "warmup_steps": 1, "data_workers": 0, "optimizer": "adamw", "model": {
                     "unet": {"channels": (16,), "heads": (1,), "attention": (True,)}, "keypoint_channels": (8,),
                     "codec": {"encoder_channels": (8, 8), "decoder_channels": (8, 8)}}}},
        "svdp": {"FAMILY": "svdp", "CLIPS": 4, "LOG_EVERY": 1, "SAMPLE_EVERY": 2,
                 "STEPS": {"svdp": {"image": 2, "retouch": 2, "video": 2, "history": 2}},
                 "CHANGES": {"batch_size": 1, "warmup_steps": 1, "data_workers": 0, "optimizer": "adamw",
                             "model": {"mmdit": {"width": 128, "layers": 1, "stem_width": 16}}}}},
    "export_to_pytorch": {"tiny": {"FRAMES": 2},
                          "svdp": {"FRAMES": 2, "KINDS": [], "CHECKPOINT": "svdp-tiny"}},
}
NOTEBOOKS = sorted(path.stem for path in (ROOT / "colab").glob("*.ipynb"))


def read(notebook):
    return nbformat.read(ROOT / "colab" / f"{notebook}.ipynb", 4)


def code(book):
    """The code cells: SOURCE, the installation, the check of the versions, and the others."""
    return [cell for cell in book.cells if cell.cell_type == "code"]


def run(book, folder):
    NotebookClient(book, timeout=1200, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()


def printed(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


@pytest.fixture
def importable(monkeypatch):
    """This checkout is importable in the kernel, and pip downloads nothing there."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("PIP_NO_INDEX", "1")


@pytest.mark.slow
@pytest.mark.parametrize("notebook, model", [(notebook, model) for notebook in SMALL for model in SMALL[notebook]])
def test_a_notebook_runs(notebook, model, tmp_path, importable):
    book = read(notebook)
    (settings,) = (cell for cell in book.cells if "settings" in cell.metadata.get("tags", ()))
    settings.source += "\n" + "\n".join(f"{name} = {value!r}" for name, value in SMALL[notebook][model].items())
    run(book, tmp_path)
    displayed = [output.data for cell in book.cells for output in cell.get("outputs", ()) if "data" in output]
    videos = sum("<video" in data.get("text/html", "") for data in displayed)
    curves = sum(data.get("text/plain", "").startswith("<Figure") for data in displayed if "image/png" in data)
    if notebook == "train_tiny":
        (stages,) = SMALL[notebook][model]["STEPS"].values()
        assert curves == len(stages)
        assert sum("image/png" in data for data in displayed) >= 2 * len(stages)
    assert videos >= (notebook != "train_tiny" or model == "svdp")
    assert f"durian-jax {__version__}\n" in printed(code(book)[2])


def test_every_notebook_has_small_settings():
    assert set(NOTEBOOKS) == SMALL.keys()


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_notebooks_are_plain_python_without_outputs(notebook):
    """Jupyter goes on after a `!` command that fails; Python code raises."""
    book = read(notebook)
    nbformat.validate(book)
    for cell in code(book):
        ast.parse(cell.source)
        assert not cell.outputs and cell.execution_count is None, "expected no outputs; clear them"


def test_all_install_in_the_same_way():
    """The cells differ in their extras only; one field says where the package comes from."""
    assert {code(read(notebook))[0].source for notebook in NOTEBOOKS} == {'SOURCE = ""  # @param {type: "string"}'}
    cells = [code(read(notebook))[1].source.splitlines() for notebook in NOTEBOOKS]
    extras = [next(line for line in cell if line.startswith("EXTRAS = ")) for cell in cells]
    assert dict(zip(NOTEBOOKS, extras, strict=True)) == {
        "animate": "EXTRAS = []", "export_to_pytorch": 'EXTRAS = ["torch"]', "train_tiny": 'EXTRAS = ["notebook"]'}
    assert len({tuple(line for line in cell if line not in extras) for cell in cells}) == 1


def test_every_notebook_has_a_badge_without_an_owner():
    for notebook in NOTEBOOKS:
        assert "colab-badge.svg)](https://colab.research.google.com/github/)" in read(notebook).cells[0].source
        assert "OWNER" not in (ROOT / "colab" / f"{notebook}.ipynb").read_text()


@pytest.mark.parametrize("source, before, reason, pip", [
    ("'no/such/folder'", "", "SOURCE = 'no/such/folder': no such file or folder", False),
    ("'damaged.whl'", "open('damaged.whl', 'w').close()", "pip could not install SOURCE = 'damaged.whl'", True),
    ("''", "loaded = {'numpy': '0.1'}", "restart the session", False),
    ("''", "import sys; sys.version_info = (3, 10)", "expected Python 3.11 to 3.14", False),
], ids=("nothing", "pip", "restart", "python"))
def test_a_failed_installation_stops_the_notebook(source, before, reason, pip, tmp_path, importable):
    book = read("animate")
    cells = code(book)
    cells[0].source = f"{before}\nSOURCE = {source}"
    with pytest.raises(CellExecutionError, match=f"Stopped: .*{reason}") as caught:
        run(book, tmp_path)
    assert "Traceback" not in str(caught.value) and ("ERROR: " in printed(cells[1])) == pip
    assert {cell.execution_count for cell in cells[2:]} == {None}


@pytest.mark.slow
def test_a_notebook_installs_a_wheel_or_a_checkout(tmp_path, monkeypatch):
    """The kernel has the dependencies; the package itself comes from SOURCE."""
    checkout, installed = tmp_path / "source", tmp_path / "installed"
    copy_sources(checkout)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation",
                    "--wheel-dir", tmp_path, checkout], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    for name, value in {"PYTHONPATH": installed, "PIP_TARGET": installed, "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1",
                        "PIP_NO_BUILD_ISOLATION": "0", "PIP_UPGRADE": "1"}.items():  # "0" disables the isolation
        monkeypatch.setenv(name, str(value))
    for source in (wheel, checkout):
        book = read("animate")
        book.cells = code(book)[:3]
        book.cells[0].source = f"SOURCE = {str(source)!r}"
        book.cells[2].source += ("\nimport durian_jax\nfrom durian_jax.installation import install_command"
                                 "\nprint(install_command('torch'), durian_jax.__file__)")
        run(book, tmp_path)
        assert "Successfully installed durian-jax" in printed(book.cells[1])
        assert f"pip install 'durian-jax[torch] @ {source.as_uri()}' {installed}/" in printed(book.cells[2])
