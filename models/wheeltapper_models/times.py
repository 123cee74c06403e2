"""Columns of times, and durations; how one time is written is the core's to know."""

import re

import numpy as np
from numpy.typing import NDArray

from wheeltapper.errors import DataError
from wheeltapper.times import iso_of, read_time

__all__ = ["iso_of", "read_duration_ms", "read_time", "read_times"]

_DURATION = re.compile(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?")


def read_times(cells: list[str]) -> NDArray[np.int64] | None:
    """The times of a column, or None where a cell is no time; an empty cell takes the time before it."""
    found = np.empty(len(cells), dtype=np.int64)
    last: int | None = None
    for place, cell in enumerate(cells):
        time = read_time(cell) if cell.strip() else last
        if time is None:
            return None
        found[place] = last = time
    return found


def read_duration_ms(text: str) -> int:
    """
    An ISO 8601 duration of hours, minutes and seconds.

    Raises:
        DataError: it is none, or is zero.

    >>> read_duration_ms("PT5M")
    300000
    """
    match = _DURATION.fullmatch(text)
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    duration = ((hours * 60 + minutes) * 60 + seconds) * 1000
    if not duration:
        raise DataError(f"{text!r}: is no duration; write it as PT1S, PT5M or PT1H")
    return duration
