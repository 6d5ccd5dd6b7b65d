"""Tables that a user writes: CSV with a header, or JSON Lines."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from durian_jax.errors import InputError, cut, listed
from durian_jax.files import parse_json

TABLE_SUFFIXES = (".csv", ".jsonl")


def read_table(path: Path, required: Sequence[str], optional: Sequence[str]) -> Iterator[tuple[str, dict]]:
    """Yield the place, such as "jobs.csv, line 3", and the content of every row.

    Cells of CSV are text without spaces around it. Empty rows are skipped. Cells may be missing at the end of a row.
    Values of JSON Lines have any type.

    Args:
        path: a file of one of `TABLE_SUFFIXES`.
        required: columns that each row has. A JSON object without one of them is refused.
        optional: columns that may be missing.

    Raises:
        InputError: the file is unreadable, a row cannot be parsed, or columns are missing, unknown or repeated.
    """
    number = 0
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".csv":
            columns, reader = None, csv.reader(io.StringIO(text), strict=True)
            for cells in reader:
                number, cells = reader.line_num, [cell.strip() for cell in cells]
                if columns is None:
                    columns = cells
                    _check_columns(f"{path}, line {number}", columns, required, optional)
                elif len(cells) > len(columns):
                    raise InputError(f"{path}, line {number}: expected at most {len(columns)} cells, found "
                                     f"{len(cells)}; put quotes around a cell that contains a comma")
                elif any(cells):
                    yield f"{path}, line {number}", dict(zip(columns, cells, strict=False))
        else:
            for number, line in enumerate(text.split("\n"), start=1):
                if line.strip():
                    row = parse_json(line)
                    _check_columns(f"{path}, line {number}", list(row), required, optional)
                    yield f"{path}, line {number}", row
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a table in UTF-8, cannot read it ({error}); check the file") from error
    except (csv.Error, ValueError) as error:
        if isinstance(error, InputError):
            raise
        number += isinstance(error, csv.Error)  # a CSV row is only counted after it has been parsed
        raise InputError(f"{path}, line {number}: expected a valid row, parsing it failed ({cut(str(error))}); check "
                         "the row") from error


def _check_columns(where: str, columns: list[str], required: Sequence[str], optional: Sequence[str]) -> None:
    unknown = [name for name in columns if name not in (*required, *optional)]
    if unknown or not set(required) <= set(columns) or len(set(columns)) < len(columns):
        raise InputError(f"{where}: expected the column{'s' * (len(required) > 1)} {', '.join(required)} and "
                         f"optionally {', '.join(optional)}, each once; found {'unknown: ' if unknown else ''}"
                         f"{listed(unknown or columns, 8)}")
