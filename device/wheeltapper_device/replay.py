"""
A recorded file as a source: any delimited text, one row a reading.

Nothing needs to be known of the file: delimiter, header, time column and pace are detected, and each can be told. Rows
stream, so that a file may be larger than memory.
"""

import csv
import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from wheeltapper.delimited import TIME_NAMES, delimiter_of, encoding_of, is_text, names_of, number_of, split_lines
from wheeltapper.errors import DataError, SettingsError
from wheeltapper.messages import RESERVED, UNREADABLE, Value
from wheeltapper.times import read_time
from wheeltapper_device.machines import Fault
from wheeltapper_device.settings import ReplaySettings
from wheeltapper_device.sources import Step

_SAMPLE_LINES = 200
_LIVE_PERIOD_S = 10.0
_LONGEST_PAUSE_S = 5.0
_TOLD = 12
_TIMES_SHARE = 0.9
_FIRST_CALENDAR_MS = 315_532_800_000  # 1980: smaller numbers count from a start, they are no dates
_NAMED_DELIMITERS = {"space": " ", "tab": "\t", "\\t": "\t"}


class Place(msgspec.Struct, frozen=True):
    """Where to go on: the next row of the file, and whether the file began again since."""

    row: int
    looped: bool = False


class Layout(msgspec.Struct, frozen=True):
    """
    How a file is to be read.

    Args:
        encoding: of the text.
        delimiter: between cells; a space stands for any white space.
        header: whether the first line names the columns.
        names: the columns.
        text: the columns whose cells are words.
        time: the place of the column of times; None where there is none.
        period_s: recorded seconds between two rows, the median of the first; None where that cannot be said.
    """

    encoding: str
    delimiter: str
    header: bool
    names: list[str]
    text: frozenset[str]
    time: int | None
    period_s: float | None


class ReplaySource:
    """
    The rows of a file.

    Raises:
        DataError: the file cannot be read, holds no rows, or not the columns that the settings name.
        SettingsError: the settings are not valid.
    """

    def __init__(self, settings: ReplaySettings) -> None:
        if settings.file is None:
            raise SettingsError("replay: names no file; add --replay FILE")
        self._path = settings.file
        self._settings = settings
        self._first, self._last = _row_range(settings.rows)
        self._layout = examine(settings)
        self._columns = self._sent_columns()
        self._place = Place(self._first)
        self._rows = self._open(self._first)
        self._waiting: list[str] | None = None
        self._time_ms: int | None = None
        self.identity = f"replay {self._path.absolute()} {settings.rows} {settings.loop}"

    @property
    def layout(self) -> Layout:
        """What was detected."""
        return self._layout

    def describe(self) -> str:
        """What was detected, for whoever wonders about what is sent."""
        layout = self._layout
        parts = [f"delimiter {layout.delimiter!r}"]
        for kind, wanted in (("sensors", False), ("attributes", True)):
            names = [name for _, name, text in self._columns if text is wanted]
            if names:
                parts.append(f"{kind} {', '.join(names[:_TOLD])}{' …' if len(names) > _TOLD else ''}")
        if layout.time is not None:
            parts.append(f"times in {layout.names[layout.time]}")
        else:
            parts.append("no column of times, so rows carry the present; name it with --time-column, --time-format")
        return f"{self._path}: {'; '.join(parts)}"

    def next(self) -> Step | None:
        cells = self._take()
        if cells is None and self._settings.loop and self._place.row > self._first:
            self._place = Place(self._first, looped=True)
            self._rows = self._open(self._first)
            self._time_ms = None
            cells = self._take()
        if cells is None:
            return None
        self._place = Place(self._place.row + 1, self._place.looped)
        time_ms = self._time_of(cells)
        if time_ms is None and self._time_ms is not None:  # a damaged row: it lies behind the one before
            time_ms = self._time_ms + round((self._layout.period_s or 0.0) * 1000)
        self._time_ms = time_ms
        return Step(self._values(cells), self._pause_s(time_ms), time_ms if self._is_stamp(time_ms) else None)

    def position(self) -> bytes:
        return msgspec.json.encode(self._place)

    def restore(self, position: bytes) -> None:
        try:
            self._place = msgspec.json.decode(position, type=Place)
        except UNREADABLE as error:
            raise SettingsError(f"replay: the saved position cannot be read: {error}") from error
        self._rows = self._open(self._place.row)
        self._waiting = self._time_ms = None

    def begin_fault(self, name: str) -> Fault:
        raise SettingsError(f"replay of {self._path.name}: a recorded file has no fault {name!r} to begin")

    def _take(self) -> list[str] | None:
        cells, self._waiting = self._waiting, None
        return cells if cells is not None else next(self._rows, None)

    def _open(self, row: int) -> Iterator[list[str]]:
        rows = _rows_of(self._path, self._layout.encoding, self._layout.delimiter)
        skipped = row + self._layout.header
        stop = None if self._last is None else self._last + self._layout.header
        return itertools.islice(rows, skipped, stop if stop is None else max(stop, skipped))

    def _sent_columns(self) -> list[tuple[int, str, bool]]:
        layout = self._layout
        unknown = set(self._settings.ignore) - set(layout.names)
        if unknown:
            raise DataError(f"{self._path}: has no column {sorted(unknown)[0]!r}; it has {', '.join(layout.names)}")
        return [
            (place, f"{name}_" if name in RESERVED else name, name in layout.text)
            for place, name in enumerate(layout.names)
            if place != layout.time and name not in self._settings.ignore
        ]

    def _values(self, cells: Sequence[str]) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for place, name, text in self._columns:
            cell = cells[place] if place < len(cells) else ""
            number = number_of(cell)
            if text:
                values[name] = cell.strip() or None
            else:
                values[name] = None if number is None or math.isnan(number) else number
        return values

    def _time_of(self, cells: Sequence[str]) -> int | None:
        place = self._layout.time
        if place is None or place >= len(cells):
            return None
        return read_time(cells[place], self._settings.time_format)

    def _is_stamp(self, time_ms: int | None) -> bool:
        recorded = self._settings.stamps == "recorded" and not self._place.looped
        return recorded and time_ms is not None and time_ms >= _FIRST_CALENDAR_MS

    def _pause_s(self, time_ms: int | None) -> float:
        """Wall seconds from this row to the next; a longer pause in the recording is cut short."""
        if self._settings.rate_hz:
            return 1.0 / self._settings.rate_hz
        period_s, speed = self._layout.period_s, self._settings.speed
        if not speed and (period_s is None or period_s > _LIVE_PERIOD_S):
            return 1.0
        speed = speed or 1.0
        self._waiting = self._take()
        following = self._time_of(self._waiting) if self._waiting is not None else None
        if time_ms is None or following is None or following < time_ms:
            return (period_s or 1.0) / speed
        return min((following - time_ms) / 1000.0 / speed, max(_LONGEST_PAUSE_S, (period_s or 0.0) / speed))


