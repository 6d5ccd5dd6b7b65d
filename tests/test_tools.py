"""Tests of programs that are missing skip, unless the programs are promised."""

import pytest

from durian_jax.errors import InputError
from tests.helpers.tools import require


def missing():
    """Find nothing."""
    raise InputError("it is not installed")


def test_a_promised_tool_must_be_there(monkeypatch):
    monkeypatch.setenv("DURIAN_TEST_TOOLS", "annotator")
    with pytest.raises(InputError, match="not installed"):
        require(missing, "annotator")
    with pytest.raises(pytest.skip.Exception, match="not installed"):
        require(missing, "compiler")
    monkeypatch.delenv("DURIAN_TEST_TOOLS")
    with pytest.raises(pytest.skip.Exception):
        require(missing, "annotator")
    assert require(lambda: 3, "annotator") == 3
