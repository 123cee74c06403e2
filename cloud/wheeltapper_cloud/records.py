"""
What the judge has written down, read beside it: alarms that are over, and counts for whoever watches the companion.

``judge.db`` may be read while the judge writes (see docs/durability.md); each question has a connection of its own.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from wheeltapper.detector.handle import handle_of
from wheeltapper.errors import UnavailableError
from wheeltapper.journal import open_reader
from wheeltapper.judge import AlarmRecord, Judge, alarms
from wheeltapper.judge.host import DATABASE

T = TypeVar("T")


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """
    What waits for people.

    Attributes:
        open, unacknowledged: alarms; of the latter those that are shelved or out of service do not count.
        failed, undelivered: actions that nobody has replayed.
        oldest_pending_ms: since when an action waits; None where none does.
    """

    open: int
    unacknowledged: int
    failed: int
    undelivered: int
    oldest_pending_ms: int | None


class Records:
    """Reads one judge's tables; safe from any thread."""

    def __init__(self, judge: Judge, data_dir: Path) -> None:
        self._judge = judge
        self._path = data_dir / DATABASE

    def over(self, limit: int) -> list[AlarmRecord]:
        """Alarms that are over, the newest first."""
        return self._alarms("alarm.cleared_ms IS NOT NULL", (), limit)

    def of(self, machine: str, model: str, limit: int) -> list[AlarmRecord]:
        """
        What befell one machine, the newest first, open alarms included.

        Args:
            machine: a detector's key, or the thing that its alarms name.
            model: of models of this name only; of every model where it is empty.
            limit: how many at the most.
        """
        thing = "json_extract(CAST(alarm.body AS TEXT), '$.thing')"
        handles = (handle_of("detector", model), handle_of("alarm", model))
        return self._alarms(
            f"(alarm.key = ? OR {thing} = ?) AND (? = '' OR alarm.model IN (?, ?))",
            (machine, machine, model, *handles),
            limit,
        )

    def counts(self) -> Counts:
        """
        Count what waits, without waiting for the judge.

        Raises:
            UnavailableError: the tables cannot be read now.
        """
        return self._read(_counted)

    def _alarms(self, condition: str, arguments: tuple[Any, ...], limit: int) -> list[AlarmRecord]:
        self._judge.raised_alarms(limit=1)  # has what the judge still holds in memory written first
        return self._read(lambda connection: alarms.select(connection, condition, arguments, alarms.NEWEST, limit))

    def _read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with closing(open_reader(self._path)) as connection:
                return function(connection)
        except sqlite3.Error as error:
            raise UnavailableError(f"{DATABASE}: cannot be read now: {error}") from error


def _counted(connection: sqlite3.Connection) -> Counts:
    (opened, nobodys) = connection.execute(
        f"SELECT count(*), count(*) FILTER (WHERE alarm.acknowledged_ms IS NULL AND NOT {alarms.SILENT})"
        f" {alarms.FROM} WHERE alarm.cleared_ms IS NULL"
    ).fetchone()
    statuses = dict(
        connection.execute("SELECT status, count(*) FROM action WHERE status <> 'delivered' GROUP BY status").fetchall()
    )
    (oldest,) = connection.execute(
        "SELECT min(time_ms) FROM action WHERE status <> 'delivered' AND status = 'pending'"
    ).fetchone()
    return Counts(
        open=opened,
        unacknowledged=nobodys,
        failed=statuses.get("failed", 0),
        undelivered=statuses.get("undelivered", 0),
        oldest_pending_ms=oldest,
    )
