"""Damaged and hostile files of every kind that the program reads: one line says what is wrong, or the result is usable.

The slow tests read 1,000 files of all kinds together. To read more:

    DURIAN_HOSTILE_FILES=10000 pytest -n 0 -m slow tests/test_hostile_files.py
"""

import os
import shutil

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.helpers.hostile import KINDS, refused_or_read

QUICK = 12  # files of each kind
LONG = max(1, round(int(os.environ.get("DURIAN_HOSTILE_FILES", "1000")) / len(KINDS)))

_SETTINGS = {"derandomize": True, "database": None, "deadline": None, "phases": (Phase.explicit, Phase.generate),
             "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Folder with good files of a kind, made on first use."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("original")
            KINDS[name].make(made[name])
            assert not refused_or_read(KINDS[name], copied(made[name], tmp_path_factory.mktemp("copy")))
        return made[name]
    return get


def copied(folder, to):
    shutil.copytree(folder, to, dirs_exist_ok=True)
    return to


def read_changed(name, data, original, tmp_path_factory):
    kind = KINDS[name]
    content = data.draw(kind.changed((original / kind.file).read_bytes()))
    folder = copied(original, tmp_path_factory.mktemp("changed"))
    try:
        (folder / kind.file).write_bytes(content)
        refused_or_read(kind, folder)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if not kind.slow])
@given(data=st.data())
@settings(max_examples=QUICK, **_SETTINGS)
def test_changed_files(name, originals, tmp_path_factory, data):
    read_changed(name, data, originals(name), tmp_path_factory)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
@settings(max_examples=LONG, **_SETTINGS)
def test_many_changed_files(name, originals, tmp_path_factory, data):
    read_changed(name, data, originals(name), tmp_path_factory)
