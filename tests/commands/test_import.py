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


def test_a_base_provides_both_parts(given):
    result = durian("import", "--base", "sd", "--vae", "other", "--out", "start")
    assert result.exit_code == 0 and "train it with --config.init_from=start" in result.output
    ((parts, options),) = given
    assert parts == {"unet": "sd", "vae": "other", "motion": None, "image_encoder": None} and options["like"] is None


def test_the_config_may_be_changed(given):
    result = durian("import", "--base", "sd", "--out", "start", "--config=sd15,ablation=no_mask_channel",
                    "--config.model.identity_dim=512")
    assert result.exit_code == 0, result.output
    model = given[0][1]["like"].config
    assert model.identity_dim == 512 and not model.mask_channel


@pytest.mark.parametrize(("arguments", "message"), [
    (["--unet", "sd"], "expected --vae, or --base that has one"),
    (["--base", "sd", "--config", "sd16"], "did you mean sd15?"),
    (["--base", "sd", "--config.seed=3"], "expected a training config, found none"),
])
def test_mistakes_are_named(given, arguments, message):
    result = durian("import", *arguments, "--out", "start")
    assert result.exit_code == 2 and message in result.stderr and not given
