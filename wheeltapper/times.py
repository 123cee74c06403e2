"""Times as people write them, as milliseconds since the epoch; no zone means UTC."""

import re
from datetime import UTC, datetime

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


def read_time(cell: str, form: str = "") -> int | None:
    """
    One time, milliseconds since the epoch; None where it is no time.

    Args:
        cell: ISO 8601, a usual way to write a date, or a plain number: epoch seconds, from 1e11 on epoch milliseconds.
        form: how it is written instead, in strptime's words.

    >>> read_time("1970-01-01T00:00:01Z"), read_time("1/2/1970 0:00"), read_time("2.5"), read_time("soon")
    (1000, 86400000, 2500, None)
    """
    cell = cell.strip().strip('"')
    if form:
        return _milliseconds(_parse_as(cell, (form,)))
    if _NUMBER.fullmatch(cell) and not (len(cell) == 14 and cell.startswith(("19", "20"))):
        number = float(cell)
        return round(number if abs(number) >= 1e11 else number * 1000)
    try:
        return _milliseconds(datetime.fromisoformat(cell))
    except ValueError:
        return _milliseconds(_parse_as(cell, _FORMATS))


def iso_of(time_ms: int) -> str:
    """
    A time as ISO 8601 in UTC.

    >>> iso_of(1500)
    '1970-01-01T00:00:01.500Z'
    """
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds" if time_ms % 1000 else "seconds").replace("+00:00", "Z")


def _parse_as(cell: str, forms: tuple[str, ...]) -> datetime | None:
    for form in forms:
        try:
            return datetime.strptime(cell, form)
        except ValueError:
            continue
    return None


def _milliseconds(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
