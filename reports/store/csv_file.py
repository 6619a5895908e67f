"""A CSV file or a frame as a table of texts that says where each row stands."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from reports.contract.errors import ReportError
from reports.contract.spreadsheet import as_written
from reports.contract.text import NAME_LENGTH, visible
from reports.store.setting_names import is_absent

_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are texts, empty for nothing. ``at`` says where a row stands: ``logs.csv:12``."""

    name: str
    frame: pd.DataFrame = field(repr=False)
    at: Callable[[int], str] = field(repr=False)


def read_csv(path: Path) -> TextTable:
    """Return the table of a CSV file: UTF-8, commas, a header. Empty lines are skipped.

    Raises ReportError, one line with the line of the file, if it is anything else.
    """
    name = visible(str(path), NAME_LENGTH)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ReportError(f"{name}: expected a file, got: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ReportError(f"{name}:{line}: expected UTF-8, got the byte {error.object[error.start]:#04x}.") from error
    records = _records(text, name)
    try:
        line, header = next(records)
    except StopIteration:
        raise ReportError(f"{name}: expected a line with the names of the columns, got an empty file.") from None
    columns = _columns(header, f"{name}:{line}")
    lines, rows = list[int](), list[list[str]]()
    for line, fields in records:
        if len(fields) != len(columns):
            raise ReportError(f"{name}:{line}: expected {len(columns)} values, as in line 1, got {len(fields)}.")
        lines.append(line)
        rows.append(fields)
    if not rows:
        raise ReportError(f"{name}: expected rows below the names of the columns, got none.")
    frame = pd.DataFrame(rows, columns=columns, dtype=object).apply(lambda column: _mapped(column, as_written))
    return TextTable(name, frame, lambda row: f"{name}:{lines[row]}")


def table_of(frame: pd.DataFrame, name: str) -> TextTable:
    """Return the table of a frame; a missing value is an empty text.

    Raises ReportError if the names of its columns are not different texts, or if it has no rows.
    """
    columns = _columns([str(column) for column in frame.columns], name)
    if frame.empty:
        raise ReportError(f"{name}: expected rows, got none.")
    texts = {
        column: ["" if is_absent(value) else str(value) for value in frame.iloc[:, number].tolist()]
        for number, column in enumerate(columns)
    }
    index = list(frame.index)
    return TextTable(name, pd.DataFrame(texts, dtype=object), lambda row: f"{name}, row {index[row]}")


def _records(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record that is not empty with the line at which it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    begins = 1
    try:
        for fields in reader:
            if fields:
                yield begins, fields
            begins = reader.line_num + 1
    except csv.Error as error:
        raise ReportError(f"{name}:{begins}: expected comma-separated values, got: {error}.") from error


def _columns(header: Sequence[str], at: str) -> list[str]:
    """Return the names of the columns. Raises ReportError for none, for equal ones, and for another delimiter."""
    names = [visible(name.strip(), NAME_LENGTH) for name in header]
    if len(names) == 1:
        for character, words in _OTHER_DELIMITERS.items():
            if character in header[0]:
                raise ReportError(f"{at}: expected commas between the columns, got {words}. Save it with commas.")
    for number, name in enumerate(names, 1):
        if not name:
            raise ReportError(
                f"{at}: expected a name for every column, got none for column {number}. An index is left out by "
                "`frame.to_csv(path, index=False)`."
            )
        if name in names[: number - 1]:
            raise ReportError(f"{at}: expected different names of columns, got '{name}' twice.")
    return names


def _mapped(column: pd.Series, change: Callable[[str], str]) -> pd.Series:
    """Return the column with each of its different texts changed once."""
    return column.map({text: change(text) for text in column.unique()})
