"""`durian plan`; tests/planning has plans that are compiled."""

import pytest

from durian_jax.planning import plan as planning
from durian_jax.planning import tpu_compiler
from tests.commands.runner import durian


@pytest.fixture
def given(monkeypatch):
    """The arguments of every call of `plan`, which compiles nothing."""
    calls = []
    monkeypatch.setattr(planning, "plan", lambda *arguments, **options: calls.append((arguments, options)))
    monkeypatch.setattr(planning, "describe", lambda found, price: f"described at {price}")
    return calls


def test_options_and_overrides_are_passed_on(given):
    result = durian("plan", "--config=tiny,stage=1", "--topology=v5e:2x2", "--mesh=data=2,fsdp=2", "--batch=4",
                    "--config.remat=full", "--price=1.5")
    assert result.exit_code == 0 and "described at 1.5" in result.output
    (((settings, topology), options),) = given
    assert (settings.batch_size, settings.remat, settings.mesh.fsdp, topology) == (4, "full", 2, "v5e:2x2")
    assert options == {"full": False, "name": "tiny,stage=1"}


def test_the_compiler_is_installed_without_a_config(monkeypatch):
    monkeypatch.setattr(tpu_compiler, "install_compiler", lambda: "installed there")
    result = durian("plan", "--install")
    assert result.exit_code == 0 and result.output == "installed there\n"


@pytest.mark.parametrize(("arguments", "message"), [
    (["--config=tiny"], "needs --topology"),
    (["--config=tiny", "--topology=v5e:2x2", "--search", "--batch=4"], "leave --mesh, --batch and --full out"),
    (["--config=tiny", "--topology=v5e:2x2", "--batch=0"], "--batch"),
    (["--config=tiny", "--topology=v5e:2x2", "--price=0"], "--price"),
    (["--topology=v5e:2x2"], "expected a training config, found none"),
])
def test_mistakes_are_named(given, arguments, message):
    result = durian("plan", *arguments)
    assert result.exit_code == 2 and message in result.stderr and not given
