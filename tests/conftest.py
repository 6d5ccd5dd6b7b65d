"""What every test shares: where compiled functions are kept, so that the second run is fast."""

import gc
import os
from pathlib import Path

import pytest

_CACHE = Path(__file__).resolve().parents[1] / ".cache" / "jax"
# Set before jax is imported; programs that the tests start inherit it.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# The networks of the tests are so small that compiling them is most of the time.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# Files that take minutes come first, so that both workers have something to do until the end.
LONG = ("test_sharding", "test_training", "test_cluster", "test_notebooks", "test_plan", "test_pytorch", "test_ablations")

PORTRAITS = Path(os.environ.get("DURIAN_PORTRAITS") or Path(__file__).parents[2] / "shared" / "portraits")


def pytest_collection_finish():
    """What was imported stays: the collector need not look through it whenever a function is traced."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))


@pytest.fixture(scope="session")
def portraits():
    """The folder of real clips and photos; tests that need it skip without it."""
    if not (PORTRAITS / "clips").is_dir():
        pytest.skip(f"no real portraits in {PORTRAITS}; name their folder in DURIAN_PORTRAITS")
    return PORTRAITS


@pytest.fixture(scope="module")
def annotator():
    """A running annotator; tests that need it skip without its environment."""
    from durian_jax.errors import InputError
    from durian_jax.prepare.client import Annotator
    from durian_jax.prepare.environment import find_annotator

    try:
        find_annotator()
    except InputError as error:
        pytest.skip(str(error))
    with Annotator() as running:
        yield running


@pytest.fixture(scope="session")
def records(tmp_path_factory):
    """A few procedural clips of 32 px."""
    from durian_jax.data import synthesize

    folder = tmp_path_factory.mktemp("records")
    synthesize(folder, "train", 12, 4, 32, workers=0)
    return folder
