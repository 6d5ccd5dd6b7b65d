"""Fixture of tests that compile for TPUs."""

import pytest

from durian_jax.planning.tpu_compiler import find_compiler
from tests.helpers.tools import require


@pytest.fixture(scope="session")
def compiler():
    """Tests that need the TPU compiler skip without it."""
    require(find_compiler, "compiler")
