"""Tables that a user writes: CSV with a header, or JSON Lines. They are read row by row, so millions of rows fit."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from durian_jax.errors import InputError, cut, listed
from durian_jax.files import parse_json

TABLE_SUFFIXES = (".csv", ".jsonl")


def read_table(path: Path, required: Sequence[str], optional: Sequence[str]) -> Iterator[tuple[int, dict]]:
    """Yield the number of the line, from 1, and the content of every row.

    Cells of CSV are text without spaces around it. Empty rows are skipped. Cells may be missing at the end of a row.
    Values of JSON Lines have any type.

    Args:
        path: a file of one of `TABLE_SUFFIXES`.
        required: columns that each row has. A JSON object without one of them is refused.
        optional: columns that may be missing.

    Raises:
        InputError: the file is unreadable, a row cannot be parsed, or columns are missing, unknown or repeated.
    """
    if path.is_dir() or not path.exists():
        found = "found a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {found}; expected a table ({', '.join(TABLE_SUFFIXES)})")
    is_csv = path.suffix.lower() == ".csv"
    columns = _Columns(path, required, optional)
    try:
        with path.open(encoding="utf-8-sig", newline="" if is_csv else "\n") as file:
            yield from _csv_rows(file, columns) if is_csv else _json_rows(file, columns)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a table in UTF-8, cannot read it ({error}); check the file") from error


class _Columns:
    """The columns that a table may have, and errors that name a line of it."""

    def __init__(self, path: Path, required: Sequence[str], optional: Sequence[str]):
        self._path, self._required, self._optional = path, tuple(required), tuple(optional)
        self._known = frozenset((*required, *optional))

    def check(self, number: int, columns: Sequence[str]) -> None:
        """Refuse columns that are missing, unknown or repeated."""
        unknown = [name for name in columns if name not in self._known]
        missing = any(name not in columns for name in self._required)
        if unknown or missing or len(set(columns)) < len(columns):
            raise self.error(number, f"expected the column{'s' * (len(self._required) > 1)} "
                             f"{', '.join(self._required)} and optionally {', '.join(self._optional)}, each once; "
                             f"found {'unknown: ' if unknown else ''}{listed(unknown or columns, 8)}")

    def error(self, number: int, words: str) -> InputError:
        return InputError(f"{self._path}, line {number}: {words}")


def _csv_rows(file: TextIO, columns: _Columns) -> Iterator[tuple[int, dict[str, str]]]:
    names: list[str] | None = None
    reader = csv.reader(file, strict=True)
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if names is None:
                names = cells
                columns.check(reader.line_num, names)
            elif len(cells) > len(names):
                raise columns.error(reader.line_num, f"expected at most {len(names)} cells, found {len(cells)}; put "
                                    "quotes around a cell that contains a comma")
            elif any(cells):
                yield reader.line_num, dict(zip(names, cells, strict=False))
    except csv.Error as error:
        raise columns.error(reader.line_num, f"expected a valid row, parsing it failed ({cut(str(error))}); check "
                            "the row") from error


def _json_rows(file: TextIO, columns: _Columns) -> Iterator[tuple[int, dict]]:
    checked: tuple[str, ...] | None = None  # most rows have the columns of the row before
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise columns.error(number, f"expected a valid row, parsing it failed ({cut(str(error))}); check the "
                                "row") from error
        if (names := tuple(row)) != checked:
            columns.check(number, names)
            checked = names
        yield number, row
