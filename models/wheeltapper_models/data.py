"""
Tables of machine data: CSV with any delimiter, or Parquet, as columns of numbers and text with one time column.

Reading repairs rather than refuses: a cell that is no number is missing, and is counted; a column is text only where most of
its cells are no numbers. CSV needs numpy and the standard library alone.
"""

import csv
import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wheeltapper.delimited import TIME_NAMES, delimiter_of, names_of, number_of, split_lines
from wheeltapper.errors import DataError
from wheeltapper_models.times import read_times

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """
    Rows in order, as columns.

    Args:
        source: the file it came from, for messages.
        names: the columns of numbers.
        values: shape (rows, columns), float64, NaN where missing.
        text: the columns of text, by name.
        time_ms: each row's time, milliseconds since the epoch; None where no column holds times.
        time_text: the time cells as they stood in the file.
        time_column: where they stood.
        sha256: of the file's bytes.
        labelled: True where a row is known to be abnormal; None where nothing is known.
        first_row: the place of the first row in the file, 0-based.
        bad_cells: how many cells were no numbers, by column.
    """

    source: str
    names: tuple[str, ...]
    values: Floats
    text: dict[str, list[str]] = field(default_factory=dict)
    time_ms: NDArray[np.int64] | None = None
    time_text: list[str] = field(default_factory=list)
    time_column: str = ""
    sha256: str = ""
    labelled: NDArray[np.bool_] | None = None
    first_row: int = 0
    bad_cells: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def column(self, name: str) -> Floats:
        """
        One column of numbers, shape (rows,).

        Raises:
            DataError: there is none of that name; lists those there are.
        """
        if name not in self.names:
            kind = "is text, not numbers" if name in self.text else f"is not among {', '.join(self.names)}"
            raise DataError(f"{self.source}: column {name!r} {kind}")
        column: Floats = self.values[:, self.names.index(name)]
        return column

    def select(self, names: Sequence[str]) -> "Table":
        """The same rows with these columns of numbers alone, in this order; text and time stay."""
        columns = [self.column(name) for name in names]
        values = np.stack(columns, axis=1) if columns else np.empty((len(self), 0))
        return replace(self, names=tuple(names), values=values)

    def without(self, names: Sequence[str]) -> "Table":
        """The same rows without these columns, be they numbers, text or absent."""
        table = self.select([name for name in self.names if name not in names])
        return replace(table, text={name: cells for name, cells in self.text.items() if name not in names})

    def rows(self, start: int, stop: int | None = None) -> "Table":
        """Rows ``start`` to ``stop`` (left out), counted from this table's first."""
        stop = len(self) if stop is None else min(stop, len(self))
        start = min(start, stop)
        return replace(
            self,
            values=self.values[start:stop],
            text={name: cells[start:stop] for name, cells in self.text.items()},
            time_ms=None if self.time_ms is None else self.time_ms[start:stop],
            time_text=self.time_text[start:stop],
            labelled=None if self.labelled is None else self.labelled[start:stop],
            first_row=self.first_row + start,
        )

    def pick(self, places: NDArray[np.int64]) -> "Table":
        """The rows at these places, in that order; ``first_row`` loses its meaning."""
        return replace(
            self,
            values=self.values[places],
            text={name: [cells[place] for place in places] for name, cells in self.text.items()},
            time_ms=None if self.time_ms is None else self.time_ms[places],
            time_text=[self.time_text[place] for place in places] if self.time_text else [],
            labelled=None if self.labelled is None else self.labelled[places],
        )

    def with_labels(self, labelled: NDArray[np.bool_]) -> "Table":
        """The same rows, known to be abnormal where ``labelled``."""
        return replace(self, labelled=labelled)


def read_table(path: Path | str, *, time_column: str = "", text_columns: Sequence[str] = ()) -> Table:
    """
    Read a CSV or Parquet file.

    Args:
        path: ``.parquet`` or ``.pq`` is Parquet; everything else is CSV.
        time_column: the column of times; else the one whose name and cells look like it.
        text_columns: columns to keep as text even where they look like numbers.

    Raises:
        DataError: not there, empty, ragged beyond repair, or the time column is missing or no times.
    """
    path = Path(path)
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if path.suffix.lower() in (".parquet", ".pq") or payload[:4] == b"PAR1":
        names, columns = _parquet_columns(path)
    else:
        names, columns = _csv_columns(payload, str(path))
    return _build(str(path), names, columns, time_column, text_columns, hashlib.sha256(payload).hexdigest())


