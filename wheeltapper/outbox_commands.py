"""
What an operator does about messages that were set aside: look at them, send them again, give them up.

Works beside the process whose outbox it is; that one notices with the next message it keeps.
"""

import argparse
import contextlib
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from wheeltapper.cli import Commands
from wheeltapper.clock import SystemClock
from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.topics import check_filter, matches

_EXAMPLE = "wheeltapper outbox {0} wheeltapper-data/device\nwheeltapper outbox {0} data --topic 'wt/+/alarm'"


class RefusedEntry(NamedTuple):
    """A message that was set aside; times in ms since the epoch."""

    id: int
    topic: str
    payload: bytes
    time_ms: int
    refused_ms: int
    reason: str


def register(commands: Commands) -> None:
    """Add ``wheeltapper outbox``."""
    group = commands.group("outbox", "messages that the broker refused: show, send again, give up")
    show = group.add(
        "show",
        _show,
        help="list the messages that were set aside because the broker refuses them",
        example=_EXAMPLE.format("show"),
    )
    show.add_argument("--json", action="store_true", help="one JSON object a line, with the payload")
    again = group.add(
        "requeue",
        _requeue,
        help="send what was set aside again, after what waits; do so when the broker's access rules are mended",
        example=_EXAMPLE.format("requeue"),
    )
    given_up = group.add(
        "discard",
        _discard,
        help="delete what was set aside; nobody will receive it",
        example=_EXAMPLE.format("discard"),
    )
    for parser in (show, again, given_up):
        parser.add_argument("data_dir", type=Path, help="the data directory of a device or a gateway")
        parser.add_argument(
            "--topic", default="#", metavar="FILTER", help="only these topics, with + and # (default all)"
        )


def find_outboxes(data_dir: Path) -> list[Path]:
    """
    The outboxes below a data directory, or the one that is named itself.

    Raises:
        SettingsError: there is none.
    """
    candidates = [data_dir] if data_dir.is_file() else sorted(data_dir.rglob("*.db"))
    found = [path for path in candidates if _is_outbox(path)]
    if not found:
        raise SettingsError(f"{data_dir}: holds no outbox; name the data directory of a device or a gateway")
    return found


def read_refused(path: Path, topic_filter: str = "#") -> list[RefusedEntry]:
    """What was set aside, in the order in which it was put."""
    with _opened(path) as connection:
        return _read(connection, topic_filter)


def requeue(path: Path, topic_filter: str = "#") -> int:
    """Let what was set aside wait again, behind all that waits; returns how many messages that were."""
    now_ms = SystemClock().time_ms()
    with _opened(path) as connection:
        entries = _take(connection, topic_filter)
        connection.executemany(
            "INSERT INTO entry (topic, payload, time_ms) VALUES (?, ?, ?)",
            [(entry.topic, entry.payload, now_ms) for entry in entries],
        )
        return len(entries)


def discard(path: Path, topic_filter: str = "#") -> int:
    """Delete what was set aside; returns how many messages that were."""
    with _opened(path) as connection:
        return len(_take(connection, topic_filter))


def _take(connection: sqlite3.Connection, topic_filter: str) -> list[RefusedEntry]:
    entries = _read(connection, topic_filter)
    connection.executemany("DELETE FROM refused WHERE id = ?", [(entry.id,) for entry in entries])
    return entries


def _read(connection: sqlite3.Connection, topic_filter: str) -> list[RefusedEntry]:
    check_filter(topic_filter)
    rows = connection.execute("SELECT id, topic, payload, time_ms, refused_ms, reason FROM refused ORDER BY id")
    return [RefusedEntry(*row) for row in rows if topic_filter == "#" or matches(topic_filter, row[1])]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """One transaction; what is read in it is what is written about."""
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30.0)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise UnavailableError(f"outbox {path}: {error}") from error


def _is_outbox(path: Path) -> bool:
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error:
        return False
    return {"entry", "refused"} <= names


def _show(options: argparse.Namespace) -> int:
    found = [(path, entry) for path in find_outboxes(options.data_dir) for entry in read_refused(path, options.topic)]
    if options.json:
        _print_json(found)
    elif found:
        _print_table(found)
    else:
        print("nothing was set aside")
    return 0


def _print_json(found: Sequence[tuple[Path, RefusedEntry]]) -> None:
    import msgspec

    for path, entry in found:
        told = {"outbox": str(path), **entry._asdict(), "payload": entry.payload.decode("utf-8", "replace")}
        sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")


def _print_table(found: Sequence[tuple[Path, RefusedEntry]]) -> None:
    from datetime import datetime

    from rich.console import Console
    from rich.table import Table

    table = Table("outbox", "message", "topic", "bytes", "set aside", "because", box=None)
    for path, entry in found:
        when = datetime.fromtimestamp(entry.refused_ms / 1000).astimezone()
        table.add_row(
            path.name, str(entry.id), entry.topic, str(len(entry.payload)), f"{when:%Y-%m-%d %H:%M:%S}", entry.reason
        )
    Console().print(table)


def _requeue(options: argparse.Namespace) -> int:
    count = sum(requeue(path, options.topic) for path in find_outboxes(options.data_dir))
    print(f"{count} messages wait to be sent again")
    return 0


def _discard(options: argparse.Namespace) -> int:
    count = sum(discard(path, options.topic) for path in find_outboxes(options.data_dir))
    print(f"{count} messages deleted")
    return 0
