"""Names of training configs."""

import importlib

import pytest

from durian_jax import configs
from durian_jax.configs import load_config, presets
from durian_jax.errors import InputError

FILE = """
from dataclasses import dataclass
from ml_collections import ConfigDict

@dataclass
class Sizes:
    width: "int" = 7

def get_config(arguments="none"):
    return ConfigDict({"arguments": arguments, "width": Sizes().width})
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Names work in any folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_presets_are_those_of_the_config_files():
    assert "durian" in presets()
    for family, found in presets().items():
        module = importlib.import_module(f"durian_jax.configs.{family}")
        assert list(found) == list(module.PRESETS)
        assert all(found.values()), "every preset is described"


def test_every_preset_is_found_by_its_name():
    for family, found in presets().items():
        for preset in found:
            config = load_config(f"{family}:{preset}")
            assert config == load_config(f"configs/{family}.py:{preset}")
            first = next(name for name, others in presets().items() if preset in others)
            assert load_config(preset) == load_config(f"{first}:{preset}")


def test_options_are_passed_on():
    config = load_config("tiny,stage=2,ablation=single_reference")
    assert config.stage == "2" and config.model.reference_mode == "single"
    config.seed += 1
    assert load_config("tiny,stage=2,ablation=single_reference").seed != config.seed


def test_the_first_family_has_a_shared_name(monkeypatch):
    monkeypatch.setattr(configs, "presets", lambda: {"durian": {"tiny": ""}, "other": {"tiny": "", "huge": ""}})
    assert load_config("tiny").model.image_size == 128
    with pytest.raises(InputError, match="the presets are durian: tiny; other: tiny, huge; did you mean huge?"):
        load_config("hug")


def test_a_file_in_this_folder_takes_precedence(elsewhere):
    (elsewhere / "configs").mkdir()
    (elsewhere / "configs" / "durian.py").write_text(FILE)
    assert load_config("configs/durian.py:tiny").to_dict() == {"arguments": "tiny", "width": 7}
    assert load_config("configs/durian.py").arguments == "none"
    assert load_config(f"{elsewhere}/configs/durian.py:a:b").arguments == "a:b"
    assert load_config("durian:tiny").model.image_size == 128


@pytest.mark.parametrize(("text", "message"), [
    ("tinny,stage=1", "no such preset; the presets are durian: tiny, sd15; svdp: tiny, sd35m; did you mean tiny?"),
    ("sd1.5", "did you mean sd15?"),
    ("durian:sd5,stage=1", "did you mean durian:sd15?"),
    ("durain:tiny", "did you mean durian:tiny?"),
    ("durian", "did you mean durian:tiny?"),
    ("", "name one of them, or a file as FILE.py:PRESET"),
    ("stage=1", "name one of them, or a file as FILE.py:PRESET"),
    ("tiny,ablation=everything", "expected one of no_augmentation"),
    ("tiny,stag=1", "unknown option 'stag'; expected one of .*did you mean stage"),
    ("configs/nope.py:tiny", "no such file, neither in this folder nor in the package"),
    ("broken.py:tiny", r"SyntaxError: .*line 1\)"),
    ("wrong.py:tiny", r"ZeroDivisionError: division by zero \(line 2\)"),
    ("empty.py:tiny", "expected a function get_config"),
    ("other.py:tiny", "expected get_config to return an ml_collections.ConfigDict, found dict"),
])
def test_mistakes_are_one_line(text, message, elsewhere):
    (elsewhere / "broken.py").write_text("def get_config(:\n")
    (elsewhere / "wrong.py").write_text("def get_config(arguments):\n    return 1 / 0\n")
    (elsewhere / "empty.py").write_text("")
    (elsewhere / "other.py").write_text("def get_config(arguments):\n    return {}\n")
    with pytest.raises(InputError, match=message) as error:
        load_config(text)
    assert str(error.value).startswith(f"config {text!r}: ") and "\n" not in str(error.value)
