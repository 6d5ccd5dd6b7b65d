"""Fixture of tests that compile for TPUs."""

import pytest

from durian_jax.errors import InputError
from durian_jax.planning.tpu_compiler import find_compiler


@pytest.fixture(scope="session")
def compiler():
    """Tests that need the TPU compiler skip without it."""
    try:
        find_compiler()
    except InputError as error:
        pytest.skip(str(error))
