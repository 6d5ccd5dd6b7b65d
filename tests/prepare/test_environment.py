"""The annotator's environment: an error says how to install it."""

import pytest

from durian_jax.errors import InputError
from durian_jax.prepare.environment import find_annotator


def test_missing_annotator_says_how_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("durian_jax.prepare.environment.FOLDER", "no-such-folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("DURIAN_ANNOTATOR_PYTHON", raising=False)
    with pytest.raises(InputError, match="run `durian annotator`"):
        find_annotator()
    monkeypatch.setenv("DURIAN_ANNOTATOR_PYTHON", str(tmp_path / "python"))
    with pytest.raises(InputError, match="expected a Python executable"):
        find_annotator()
