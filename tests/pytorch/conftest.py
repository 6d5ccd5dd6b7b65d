"""Fixtures of the PyTorch tests: exports of models with random weights."""

import shutil
from functools import cache

import pytest
import torch

from tests.helpers.exports import make_export

# Each pytest worker has about one core. PyTorch's idle threads spin, which made a run of a small model 50 times slower.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """A function: kind of model -> its checkpoint and its export, made once. Tests must not change the files."""
    return cache(lambda kind: make_export(kind, tmp_path_factory.mktemp(kind)))


@pytest.fixture
def export_copy(exported, tmp_path):
    """A copy of the export of "small", for tests that damage it."""
    return shutil.copytree(exported("small")[1], tmp_path / "copy")
