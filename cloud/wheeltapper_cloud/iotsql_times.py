"""
``parse_time`` and ``time_to_epoch`` of AWS IoT SQL: points in time to text and back, by patterns in Java's notation.

Names of months and days are English. Letters that a pattern may hold but are not here are refused when the rule is read.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

_LONGEST: Final = 256  # of a pattern, and of a text that is to be of it: neighbours in a pattern may share its signs
_PIECE = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|[^A-Za-z']")
_MONTHS: Final = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_DAYS: Final = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_OFFSET = re.compile(r"(?:UTC|GMT|UT)?([+-])([0-9]{1,2}):?([0-9]{2})?")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_Format = Callable[[datetime, int], str]


def _digits(value: Callable[[datetime], int]) -> _Format:
    return lambda moment, count: str(value(moment)).zfill(count)


def _named(names: list[str], place: Callable[[datetime], int]) -> _Format:
    return lambda moment, count: names[place(moment)] if count > 3 else names[place(moment)][:3]


def _year(moment: datetime, count: int) -> str:
    return f"{moment.year % 100:02}" if count == 2 else str(moment.year).zfill(count)


def _month(moment: datetime, count: int) -> str:
    return _named(_MONTHS, lambda when: when.month - 1)(moment, count) if count > 2 else str(moment.month).zfill(count)


def _offset(moment: datetime, count: int) -> str:
    if count > 2:
        return str(moment.tzinfo)
    text = moment.strftime("%z")[:5]
    return text if count == 1 else f"{text[:3]}:{text[3:]}"


_FORMATS: Final[dict[str, _Format]] = {
    "G": lambda _moment, _count: "AD",
    "y": _year,
    "Y": _year,
    "u": _year,
    "x": _digits(lambda moment: moment.isocalendar().year),
    "w": _digits(lambda moment: moment.isocalendar().week),
    "D": _digits(lambda moment: moment.timetuple().tm_yday),
    "M": _month,
    "d": _digits(lambda moment: moment.day),
    "E": _named(_DAYS, datetime.weekday),
    "e": _digits(datetime.isoweekday),
    "a": lambda moment, _count: "AM" if moment.hour < 12 else "PM",
    "H": _digits(lambda moment: moment.hour),
    "k": _digits(lambda moment: moment.hour or 24),
    "K": _digits(lambda moment: moment.hour % 12),
    "h": _digits(lambda moment: moment.hour % 12 or 12),
    "m": _digits(lambda moment: moment.minute),
    "s": _digits(lambda moment: moment.second),
    "S": lambda moment, count: f"{moment.microsecond:06}".ljust(count, "0")[:count],
    "z": lambda moment, _count: moment.tzname() or "",
    "Z": _offset,
}

_TWO: Final = "[0-9]{1,2}"
_ZONE: Final = r"[A-Za-z_]+(?:/[A-Za-z_+\-0-9]+)*(?:[+-][0-9]{1,2}(?::?[0-9]{2})?)?|[+-][0-9]{2}:?[0-9]{2}"
_PATTERNS: Final[dict[str, str]] = {
    **dict.fromkeys("dHkKhms", _TWO),
    **dict.fromkeys("yu", "[0-9]{4}"),
    **dict.fromkeys("XxZ", "Z|[+-][0-9]{2}:?(?:[0-9]{2})?"),
    **dict.fromkeys("VzO", _ZONE),
    "M": _TWO,
    "S": "[0-9]{1,9}",
    "a": "[AaPp][Mm]",
    "E": "[A-Z][a-z]+",
    "G": "AD",
}


def parse_time(pattern: str, time_ms: int, zone: str = "UTC") -> str:
    """
    A point in time as text.

    Raises:
        ValueError: the zone, or a letter of the pattern, is not known, or the time is beyond the calendar.

    >>> parse_time("yyyy.MM.dd G 'at' HH:mm:ss z", 100_000_000, "America/Belize")
    '1970.01.01 AD at 21:46:40 CST'
    """
    moment = (_EPOCH + timedelta(milliseconds=time_ms)).astimezone(_zone(zone))
    return "".join(
        _FORMATS[letter](moment, count) if letter else text for letter, count, text in _pieces(pattern, _FORMATS)
    )


def time_to_epoch(text: str, pattern: str) -> int:
    """
    The milliseconds since the epoch of a point in time; UTC where the text names no zone.

    Raises:
        ValueError: the text is not of the pattern, or there is no such time.

    >>> time_to_epoch("2020-04-03 09:45:18 UTC+01:00", "yyyy-MM-dd HH:mm:ss VV")
    1585903518000
    """
    found = re.fullmatch(_expression(pattern), text) if len(text) <= _LONGEST else None
    if found is None:
        raise ValueError(f"{text[:_LONGEST]!r} is not of the form {pattern!r}")
    read = {name: value for name, value in found.groupdict().items() if value}
    if "y" not in read:
        raise ValueError("names no year")
    year, month, day = int(read["y"]), _month_of(read.get("M", "1")), int(read.get("d", "1"))
    moment = datetime(year + (2000 if len(read["y"]) == 2 else 0), month, day, tzinfo=_zone(read.get("z", "UTC")))
    fraction = int(read.get("S", "0")[:6].ljust(6, "0"))
    moment = moment.replace(
        hour=_hour_of(read), minute=int(read.get("m", "0")), second=int(read.get("s", "0")), microsecond=fraction
    )
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def check_format(pattern: Any) -> None:
    """Raise ValueError where ``parse_time`` cannot use a pattern."""
    _pieces(str(pattern), _FORMATS)


def check_pattern(pattern: Any) -> None:
    """Raise ValueError where ``time_to_epoch`` cannot use a pattern."""
    _expression(str(pattern))


def _pieces(pattern: str, letters: dict[str, Any]) -> list[tuple[str, int, str]]:
    """The letters of a pattern with their number, and between them, the text."""
    if len(pattern) > _LONGEST:
        raise ValueError(f"a pattern of more than {_LONGEST} characters")
    pieces: list[tuple[str, int, str]] = []
    place = 0
    for found in _PIECE.finditer(pattern):
        if found.start() != place:
            break
        place = found.end()
        letter = found[2] or ""
        if letter and letter not in letters:
            raise ValueError(f"the letter {letter} is not supported")
        pieces.append((letter, len(found[0]), found[0] if found[1] is None else found[1].replace("''", "'") or "'"))
    if place != len(pattern):
        raise ValueError("a quote does not end")
    return pieces


def _expression(pattern: str) -> str:
    text = ""
    named: set[str] = set()
    for letter, count, literal in _pieces(pattern, _PATTERNS):
        if not letter:
            text += re.escape(literal)
            continue
        matched = _PATTERNS[letter]
        if letter in "yu" and count == 2:
            matched = "[0-9]{2}"
        elif letter == "M" and count > 2:
            matched = "[A-Z][a-z]+"
        elif letter == "S":
            matched = f"[0-9]{{{count}}}"
        name = {"u": "y", "k": "H", "K": "h", **dict.fromkeys("VzOXxZ", "z")}.get(letter, letter)
        if name in named:
            raise ValueError(f"the letter {letter} comes twice")
        named.add(name)
        text += f"(?P<{name}>{matched})"
    return text


def _month_of(text: str) -> int:
    if text.isdigit():
        return int(text)
    found = [number for number, name in enumerate(_MONTHS, 1) if text in (name, name[:3])]
    if not found:
        raise ValueError(f"{text!r} is no month")
    return found[0]


def _hour_of(read: dict[str, str]) -> int:
    if "h" in read:
        return int(read["h"]) % 12 + (12 if read.get("a", "AM").upper() == "PM" else 0)
    return int(read.get("H", "0")) % 24


def _zone(name: str) -> tzinfo:
    if name in ("UTC", "Z", "GMT", "UT"):
        return UTC
    if found := _OFFSET.fullmatch(name):
        ahead = timedelta(hours=int(found[2]), minutes=int(found[3] or 0))
        return timezone(ahead if found[1] == "+" else -ahead)
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"the zone {name!r} is not known") from error
