"""The wheel and the source distribution: complete, and usable away from the checkout."""

import ast
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import durian_jax
from tests.helpers.build import copy_sources

ROOT = Path(__file__).parents[1]
# Files of the package that no module imports.
DATA = {".html", ".txt", ".typed", ".json", ".safetensors", ".md"}
TESTED_EXTRAS = ("test", "notebook", "prepare", "torch", "identity", "heic", "provenance")


def described():
    """The keyword arguments of setup.py with literal values."""
    (call,) = (node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text()))
               if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup")
    return {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords
            if keyword.arg in ("python_requires", "install_requires", "extras_require")}


@pytest.mark.parametrize("name, python", [("constraints.txt", "3.11"), ("constraints-newest.txt", "3.13")])
def test_the_tested_versions_are_in_the_range_of_the_package(name, python):
    """So are the versions of all extras that `make test` installs."""
    pins = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
            for pin in (Requirement(line) for line in (ROOT / name).read_text().splitlines() if line[0] != "#")}
    package = described()
    assert python in SpecifierSet(package["python_requires"])
    extras = package["extras_require"]
    for text in package["install_requires"] + sum((extras[extra] for extra in TESTED_EXTRAS), []):
        requirement = Requirement(text)
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, text


def test_make_installs_the_tested_extras():
    assert f"-e '.[{','.join(TESTED_EXTRAS)}]'" in (ROOT / "Makefile").read_text()


def relative_files(folder, suffixes):
    return {path.relative_to(ROOT).as_posix() for path in folder.rglob("*") if path.suffix in suffixes}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(source distribution, wheel), built from a copy of the checkout; the wheel is built from the former."""
    folder = tmp_path_factory.mktemp("build")
    copy_sources(folder / "source")
    # Without isolation nothing is downloaded.
    done = subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", "."],
                          cwd=folder / "source", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (sdist,), (wheel,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """A folder with the installed wheel and nothing else of the project."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
                    "--no-index", "--no-compile", "--target", folder, built[1]], check=True)
    return folder


@pytest.mark.slow
def test_the_wheel_holds_the_whole_package(built):
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
        metadata = next(archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
        scripts = next(archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    expected = relative_files(ROOT / "durian_jax", {".py", *DATA})
    assert {"durian_jax/py.typed", "durian_jax/configs/durian.py", "durian_jax/evaluation/templates/demo.html",
            "durian_jax/checkpoints/tiny/model.safetensors"} <= expected
    assert expected <= names, sorted(expected - names)
    assert not {name for name in names if name.startswith(("tests", "configs", "benchmarks"))}
    assert f"\nVersion: {durian_jax.__version__}\n" in metadata
    assert "durian = durian_jax.commands.main:program" in scripts


@pytest.mark.slow
def test_the_source_distribution_can_run_its_tests(built):
    with tarfile.open(built[0]) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    expected = {"MANIFEST.in", "Makefile", "constraints.txt", "constraints-newest.txt", "pyproject.toml", "setup.py",
                "LICENSE", "README.md", "configs/durian.py", *relative_files(ROOT / "durian_jax", {".py", *DATA}),
                *relative_files(ROOT / "tests", {".py"}), *relative_files(ROOT / "benchmarks", {".py"}),
                *relative_files(ROOT / "colab", {".ipynb"}), *relative_files(ROOT / "docs", {".md", ".json", ".png"}),
                *relative_files(ROOT / "launch", {".sh", ".yaml", ".md"})}
    assert expected <= names, sorted(expected - names)


@pytest.mark.slow
def test_the_installed_package_works_in_another_folder(installed, tmp_path):
    """It finds its presets, checkpoint and config files without the checkout."""
    code = """
import json
import durian_jax
from durian_jax.checkpoints.weights import load_checkpoint
sizes = [durian_jax.load_config(name).model.image_size
         for name in ("tiny,stage=1", "durian:tiny,stage=2", "configs/durian.py:sd15,stage=1")]
print(json.dumps([durian_jax.__file__, sizes, len(load_checkpoint("tiny").params)]))
"""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    origin, sizes, tensors = json.loads(done.stdout)
    assert Path(origin).is_relative_to(installed) and sizes == [128, 128, 512] and tensors
    for arguments, status, text in ((["train", "--help"], 0, "durian:tiny"),
                                    (["train", "--config=tinny,stage=1", "--workdir=run"], 2, "did you mean tiny?")):
        done = subprocess.run([sys.executable, "-m", "durian_jax", *arguments], cwd=tmp_path, env=environment,
                              capture_output=True, text=True)
        assert done.returncode == status and text in done.stdout + done.stderr, done.stderr
    assert not list(tmp_path.iterdir())
