"""Ranges of time that people labelled abnormal, and the rows that they cover."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wheeltapper.errors import DataError
from wheeltapper_models.data import Table
from wheeltapper_models.times import read_time


class Range(NamedTuple):
    """From the first to the last abnormal moment, milliseconds since the epoch, both included."""

    start_ms: int
    end_ms: int


def read_ranges(path: Path) -> list[Range]:
    """
    Read a CSV of ``start,end``, with or without a header, in time order.

    Raises:
        DataError: it cannot be read, a time is none, or a range ends before it starts; says in which line.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as labels: {error}") from error
    delimiter = ";" if text.count(";") > text.count(",") else ","
    ranges = []
    for number, cells in enumerate(csv.reader(text.splitlines(), delimiter=delimiter), start=1):
        if not any(cell.strip() for cell in cells):
            continue
        times = [time for time in map(read_time, cells[:2]) if time is not None]
        if len(times) < 2:
            if number == 1:
                continue  # a header
            raise DataError(f"{path}: line {number}: is not start,end: {','.join(cells)}")
        if times[1] < times[0]:
            raise DataError(f"{path}: line {number}: ends before it starts")
        ranges.append(Range(*times))
    return sorted(ranges)


def labelled_rows(table: Table, ranges: list[Range]) -> NDArray[np.bool_]:
    """
    Which rows lie in a range, shape (rows,).

    Raises:
        DataError: the table has no times.
    """
    if table.time_ms is None:
        raise DataError(f"{table.source}: has no time column, so labels cannot be laid over it; name it: --time-column")
    found = np.zeros(len(table), dtype=bool)
    for start, end in ranges:
        found |= (table.time_ms >= start) & (table.time_ms <= end)
    return found
