"""Sections of Markdown pages that benchmarks write."""

from collections.abc import Sequence
from pathlib import Path

from durian_jax.files import write_text


def replace_section(page: str, heading: str, text: str) -> str:
    """Replace the section of a Markdown page below the heading; append the section if it is missing."""
    before, _, rest = f"\n{page}".partition(f"\n## {heading}\n")
    after = rest[rest.find("\n## ") + 1:] if "\n## " in rest else ""
    return f"{before.strip()}\n\n## {heading}\n\n{text.rstrip()}\n".lstrip() + (f"\n{after}" if after else "")


def write_section(path: Path, heading: str, lines: Sequence[str]) -> None:
    """Write a section (`replace_section`) into a file; a missing file counts as empty."""
    page = path.read_text(encoding="utf-8") if path.exists() else ""
    write_text(path, replace_section(page, heading, "\n".join(lines)))