def table_of(columns: dict[str, Sequence[Any]], *, time_column: str = "", source: str = "data") -> Table:
    """
    A table from columns in memory; cells may be numbers, text or None.

    >>> table_of({"t": ["2026-01-01 00:00", "2026-01-01 00:01"], "a": [1, None]}, time_column="t").values
    array([[ 1.],
           [nan]])
    """
    cells = [["" if cell is None else str(cell) for cell in column] for column in columns.values()]
    return _build(source, list(columns), cells, time_column, (), "")


def forward_fill(values: Floats, start: float = np.nan) -> Floats:
    """Missing values take the last one of their column, or ``start`` before the first."""
    rows, columns = values.shape
    last = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(rows)[:, None]), axis=0)
    filled: Floats = np.where(last >= 0, values[np.maximum(last, 0), np.arange(columns)], start)
    return filled


def _build(
    source: str, names: list[str], columns: list[list[str]], time_column: str, text_columns: Sequence[str], sha256: str
) -> Table:
    if not columns or not columns[0]:
        raise DataError(f"{source}: holds no rows")
    if time_column and time_column not in names:
        raise DataError(f"{source}: has no column {time_column!r}; it has {', '.join(names)}")
    time_column, time_ms = _find_times(source, names, columns, time_column)
    numbers: dict[str, Floats] = {}
    text: dict[str, list[str]] = {}
    bad: dict[str, int] = {}
    time_text: list[str] = []
    for name, cells in zip(names, columns, strict=True):
        if name == time_column:
            time_text = cells
            continue
        parsed = None if name in text_columns else _numbers(cells)
        if parsed is None:
            text[name] = cells
            continue
        numbers[name], wrong = parsed
        if wrong:
            bad[name] = wrong
    rows = len(columns[0])
    values = np.stack(list(numbers.values()), axis=1) if numbers else np.empty((rows, 0))
    return Table(source, tuple(numbers), values, text, time_ms, time_text, time_column, sha256, bad_cells=bad)


def _find_times(
    source: str, names: list[str], columns: list[list[str]], time_column: str
) -> tuple[str, NDArray[np.int64] | None]:
    if time_column:
        times = read_times(columns[names.index(time_column)])
        if times is None:
            raise DataError(f"{source}: column {time_column!r} holds no times that can be read")
        return time_column, times
    named = [name for name in names if TIME_NAMES.fullmatch(name.strip())]
    for name in [*named, *names[:1]]:
        cells = columns[names.index(name)]
        if name not in named and _numbers(cells[:200]) is not None:
            continue  # a first column of plain numbers is a sensor or a counter
        times = read_times(cells)
        if times is not None:
            return name, times
    return "", None


def _numbers(cells: list[str]) -> tuple[Floats, int] | None:
    """The cells as numbers and how many are none, or None where most are none."""
    try:  # the quick way: all at once, where missing cells are blank or NaN
        return _finite(np.array([cell or "nan" for cell in cells], dtype=np.str_).astype(np.float64)), 0
    except ValueError:
        pass
    read = [number_of(cell) for cell in cells]
    wrong = sum(number is None for number in read)
    found = np.array([math.nan if number is None else number for number in read])
    present = wrong + int(np.count_nonzero(~np.isnan(found)))
    if present and wrong * 2 > present:
        return None
    return found, wrong


def _finite(values: Floats) -> Floats:
    values[~np.isfinite(values)] = np.nan
    return values


def _csv_columns(payload: bytes, source: str) -> tuple[list[str], list[list[str]]]:
    text = payload.decode("utf-8-sig", errors="replace")
    if payload[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = payload.decode("utf-16")
    lines = [
        line for line in io.StringIO(text, newline="") if line.strip()
    ]  # ends kept, for quoted cells of several lines
    if not lines:
        raise DataError(f"{source}: is empty")
    try:
        parsed = list(split_lines(lines, delimiter_of(lines[:50])))
    except csv.Error as error:
        raise DataError(f"{source}: cannot be read as CSV: {error}") from error
    names, has_header = names_of(parsed[0])
    parsed = parsed[has_header:]
    if not parsed:
        raise DataError(f"{source}: holds a header and no rows")
    width = len(names)
    padding = [""] * width
    columns = zip(*[(row + padding)[:width] if len(row) != width else row for row in parsed], strict=True)
    return names, [list(column) for column in columns]


def _parquet_columns(path: Path) -> tuple[list[str], list[list[str]]]:
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from error
    columns = [["" if cell is None else str(cell) for cell in column.to_pylist()] for column in table.columns]
    return list(table.column_names), columns
