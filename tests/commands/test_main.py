"""The program as a whole: readable help, and one line and status 2 for a user's mistake."""

import subprocess
import sys
import warnings

import click
import pytest

from durian_jax.commands.main import VERBS, main
from durian_jax.prepare.annotate import UnsureAttribute
from tests.commands.runner import durian

ORDER = ["demo", "animate", "reenact", "check", "timeline", "attribute", "provenance", "train", "plan", "import",
         "encode", "export", "verify", "evaluate", "compare", "prepare", "synthesize", "expand", "sheet", "masks",
         "annotator"]


def test_help_lists_every_verb():
    result = durian("--help")
    assert result.exit_code == 0
    listed = result.output.split("Commands:")[1]
    assert [line.split()[0] for line in listed.splitlines() if line.strip()] == ORDER
    assert "..." not in listed  # no sentence is cut off


@pytest.mark.parametrize("verb", ORDER)
def test_every_verb_explains_itself(verb):
    result = durian(verb, "--help")
    assert result.exit_code == 0 and "Usage: " in result.output
    command = main.get_command(None, verb)
    assert command.name == verb
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help, option.name


def test_help_imports_only_click():
    code = ("import sys; from durian_jax.commands.main import main; main(['--help'], standalone_mode=False); "
            "assert not {'jax', 'numpy', 'ml_collections', 'torch', 'cv2'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_verb_imports_no_other_verb():
    code = ("import sys; from durian_jax.commands.main import main; main(['check', '--help'], standalone_mode=False); "
            "loaded = {name.split('.')[-1] for name in sys.modules if name.startswith('durian_jax.commands.')}; "
            f"assert loaded & set({list(VERBS.values())}) == {{'check'}}, loaded")
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_unknown_verbs_are_refused():
    result = durian("anmate")
    assert result.exit_code == 2 and "No such command 'anmate'" in result.output


@pytest.mark.parametrize("program", [["-m", "durian_jax"], ["-m", "durian_jax.commands.main"]])
def test_exit_status_of_the_program(program, tmp_path):
    result = subprocess.run([sys.executable, *program, "evaluate", "--checkpoint", str(tmp_path / "none")],
                            capture_output=True, text=True)
    assert result.returncode == 2 and result.stdout == ""
    assert "durian: error: no checkpoint" in result.stderr and "Traceback" not in result.stderr


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "durian_jax.annotator.files", None)
    assert isinstance(durian("annotator").exception, ModuleNotFoundError)  # part of this package: a bug
    def install(folder, wheel):
        raise ModuleNotFoundError("No module named 'cv3'", name="cv3")
    files = type(sys)("durian_jax.annotator.files")
    files.install_models = install
    monkeypatch.setitem(sys.modules, "durian_jax.annotator.files", files)
    result = durian("annotator")
    assert result.exit_code == 2 and result.stderr.startswith("durian: error: this needs cv3") and not result.stdout


def test_a_warning_is_one_line_without_the_name_of_its_class(monkeypatch):
    def install(folder, wheel):
        warnings.warn("little evidence\n of hair", UnsureAttribute, stacklevel=2)
        return "models"
    files = type(sys)("durian_jax.annotator.files")
    files.install_models = install
    monkeypatch.setitem(sys.modules, "durian_jax.annotator.files", files)
    before = warnings.showwarning
    result = durian("annotator")
    assert result.exit_code == 0 and result.stderr == "durian: warning: little evidence of hair\n"
    assert warnings.showwarning is before


def test_outputs_are_checked_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for arguments in (("demo", "--out", tmp_path / "file" / "demo"),
                      ("evaluate", "--json", tmp_path / "file" / "x.json"),
                      ("evaluate", "--sheet", tmp_path / "x.tiff"),
                      ("synthesize", "--out", tmp_path / "file" / "records"),
                      ("prepare", tmp_path, "--out", tmp_path / "file" / "records"),
                      ("train", "--config=tiny,stage=1", f"--workdir={tmp_path}/file/run")):
        result = durian(*arguments)
        assert result.exit_code == 2 and result.stderr.startswith("durian: error: "), arguments
