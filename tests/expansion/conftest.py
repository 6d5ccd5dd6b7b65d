"""Datasets to expand, and the shipped checkpoint."""

from dataclasses import replace

import pytest

from durian_jax.checkpoints.weights import load_checkpoint
from durian_jax.data import dataset_writer as records
from durian_jax.synthetic import render
from tests.helpers.expansion import SIZE, motion, person
from tests.helpers.faces import clip


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    """Twelve procedural people, four per shard. Copy the folder to change it."""
    folder = tmp_path_factory.mktemp("people")
    records.write_clips(folder, (render(person(index), motion(index), SIZE) for index in range(12)), shard_size=4)
    return folder


@pytest.fixture(scope="session")
def tiny():
    return load_checkpoint("tiny")


@pytest.fixture
def dataset(tmp_path):
    """Five hand-made clips in three shards; the fourth shows no attribute."""
    kinds = [("hair", "glasses"), ("hair", "beard"), ("hair", "hat"), (), ("hair",)]
    clips = [replace(clip(index, kinds=worn), margin=4) for index, worn in enumerate(kinds)]
    records.write_clips(tmp_path / "set", clips, shard_size=2, encoding="jpeg", about={"note": "kept"})
    return tmp_path / "set"
