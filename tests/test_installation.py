"""Hints name what exists, and versions are compared with what the package requires."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from durian_jax import installation
from durian_jax.errors import InputError
from durian_jax.installation import check_versions, constraints, install_command

ROOT = Path(__file__).parents[1]


def install(folder, requires=(), **address):
    """Write what pip writes about an installed durian-jax."""
    about = folder / "durian_jax-0.1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", "Name: durian-jax", "Version: 0.1.0",
                                               *(f"Requires-Dist: {name}" for name in requires), "", ""]))
    if address:
        (about / "direct_url.json").write_text(json.dumps(address))


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder that this package seems to be installed in."""
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(installation, "_ROOT", folder)
    return folder


def test_a_checkout_is_named_with_its_tested_versions():
    assert shlex.split(install_command("torch")) == ["pip", "install", "-e", f"{ROOT}[torch]", "-c",
                                                     str(ROOT / constraints())]
    assert shlex.split(install_command())[3] == str(ROOT)


@pytest.mark.parametrize("version, name", [((3, 11), "constraints.txt"), ((3, 12), "constraints-newest.txt"),
                                           ((3, 14), "constraints-newest.txt")])
def test_the_python_selects_the_tested_versions(version, name, monkeypatch):
    monkeypatch.setattr(sys, "version_info", version)
    assert constraints() == name and (ROOT / name).is_file()


def test_the_address_of_a_wheel_is_named_while_it_exists(elsewhere, tmp_path):
    wheel = tmp_path / "durian_jax-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"")
    install(elsewhere, url=wheel.as_uri(), archive_info={})
    assert shlex.split(install_command("prepare")) == ["pip", "install", f"durian-jax[prepare] @ {wheel.as_uri()}"]
    wheel.unlink()
    assert shlex.split(install_command("prepare")) == ["pip", "install", f"{wheel.name}[prepare]"]


def test_the_address_of_a_repository_is_named_with_its_commit(elsewhere):
    install(elsewhere, url="https://example.org/durian.git", vcs_info={"vcs": "git", "commit_id": "abc1"})
    assert shlex.split(install_command("heic"))[2] == "durian-jax[heic] @ git+https://example.org/durian.git@abc1"


@pytest.mark.parametrize("installed", [True, False])
def test_without_an_address_the_wheel_is_named(installed, elsewhere, monkeypatch):
    if installed:
        install(elsewhere)
    else:
        monkeypatch.setattr(sys, "path", [str(elsewhere)])
    assert shlex.split(install_command("torch")) == ["pip", "install", "durian_jax-0.1.0-py3-none-any.whl[torch]"]


def test_no_other_file_of_the_package_names_it_in_a_hint():
    """No index has this package. Hints may name packages of others, which run without this package's requirements."""
    for path in (ROOT / "durian_jax").rglob("*.py"):
        if path != Path(installation.__file__):
            named = re.findall(r"pip install ([^\s;,)\"]+)|(durian-jax\[)", path.read_text())
            assert {name or own for name, own in named} <= {"onnxruntime", "pillow-heif"}, path


def test_versions_are_compared_with_the_requirements(elsewhere):
    install(elsewhere, ["numpy>=2", "click>=8.1", 'pytest>=8; extra == "test"', 'not-here; python_version < "3"'])
    assert check_versions().keys() == {"python", "durian-jax", "numpy", "click"}
    assert check_versions(["test"]).keys() == {"python", "durian-jax", "numpy", "click", "pytest"}


def test_missing_and_other_versions_are_named(elsewhere, monkeypatch):
    install(elsewhere, ["numpy<2", 'no-such-package>=1; extra == "torch"'])
    with pytest.raises(InputError, match=r"requires \(numpy<2: found 2\.\S+\); run pip install"):
        check_versions()
    with pytest.raises(InputError, match=r"no-such-package>=1.*: not installed\); run pip install '\S+whl\[torch\]'"):
        check_versions(["torch"])
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(InputError, match="durian-jax is not installed; run pip install"):
        check_versions()


def test_make_asks_before_anything_is_installed():
    """The makefile reads the constraints' name with an interpreter that has no packages."""
    line = re.search(r"^CONSTRAINTS = \$\(shell \$\(BIN\)/python -c '(.*)'\)$", (ROOT / "Makefile").read_text(), re.M)
    done = subprocess.run([sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(ROOT)!r}); {line[1]}"],
                          capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{constraints()}\n", "")