def examine(settings: ReplaySettings) -> Layout:
    """
    Detect how a file is to be read; what the settings say goes first.

    Raises:
        DataError: it cannot be read, holds no rows, or not the time column that the settings name.
    """
    path = settings.file
    if path is None:
        raise SettingsError("replay: names no file")
    encoding = encoding_of(path)
    with path.open(encoding=encoding, errors="replace", newline="") as stream:
        lines = [line for line in itertools.islice(stream, _SAMPLE_LINES) if line.strip()]
    delimiter = _NAMED_DELIMITERS.get(settings.delimiter, settings.delimiter) or delimiter_of(lines)
    if len(delimiter) != 1:
        raise SettingsError(f"replay delimiter {settings.delimiter!r}: must be one character, or space or tab")
    rows = list(split_lines(lines, delimiter))
    if not rows:
        raise DataError(f"{path}: is empty")
    names, header = names_of(rows[0])
    rows = rows[header:]
    if not rows:
        raise DataError(f"{path}: holds a header and no rows")
    columns = {name: [row[place] for row in rows if place < len(row)] for place, name in enumerate(names)}
    time = _time_place(settings, names, columns)
    text = frozenset(name for place, name in enumerate(names) if place != time and is_text(columns[name]))
    times = [] if time is None else [read_time(cell, settings.time_format) for cell in columns[names[time]]]
    return Layout(
        encoding, delimiter, header, names, text, time, _period_s([each for each in times if each is not None])
    )


def _time_place(settings: ReplaySettings, names: list[str], columns: dict[str, list[str]]) -> int | None:
    wanted = settings.time_column
    if wanted == "none":
        return None
    if wanted:
        if wanted not in names:
            raise DataError(f"{settings.file}: has no column {wanted!r}; it has {', '.join(names)}")
        if not _holds_times(columns[wanted], settings.time_format):
            raise DataError(
                f"{settings.file}: column {wanted!r} holds no times; say how they are written: --time-format"
            )
        return names.index(wanted)
    named = [name for name in names if TIME_NAMES.fullmatch(name)]
    for name in [*named, names[0]]:
        numeric = not is_text(columns[name])
        if (name in named or not numeric) and _holds_times(columns[name], settings.time_format):
            return names.index(name)
    return None


def _holds_times(cells: Sequence[str], form: str) -> bool:
    """Whether these are times; a damaged row here and there does not make them words."""
    filled = [cell for cell in cells if cell.strip()]
    times = sum(read_time(cell, form) is not None for cell in filled)
    return times > 0 and times >= _TIMES_SHARE * len(filled)


def _period_s(times_ms: Sequence[int]) -> float | None:
    gaps = [later - earlier for earlier, later in itertools.pairwise(times_ms) if later > earlier]
    return statistics.median(gaps) / 1000.0 if gaps else None


def _row_range(rows: str) -> tuple[int, int | None]:
    first, colon, last = rows.partition(":")
    try:
        start, stop = int(first or 0), int(last) if last else None
    except ValueError:
        start, stop = -1, None
    if start < 0 or (rows and not colon) or (stop is not None and stop <= start):
        raise SettingsError(f"rows {rows!r}: must be first:last with first below last, such as 400: or 0:400")
    return start, stop


def _rows_of(path: Path, encoding: str, delimiter: str) -> Iterator[list[str]]:
    try:
        with path.open(encoding=encoding, errors="replace", newline="") as stream:
            yield from split_lines(stream, delimiter)
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read on: {error}") from error
