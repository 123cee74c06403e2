"""Times as people write them, as milliseconds since the epoch; no zone means UTC."""

import re
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from wheeltapper.errors import DataError

_FORMATS = (
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
    "%Y-%m-%d-%H-%M-%S",
    "%Y%m%d%H%M%S",
    "%Y-%m-%d %H",
)
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")
_DURATION = re.compile(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?")


def read_time(cell: str) -> int | None:
    """
    One time, milliseconds since the epoch; None where it is no time.

    Plain numbers are epoch seconds; from 1e11 on, epoch milliseconds.

    >>> read_time("1970-01-01T00:00:01Z"), read_time("1/2/1970 0:00"), read_time("2.5"), read_time("soon")
    (1000, 86400000, 2500, None)
    """
    cell = cell.strip().strip('"')
    if _NUMBER.fullmatch(cell) and not (len(cell) == 14 and cell.startswith(("19", "20"))):
        number = float(cell)
        return round(number if abs(number) >= 1e11 else number * 1000)
    moment = _parse(cell)
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


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


def iso_of(time_ms: int) -> str:
    """
    A time as ISO 8601 in UTC.

    >>> iso_of(1500)
    '1970-01-01T00:00:01.500Z'
    """
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds" if time_ms % 1000 else "seconds").replace("+00:00", "Z")


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


def _parse(cell: str) -> datetime | None:
    try:
        return datetime.fromisoformat(cell)
    except ValueError:
        pass
    for form in _FORMATS:
        try:
            return datetime.strptime(cell, form)
        except ValueError:
            continue
    return None
