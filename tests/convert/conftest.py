"""Fixtures of the conversion tests: pretrained parts and exports, with random weights."""

import shutil
from functools import cache

import pytest

from tests.helpers.exports import make_export
from tests.helpers.pretrained import write_parts


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory):
    """A folder of pretrained parts. Tests must not change the files."""
    folder = tmp_path_factory.mktemp("pretrained")
    write_parts(folder)
    return folder


@pytest.fixture
def copy(pretrained, tmp_path):
    """A copy of the parts, for tests that damage it."""
    return shutil.copytree(pretrained, tmp_path / "copy")


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """A function: kind of model -> its checkpoint and its export, made once. Tests must not change the files."""
    return cache(lambda kind: make_export(kind, tmp_path_factory.mktemp(kind)))


@pytest.fixture
def export_copy(exported, tmp_path):
    """A copy of the export of "small", for tests that damage it."""
    return shutil.copytree(exported("small")[1], tmp_path / "export")
