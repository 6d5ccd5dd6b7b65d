"""`durian import`; tests/convert imports real parts."""

from types import SimpleNamespace

import pytest

from durian_jax.convert import import_files as convert
from tests.commands.runner import durian


@pytest.fixture
def given(monkeypatch):
    """The parts and options of every call of `import_files`, which imports nothing."""
    calls = []

    def import_files(out, parts, **options):
        calls.append((parts, options))
        return SimpleNamespace(image_size=64, max_frames=8)
    monkeypatch.setattr(convert, "import_files", import_files)
    return calls


def test_parts_and_base_are_passed_on(given):
    result = durian("import", "--base", "sd", "--vae", "other", "--out", "start")
    assert result.exit_code == 0 and "train it with --config.init_from=start" in result.output
    ((parts, options),) = given
    assert {name: part for name, part in parts.items() if part is not None} == {"vae": "other"}
    assert options["base"] == "sd" and options["like"] is None


def test_the_config_may_be_changed(given):
    result = durian("import", "--base", "sd", "--out", "start", "--config=sd15,ablation=no_mask_channel",
                    "--config.model.identity_dim=512")
    assert result.exit_code == 0, result.output
    model = given[0][1]["like"].config
    assert model.identity_dim == 512 and not model.mask_channel


@pytest.mark.parametrize(("arguments", "message"), [
    (["--base", "sd", "--config", "sd16"], "did you mean sd15?"),
    (["--base", "sd", "--config.seed=3"], "expected a training config, found none"),
])
def test_mistakes_are_named(given, arguments, message):
    result = durian("import", *arguments, "--out", "start")
    assert result.exit_code == 2 and message in result.stderr and not given
