"""The options of verbs that take a training config."""

import pytest

from durian_jax.commands.config_flags import read_config
from durian_jax.configs import load_config
from durian_jax.errors import InputError
from tests.commands.runner import durian


@pytest.mark.parametrize("name", ["tiny,stage=2", "durian:tiny,stage=2", "configs/durian.py:tiny,stage=2"])
def test_overrides_change_fields_of_every_form(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = read_config(name, ["--config.seed=8", "--config.mesh.fsdp", "4", "--config.model.unet.channels=(8,16)",
                                "--config.init_from=a", "--noconfig.frozen_whole", "--config.model.identity_dim=512"])
    assert (config.seed, config.mesh.fsdp, config.init_from, config.frozen_whole) == (8, 4, "a", False)
    assert config.model.unet.channels == (8, 16) and config.model.identity_dim == 512
    unchanged = load_config("tiny,stage=2")
    assert unchanged.seed != 8 and config.stage == unchanged.stage == "2"
    assert config.learning_rate == unchanged.learning_rate


def test_the_program_arguments_of_another_program_do_not_matter(monkeypatch):
    monkeypatch.setattr("sys.argv", ["other", "--config.seed=9"])
    assert read_config("tiny", ["--config.batch_size=3"]).batch_size == 3


@pytest.mark.parametrize(("name", "overrides", "message"), [
    (None, [], "expected a training config, found none; for example --config=tiny,stage=1"),
    ("tiny", ["--config.sed=8"], "the config has no field sed; did you mean seed?"),
    ("tiny", ["--config.model.unet.chanels=8"],
     "the config has no field model.unet.chanels; did you mean model.unet.channels?"),
    ("tiny", ["--config.seed.x=8"], "the config has no field seed.x; seed has no fields"),
    ("tiny", ["--config.mesh.rows=8"], "the config has no field mesh.rows; mesh has data, frames, fsdp, tensor"),
    ("tiny", ["--config.seed=many"], "--config.seed=many: expected a whole number, found 'many'"),
    ("tiny", ["--config.learning_rate=fast"], "--config.learning_rate=fast: expected a number, found 'fast'"),
    ("tiny", ["--config.frozen_whole=maybe"], "--config.frozen_whole=maybe: expected true or false, found 'maybe'"),
    ("tiny", ["--config.mesh.data=x"], "--config.mesh.data=x: expected a whole number, found 'x'"),
    ("tiny", ["--config.mesh=4"], "--config.mesh=4: expected one of its fields, such as --config.mesh.data"),
    ("tiny", ["--config.model.unet.channels=(8,16"], "expected numbers in parentheses, such as (1,2), in quotes"),
    ("tiny", ["--config.seed"], "Missing value for flag --config.seed"),
    ("tiny", ["--sed=8"], "unknown option --sed; a field of the config is changed as in --config.seed=8"),
    ("tiny", ["--conifg.seed=8"], "unknown option --conifg.seed; did you mean --config.FIELD=VALUE?"),
    ("tiny,stage=7", [], "config 'tiny,stage=7': unknown stage '7'; expected one of 1, 2, codec, decoder, joint"),
    ("tiny,stge=1", [], "config 'tiny,stge=1': unknown option 'stge'; expected one of"),
    ("tiny", ["seed=8"], "unexpected seed=8; options begin with two dashes"),
])
def test_mistakes_are_one_line(name, overrides, message):
    with pytest.raises(InputError) as error:
        read_config(name, overrides)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("verb", ["train", "plan", "encode", "import"])
def test_help_explains_the_names_and_lists_the_presets(verb):
    text = durian(verb, "--help").output
    for words in ("tiny,stage=1", "durian:tiny,stage=1", "configs/durian.py:tiny,stage=1", "--config.FIELD=VALUE",
                  "durian:sd15"):
        assert words in text
