"""
Tables for people: one line a row, ages instead of times, cut off only on a terminal, and nothing that a terminal obeys.
"""

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

# Wide enough for every line where nobody looks at it: another program wants the whole of it.
_UNBOUNDED = 100_000
_SHORT = 12
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))

Row = tuple[str, ...]


def table_of(columns: Row, rows: Sequence[Row], empty: str) -> Any:
    """
    What rich shows of rows, or of there being none; columns in which no row says anything are left out.

    Where the terminal is narrow the widest columns give way; short ones, such as ids and ages, stay whole.
    """
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return Text(empty)
    kept = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place in kept:
        widest = max(len(row[place]) for row in (columns, *rows))
        table.add_column(columns[place], no_wrap=widest <= _SHORT, overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(printable(row[place]), no_wrap=True, overflow="ellipsis") for place in kept))
    return table


def show(*parts: Any) -> None:
    """Print tables and texts."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _UNBOUNDED, highlight=False)
    with console.capture() as capture:
        for part in parts:
            console.print(part, markup=False)
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def printable(text: str) -> str:
    """
    The text without what could move a cursor or start a new line: names and values come from devices.

    >>> printable("pump\\x1b[2J")
    'pump�[2J'
    """
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def age(seconds: float) -> str:
    """
    How long something has lasted, in the largest two units that say something.

    >>> [age(each) for each in (0.4, 59, 60, 3_599, 3_600, 5_400, 90_000, 864_000)]
    ['0 s', '59 s', '1 min', '59 min', '1 h', '1 h 30 min', '1 d 1 h', '10 d']
    """
    whole = max(0, int(seconds))
    for place, (length, unit) in enumerate(_UNITS):
        if whole >= length:
            first, rest = divmod(whole, length)
            finer = rest // _UNITS[place + 1][0] if unit != "min" and first < 10 else 0
            return f"{first} {unit}" + (f" {finer} {_UNITS[place + 1][1]}" if finer else "")
    return f"{whole} s"


def moment(time_ms: int) -> str:
    """
    A time as an operator reads it.

    >>> moment(1500)
    '1970-01-01 00:00:01Z'
    """
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def short_ids(ids: Sequence[str], least: int = 6) -> dict[str, str]:
    """
    The shortest ends, of one length, that tell ids apart; ids begin with their time and so begin alike.

    >>> short_ids(["01a2f-77aa01", "01a2f-77ab01"], least=2)
    {'01a2f-77aa01': 'a01', '01a2f-77ab01': 'b01'}
    """
    length = least
    while len({each[-length:] for each in ids}) < len(set(ids)):
        length += 1
    return {each: each[-length:] for each in ids}
