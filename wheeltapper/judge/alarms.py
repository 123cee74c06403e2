"""The alarms that stand open or once did, as operators see them: with what keeps them on the shelf."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from wheeltapper.judge import shelf
from wheeltapper.judge.ledger import ALARM_COLUMNS, alarm_record
from wheeltapper.judge.types import AlarmRecord, Shelved

_OF_ALARM = ALARM_COLUMNS.split(", ")
_COLUMNS = ", ".join([*(f"alarm.{name}" for name in _OF_ALARM), *(f"shelf.{name}" for name in shelf.COLUMNS)])
# An alarm model's own shelving is one of its states; who did it an earlier release did not write to the shelf.
SILENT = "(shelf.model IS NOT NULL OR alarm.state = 'SNOOZE_DISABLED')"
FROM = (
    "FROM alarm LEFT JOIN shelf ON alarm.cleared_ms IS NULL AND shelf.model = alarm.model AND shelf.key = alarm.key"
    " AND shelf.state IN ('', alarm.state)"
)
_ORDER = (
    f"alarm.cleared_ms IS NOT NULL, alarm.cleared_ms IS NULL AND {SILENT},"
    " alarm.cleared_ms IS NULL AND alarm.acknowledged_ms IS NOT NULL,"
    " (alarm.cleared_ms IS NULL) * coalesce(alarm.severity, 0) DESC,"
    " CASE WHEN alarm.cleared_ms IS NULL THEN alarm.raised_ms ELSE -alarm.raised_ms END,"
    " CASE WHEN alarm.cleared_ms IS NULL THEN alarm.sequence ELSE -alarm.sequence END"
)
NEWEST = "alarm.raised_ms DESC, alarm.sequence DESC"


def read_alarms(connection: sqlite3.Connection, *, closed: bool = False, limit: int = 1000) -> list[AlarmRecord]:
    """
    Open alarms: first those that nobody has taken up, the most severe and oldest first, last those that are shelved.

    Then, if asked for, closed ones, the newest first.
    """
    return select(connection, "1" if closed else "alarm.cleared_ms IS NULL", (), _ORDER, limit)


def read_alarm(connection: sqlite3.Connection, alarm_id: str) -> AlarmRecord | None:
    """One alarm."""
    found = select(connection, "alarm.id = ?", (alarm_id,), "alarm.id", 1)
    return found[0] if found else None


def waiting(connection: sqlite3.Connection, entry: Shelved) -> list[AlarmRecord]:
    """Open alarms that an entry of the shelf covers and that nobody has taken up."""
    condition = (
        "alarm.cleared_ms IS NULL AND alarm.acknowledged_ms IS NULL AND alarm.model = ? AND alarm.key = ?"
        " AND (? = '' OR alarm.state = ?)"
    )
    arguments = (entry.handle, entry.key, entry.state, entry.state)
    return select(connection, condition, arguments, "alarm.id", -1)


def select(
    connection: sqlite3.Connection, condition: str, arguments: Sequence[Any], order: str, limit: int
) -> list[AlarmRecord]:
    """
    Alarms for which a condition holds; one query, whatever is shelved.

    Args:
        condition, order: SQL over the tables ``alarm`` and ``shelf``.
        arguments: of the condition.
        limit: how many at the most.
    """
    rows = connection.execute(
        f"SELECT {_COLUMNS} {FROM} WHERE {condition} ORDER BY {order} LIMIT ?",
        (*arguments, limit),
    )
    return [_record(row) for row in rows.fetchall()]


def _record(row: tuple[Any, ...]) -> AlarmRecord:
    of_alarm, of_shelf = row[: len(_OF_ALARM)], row[len(_OF_ALARM) :]
    return alarm_record(of_alarm, None if of_shelf[0] is None else shelf.shelved_of(of_shelf))
