"""
The shelf: alarms that operators have laid aside for a while, or taken out of service until further notice.

An alarm of a detector model is laid here as it is acknowledged: beside the journal, durable at once, and the detector is
not told. What an alarm model says of itself (SNOOZE_DISABLED, DISABLED) follows from the journal; it is written here with
who did it, and again by every replay.
"""

import sqlite3
from collections.abc import Iterable
from typing import Any

from wheeltapper.detector.handle import named_by
from wheeltapper.judge.types import Shelved

SCHEMA = """
CREATE TABLE IF NOT EXISTS shelf (
    model TEXT NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL, sequence INTEGER NOT NULL, since_ms INTEGER NOT NULL,
    until_ms INTEGER, who TEXT NOT NULL, note TEXT NOT NULL, PRIMARY KEY (model, key, state)) WITHOUT ROWID;
"""
COLUMNS = ("model", "key", "state", "sequence", "since_ms", "until_ms", "who", "note")

_PUT = f"INSERT OR REPLACE INTO shelf ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608
# Two statements, since one for either would search the whole model for each of its keys.
_REMOVE_MODEL = "DELETE FROM shelf WHERE model = ? AND sequence < ?"
_REMOVE_KEY = "DELETE FROM shelf WHERE model = ? AND key = ? AND sequence < ?"
_TAKE = "DELETE FROM shelf WHERE model = ? AND key = ? AND state = ?"

Statement = tuple[str, tuple[Any, ...]]


class Shelf:
    """
    What lies there now; owned by the judge's thread.

    Of one detector there lie either single states or, under the empty state, all of them.

    Attributes:
        next_ms: when the next alarm of a detector model comes back by itself; None where none does.
    """

    def __init__(self) -> None:
        self._lying: dict[tuple[str, str], dict[str, Shelved]] = {}
        self.next_ms: int | None = None

    def load(self, connection: sqlite3.Connection) -> None:
        """Find out what lies there."""
        self._lying.clear()
        for entry in read_shelf(connection):
            self._lying.setdefault((entry.handle, entry.key), {})[entry.state] = entry
        self._find_next()

    def of(self, handle: str, key: str) -> list[Shelved]:
        """Everything of one detector or alarm."""
        return list(self._lying.get((handle, key), {}).values())

    def covering(self, handle: str, key: str, state: str) -> Shelved | None:
        """What keeps an alarm state of a detector from operators, if anything does."""
        lying = self._lying.get((handle, key))
        return None if lying is None else lying.get("") or lying.get(state)

    def due(self, now_ms: int) -> list[Shelved]:
        """What comes back now; alarm models see to themselves."""
        if self.next_ms is None or self.next_ms > now_ms:
            return []
        return [entry for entry in self._timed() if (entry.until_ms or 0) <= now_ms]

    def put(self, entry: Shelved) -> None:
        """Lay it there; what it replaces is gone."""
        lying = self._lying.setdefault((entry.handle, entry.key), {})
        if not entry.state:
            lying.clear()
        lying[entry.state] = entry
        self._find_next_beside([entry])

    def remove(self, handle: str, key: str | None, sequence: int) -> None:
        """Take away what a model, or one of its detectors, had there before a place of the journal."""
        names = [(handle, key)] if key is not None else [name for name in self._lying if name[0] == handle]
        gone = [entry for name in names for entry in self.of(*name) if entry.sequence < sequence]
        for entry in gone:
            lying = self._lying[entry.handle, entry.key]
            del lying[entry.state]
            if not lying:
                del self._lying[entry.handle, entry.key]
        self._find_next_beside(gone)

    def _timed(self) -> list[Shelved]:
        return [
            entry
            for lying in self._lying.values()
            for entry in lying.values()
            if entry.kind == "detector" and entry.until_ms is not None
        ]

    def _find_next_beside(self, changed: Iterable[Shelved]) -> None:
        """Alarm models see to their own ends: thousands that an operator disables or enables cost no search."""
        if any(entry.kind == "detector" for entry in changed):
            self._find_next()

    def _find_next(self) -> None:
        self.next_ms = min((entry.until_ms or 0 for entry in self._timed()), default=None)


def putting(entry: Shelved) -> list[Statement]:
    """What writes an entry in place of those that it replaces."""
    row = (
        *(entry.handle, entry.key, entry.state, entry.sequence),
        *(entry.since_ms, entry.until_ms, entry.by, entry.note),
    )
    all_of_it = [] if entry.state else [removing(entry.handle, entry.key, entry.sequence + 1)]
    return [*all_of_it, (_PUT, row)]


def removing(handle: str, key: str | None, sequence: int) -> Statement:
    """What deletes what ``Shelf.remove`` takes away."""
    if key is None:
        return _REMOVE_MODEL, (handle, sequence)
    return _REMOVE_KEY, (handle, key, sequence)


def write(connection: sqlite3.Connection, entry: Shelved) -> None:
    """Write an entry; only within a transaction."""
    for statement, arguments in putting(entry):
        connection.execute(statement, arguments)


def erase(connection: sqlite3.Connection, entries: Iterable[Shelved]) -> None:
    """Delete entries; only within a transaction."""
    connection.executemany(_TAKE, [(entry.handle, entry.key, entry.state) for entry in entries])


def read_shelf(connection: sqlite3.Connection) -> list[Shelved]:
    """Everything that lies there: what comes back soonest first, what is out of service last."""
    rows = connection.execute(
        f"SELECT {', '.join(COLUMNS)} FROM shelf ORDER BY until_ms IS NULL, until_ms, model, key, state"  # noqa: S608 - constants
    )
    return [shelved_of(row) for row in rows]


def shelved_of(row: Iterable[Any]) -> Shelved:
    """What a row of ``COLUMNS`` says."""
    handle, key, state, sequence, since_ms, until_ms, who, note = row
    kind, model = named_by(handle)
    return Shelved(
        kind=kind, model=model, key=key, state=state, since_ms=since_ms, until_ms=until_ms, by=who, note=note,
        sequence=sequence,
    )  # fmt: skip
