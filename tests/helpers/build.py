"""A copy of this checkout's files that distributions are built from."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("durian_jax", "benchmarks", "colab", "configs", "docs", "launch", "tests", "setup.py", "pyproject.toml",
           "MANIFEST.in", "README.md", "LICENSE", "constraints.txt", "constraints-newest.txt", "Makefile")


def copy_sources(folder: Path) -> None:
    """Copy what a source distribution holds, so that a build writes nothing into the checkout."""
    for name in SOURCES:
        source, target = ROOT / name, folder / name
        if source.is_dir() and not source.is_symlink():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
