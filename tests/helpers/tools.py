"""Programs that some tests need beside the package."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from durian_jax.errors import InputError


def require(find: Callable[[], Any], name: str) -> Any:
    """Return what `find` finds; without it, the test skips.

    It fails instead if DURIAN_TEST_TOOLS, a list separated by commas, has the name: `make test` installs the tools, so
    there their absence is a fault.
    """
    try:
        return find()
    except InputError as error:
        if name in os.environ.get("DURIAN_TEST_TOOLS", "").split(","):
            raise
        pytest.skip(str(error))
