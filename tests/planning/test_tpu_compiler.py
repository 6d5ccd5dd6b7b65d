"""Location of the TPU compiler."""

import pytest

from durian_jax.errors import InputError
from durian_jax.planning.tpu_compiler import find_compiler, requirement


def test_a_missing_compiler_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    with pytest.raises(InputError, match="durian plan --install"):
        find_compiler()
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(tmp_path / "libtpu.so"))
    with pytest.raises(InputError, match="TPU_LIBRARY_PATH.*expected a file"):
        find_compiler()
    assert requirement().startswith("libtpu==")
