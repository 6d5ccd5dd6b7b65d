"""Settings and fixtures of all tests; compiled functions are cached, so that the second run is fast."""

import gc
import os
import sys
from pathlib import Path

import psutil
import pytest

_CACHE = Path(__file__).resolve().parents[1] / ".cache" / "jax"
# Set before jax is imported; programs that the tests start inherit it.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# The tests' networks are so small that compiling takes most of the time.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# Files that take minutes run first, so that both workers are busy until the end.
LONG = ("training/test_sharding.py", "training/test_cluster.py", "colab/test_notebooks.py",
        "evaluation/test_reenactment.py", "training/test_ablations.py", "training/recipes/test_svdp.py",
        "models/svdp/test_model.py", "training/test_loop.py", "pytorch/svdp/test_pipeline.py",
        "models/test_kept_tokens.py", "pytorch/durian/test_pipeline.py", "inference/test_generate.py",
        "pytorch/test_parity.py", "training/test_encode.py", "models/durian/test_model.py", "models/test_parity.py",
        "prepare/test_pipeline.py", "planning/test_plan.py", "planning/test_ahead.py", "expansion/test_dataset.py")

_LARGE_PROCESS = 3 << 30  # bytes; there are two, and the programs that tests start need memory too

PORTRAITS = Path(os.environ.get("DURIAN_PORTRAITS") or Path(__file__).parents[2] / "shared" / "portraits")


def pytest_collection_finish():
    """Exempt imported modules from garbage collection, which tracing triggers often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_collection_modifyitems(items):
    order = {Path(__file__).parent / name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path, len(LONG)))


@pytest.fixture(scope="module", autouse=True)
def _bounded_memory():
    """After a file of tests, drop compiled functions if the process has grown large; they come back from the cache."""
    yield
    if "jax" in sys.modules and psutil.Process().memory_info().rss > _LARGE_PROCESS:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def portraits():
    """The folder of real clips and photos; tests that need it skip without it."""
    if not (PORTRAITS / "clips").is_dir():
        pytest.skip(f"no real portraits in {PORTRAITS}; name their folder in DURIAN_PORTRAITS")
    return PORTRAITS


@pytest.fixture(scope="session")
def annotator():
    """The annotator; tests that need it skip without its models."""
    from durian_jax.annotator import Annotator
    from durian_jax.annotator.files import find_models
    from tests.helpers.tools import require

    require(find_models, "annotator")
    return Annotator()


@pytest.fixture(scope="session")
def records(tmp_path_factory):
    """A few procedural clips of 32 px."""
    from durian_jax.data import synthesize

    folder = tmp_path_factory.mktemp("records")
    synthesize(folder, "train", 12, 4, 32, workers=0)
    return folder
