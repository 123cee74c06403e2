"""
Detectors saved a few at a time, so that a restart replays little and no message waits long.

A round saves every detector that changed since the last round began. While it goes on, each detector is saved with the
position it stands at, which may lie behind the position at which the round began, its base. A restart therefore loads what
was saved at or before the base, replays from the base on, and puts each other detector in place when the replay reaches the
position it was saved at; what the replay makes of it before that is without effect.
"""

import sqlite3
from collections.abc import Iterable

import msgspec

from wheeltapper.detector.runtime import Shard
from wheeltapper.journal import Journal
from wheeltapper.judge.types import Deployment

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS detector (model TEXT NOT NULL, key TEXT NOT NULL, position INTEGER NOT NULL, state BLOB,"
    " PRIMARY KEY (model, key)) WITHOUT ROWID"
)

Name = tuple[str, str]


class Base(msgspec.Struct):
    """What holds at the position from which a restart replays: the host's clock and the engine's, inputs, definitions."""

    position: int = 0
    now_ms: int = 0
    engine_ms: int = 0
    inputs: dict[str, list[str]] = {}
    deployments: list[Deployment] = []


class Snapshots:
    """The detectors that have changed and the round that saves them; owned by the judge's thread."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        stored = journal.meta("base")
        self.base = msgspec.json.decode(stored, type=Base) if stored else Base()
        self._changed: dict[Name, None] = {}
        self._round: dict[Name, None] = {}
        self._next_base: Base | None = None
        self._written: list[Name] = []
        self._finished = False
        self._void: dict[str, int] = {}

    @staticmethod
    def prepare(connection: sqlite3.Connection) -> None:
        """Make the table."""
        connection.execute(_SCHEMA)

    @property
    def in_round(self) -> bool:
        """Whether a round is going on."""
        return self._next_base is not None

    def note(self, names: Iterable[Name]) -> None:
        """Remember detectors that have changed (or are gone)."""
        self._changed.update(dict.fromkeys(names))

    def begin(self, base: Base) -> None:
        """Start a round that will make ``base`` the position to replay from."""
        self._next_base = base
        self._round, self._changed = {**self._round, **self._changed}, {}

    def void(self, model: str) -> None:
        """What was saved of a model so far is worth nothing: its detectors are gone or of another version."""
        self._void[model] = self._journal.position

    def write(self, shard: Shard, limit: int | None = None) -> None:
        """Save some of the round's detectors, or all; only within a transaction, followed by ``committed`` or ``undone``."""
        if self._next_base is None:
            return
        self._written = list(self._round)[:limit] if limit is not None else list(self._round)
        position = self._journal.position
        with_state = [(model, key, position, shard.dump(model, key)) for model, key in self._written]
        connection = self._journal.connection
        connection.executemany("DELETE FROM detector WHERE model = ? AND position < ?", self._void.items())
        connection.executemany("INSERT OR REPLACE INTO detector VALUES (?,?,?,?)", with_state)
        self._finished = len(self._written) == len(self._round)
        if self._finished:
            connection.execute(
                "DELETE FROM detector WHERE state IS NULL AND position <= ?", (self._next_base.position,)
            )
            self._journal.set_meta("base", msgspec.json.encode(self._next_base))

    def committed(self) -> None:
        """What ``write`` saved is durable."""
        for name in self._written:
            self._round.pop(name, None)
        self._written = []
        self._void.clear()
        if self._finished and self._next_base is not None:
            self.base, self._next_base, self._finished = self._next_base, None, False

    def undone(self) -> None:
        """What ``write`` saved was rolled back; it is saved again later."""
        self._written, self._finished = [], False

    def saved(self) -> Iterable[tuple[str, str, int, bytes | None]]:
        """Every saved (model, key, position, state), in order of position."""
        with_position = self._journal.reader()
        try:
            yield from with_position.execute("SELECT model, key, position, state FROM detector ORDER BY position")
        finally:
            with_position.close()
