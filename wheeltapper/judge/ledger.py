"""
What became of every action, which alarms are open, and who did what: the tables operators look at.

Writes are collected in memory and go into the next transaction of the journal. All of them can be repeated: a replay after
a crash inserts what is missing and leaves alone what is there.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from wheeltapper.detector.handle import named_by
from wheeltapper.judge import shelf
from wheeltapper.judge.types import Action, ActionRecord, ActionStatus, AlarmRecord, AuditRecord, Shelved

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS action (
    id TEXT PRIMARY KEY, position INTEGER NOT NULL, time_ms INTEGER NOT NULL, model TEXT NOT NULL, key TEXT NOT NULL,
    type TEXT NOT NULL,
    target TEXT NOT NULL, body BLOB NOT NULL, status TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
    settled_ms INTEGER, detail TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS action_open ON action(time_ms, id) WHERE status <> 'delivered';
CREATE INDEX IF NOT EXISTS action_age ON action(time_ms);
CREATE INDEX IF NOT EXISTS action_news ON action(position) WHERE type = 'publish';
CREATE TABLE IF NOT EXISTS alarm (
    id TEXT PRIMARY KEY, sequence INTEGER NOT NULL, model TEXT NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL,
    severity INTEGER, raised_ms INTEGER NOT NULL, cleared_ms INTEGER, body BLOB NOT NULL, acknowledged_ms INTEGER,
    acknowledged_by TEXT NOT NULL DEFAULT '', note TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS alarm_open ON alarm(model, key) WHERE cleared_ms IS NULL;
CREATE INDEX IF NOT EXISTS alarm_age ON alarm(raised_ms);
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, model TEXT NOT NULL,
    key TEXT NOT NULL, note TEXT NOT NULL, kind TEXT NOT NULL DEFAULT '', until_ms INTEGER);
{shelf.SCHEMA}"""
# Columns that databases of earlier releases lack.
_LATER_COLUMNS = {"audit": {"kind": "TEXT NOT NULL DEFAULT ''", "until_ms": "INTEGER"}}

_ACTION_COLUMNS = "body, status, attempts, settled_ms, detail"
# An alarm's ``model`` is a handle; ``alarm_record`` takes it apart.
ALARM_COLUMNS = (
    "id, sequence, model, key, state, severity, raised_ms, cleared_ms, body, acknowledged_ms, acknowledged_by, note"
)

_INSERT_ACTION = (
    "INSERT INTO action (id, position, time_ms, model, key, type, target, body, status, attempts, settled_ms, detail)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET status=excluded.status, attempts=excluded.attempts,"
    " settled_ms=excluded.settled_ms, detail=excluded.detail"
    " WHERE excluded.status <> 'pending' OR (action.status = 'pending' AND excluded.attempts > action.attempts)"
)
# What is settled stays as it is until it is reopened.
_SETTLE_ACTION = "UPDATE action SET status=?, attempts=?, settled_ms=?, detail=? WHERE id=? AND status='pending'"
_PRUNE_NEWS = (
    "DELETE FROM action WHERE id IN (SELECT id FROM action WHERE type = 'publish' AND position <= ?"
    " AND status = 'delivered' ORDER BY position LIMIT ?)"
)
_PRUNE_ROWS = 100
_AUDIT_COLUMNS = AuditRecord.__struct_fields__

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Action)


class Ledger:
    """The pending writes; owned by the judge's thread."""

    def __init__(self) -> None:
        self.shelf = shelf.Shelf()
        self._actions: dict[str, tuple[Any, ...]] = {}
        self._outcomes: dict[str, tuple[Any, ...]] = {}
        self._writes: list[tuple[str, tuple[Any, ...]]] = []
        self._alarming: set[tuple[str, str]] = set()
        self._moved: dict[tuple[str, str], int] = {}
        self._told_until = 0
        self._pruning = self._pruned_all = False
        self._open: Counter[str] = Counter()
        self._miscounted: Counter[str] = Counter()

    @staticmethod
    def prepare(connection: sqlite3.Connection) -> None:
        """Make the tables, and the columns that an earlier release did not have."""
        for statement in filter(str.strip, _SCHEMA.split(";")):
            connection.execute(statement)
        for table, columns in _LATER_COLUMNS.items():
            there = {name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")}
            for name in columns.keys() - there:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {columns[name]}")

    @property
    def waiting(self) -> int:
        """Writes that no transaction holds yet; one where there is only something to forget."""
        return len(self._actions) + len(self._outcomes) + len(self._writes) or int(self._pruning)

    def flush(self, connection: sqlite3.Connection) -> None:
        """Write what is waiting, and forget some of what is to be pruned; it is done with only by ``committed``."""
        connection.executemany(_INSERT_ACTION, self._actions.values())
        self._settle(connection)
        for statement, arguments in self._writes:
            if statement:
                connection.execute(statement, arguments)
        if self._pruning:
            limit = 2 * len(self._actions) + _PRUNE_ROWS
            self._pruned_all = connection.execute(_PRUNE_NEWS, (self._told_until, limit)).rowcount < limit

    def _settle(self, connection: sqlite3.Connection) -> None:
        """Write outcomes; those that met no pending action were counted for nothing."""
        self._miscounted.clear()
        by_status: dict[str, list[tuple[Any, ...]]] = {}
        for action_id, outcome in self._outcomes.items():
            by_status.setdefault(outcome[0], []).append((*outcome, action_id))
        for status, outcomes in by_status.items():
            settled = connection.executemany(_SETTLE_ACTION, outcomes).rowcount
            self._miscounted[status] += len(outcomes) - settled
            self._miscounted["pending"] -= len(outcomes) - settled

    def committed(self) -> None:
        """Forget what the last flush wrote."""
        self._open.subtract(self._miscounted)
        self._miscounted.clear()
        self._actions.clear()
        self._outcomes.clear()
        self._writes.clear()
        self._moved.clear()
        self._pruning = self._pruning and not self._pruned_all

    def load(self, connection: sqlite3.Connection) -> None:
        """Find out what is open and what is shelved, kept up by what is written: actions, detectors in alarm, the shelf."""
        self._open = Counter(
            dict(connection.execute("SELECT status, count(*) FROM action WHERE status <> 'delivered' GROUP BY status"))
        )
        self.shelf.load(connection)
        self._alarming |= set(connection.execute("SELECT DISTINCT model, key FROM alarm WHERE cleared_ms IS NULL"))

    def count(self, status: ActionStatus) -> int:
        """How many actions have a status other than delivered."""
        return max(self._open[status], 0)

    def add_action(self, action: Action, position: int = 0) -> None:
        """Record an action that a row of the journal caused as pending, unless it is known."""
        self._open["pending"] += 1
        self._actions[action.id] = _action_row(action, position)

    def settle_action(self, action_id: str, status: ActionStatus, attempts: int, at_ms: int, detail: str) -> None:
        """Record what became of a pending action; of one that is settled, nothing."""
        outcome = (status, attempts, at_ms, detail[:1000])
        row, earlier = self._actions.get(action_id), self._outcomes.get(action_id)
        if (row is not None and row[-4] != "pending") or (earlier is not None and earlier[0] != "pending"):
            return
        if row is None:
            self._outcomes[action_id] = outcome
        else:
            self._actions[action_id] = (*row[: -len(outcome)], *outcome)
        self._open["pending"] -= 1
        self._open[status] += 1

    def raise_alarm(self, record: AlarmRecord) -> None:
        """Record an alarm as open, unless it is known."""
        self._alarming.add((record.handle, record.key))
        self._write(
            "INSERT OR IGNORE INTO alarm (id, sequence, model, key, state, severity, raised_ms, body)"
            " VALUES (?,?,?,?,?,?,?,?)",
            (
                record.id,
                record.sequence,
                record.handle,
                record.key,
                record.state,
                record.severity,
                record.raised_ms,
                bytes(record.body),
            ),
        )

    def move_alarm(self, handle: str, key: str, state: str, sequence: int) -> None:
        """Note the state that open alarms of a detector are in now; a note not yet written that this one outdates is not."""
        if (handle, key) not in self._alarming:
            return
        place = self._moved.pop((handle, key), None)
        if place is not None:
            self._writes[place] = ("", ())
        self._moved[handle, key] = len(self._writes)
        self._write(
            "UPDATE alarm SET state=? WHERE model=? AND key=? AND cleared_ms IS NULL AND sequence < ?",
            (state, handle, key, sequence),
        )

    def clear_alarms(self, handle: str, key: str | None, sequence: int, at_ms: int) -> None:
        """Close the open alarms that a detector (or, without a key, a whole model) raised before this."""
        if key is None:
            self._moved.clear()
            self._alarming = {name for name in self._alarming if name[0] != handle}
        elif (handle, key) in self._alarming:
            self._moved.pop((handle, key), None)
            self._alarming.remove((handle, key))
        else:
            return
        condition, of_key = ("", ()) if key is None else (" AND key=?", (key,))
        self._write(
            f"UPDATE alarm SET cleared_ms=? WHERE model=?{condition} AND cleared_ms IS NULL AND sequence < ?",  # noqa: S608
            (at_ms, handle, *of_key, sequence),
        )

    def acknowledge_alarms(self, handle: str, key: str, who: str, note: str, sequence: int, at_ms: int) -> None:
        """Note who acknowledged a detector's open alarms."""
        self._write(
            "UPDATE alarm SET acknowledged_ms=?, acknowledged_by=?, note=?"
            " WHERE model=? AND key=? AND cleared_ms IS NULL AND acknowledged_ms IS NULL AND sequence < ?",
            (at_ms, who, note, handle, key, sequence),
        )

    def shelve(self, entry: Shelved) -> None:
        """Record what an alarm model says of itself: that it is snoozed or disabled."""
        self.shelf.put(entry)
        for statement, arguments in shelf.putting(entry):
            self._write(statement, arguments)

    def unshelve(self, handle: str, key: str | None, sequence: int) -> None:
        """Clear the shelf of what a model, or one alarm of it, had there before this."""
        self.shelf.remove(handle, key, sequence)
        self._write(*shelf.removing(handle, key, sequence))

    def prune(self, before_ms: int, base: int) -> None:
        """
        Forget what is done with and older than this; what is open stays.

        Delivered news is forgotten as soon as no restart makes it again, which none does from positions up to ``base``.
        """
        self._told_until, self._pruning = base, True
        self._write(
            "DELETE FROM action WHERE time_ms < ? AND status IN ('delivered', 'failed', 'undelivered')", (before_ms,)
        )
        self._write("DELETE FROM alarm WHERE raised_ms < ? AND cleared_ms IS NOT NULL", (before_ms,))

    def _write(self, statement: str, arguments: tuple[Any, ...]) -> None:
        self._writes.append((statement, arguments))


def read_actions(
    connection: sqlite3.Connection, statuses: Iterable[ActionStatus] = (), *, limit: int = 1000
) -> list[ActionRecord]:
    """Actions in order of their time, of any status or of those named; the newest where there are more than ``limit``."""
    wanted = list(statuses)
    condition = f"WHERE status IN ({','.join('?' * len(wanted))})" if wanted else ""
    rows = connection.execute(
        f"SELECT {_ACTION_COLUMNS} FROM action {condition} ORDER BY time_ms DESC, id LIMIT ?",  # noqa: S608 - placeholders
        (*wanted, limit),
    ).fetchall()
    return [_action_record(row) for row in reversed(rows)]


def read_pending(connection: sqlite3.Connection, after: tuple[int, str], limit: int) -> list[Action]:
    """The oldest pending actions behind a (time, id)."""
    rows = connection.execute(
        "SELECT body FROM action WHERE status = 'pending' AND status <> 'delivered' AND (time_ms, id) > (?, ?)"
        " ORDER BY time_ms, id LIMIT ?",
        (*after, limit),
    ).fetchall()
    return [_decoder.decode(body) for (body,) in rows]


def read_attempts(connection: sqlite3.Connection) -> dict[str, int]:
    """How often each pending action was tried, of those that were."""
    return dict(
        connection.execute(
            "SELECT id, attempts FROM action WHERE status = 'pending' AND status <> 'delivered' AND attempts > 0"
        )
    )


def read_action(connection: sqlite3.Connection, action_id: str) -> ActionRecord | None:
    """One action."""
    row = connection.execute(f"SELECT {_ACTION_COLUMNS} FROM action WHERE id = ?", (action_id,)).fetchone()  # noqa: S608
    return _action_record(row) if row else None


def recent_alarms(connection: sqlite3.Connection, *, limit: int) -> list[AlarmRecord]:
    """The newest alarms, open or over."""
    rows = connection.execute(
        f"SELECT {ALARM_COLUMNS} FROM alarm ORDER BY cleared_ms IS NOT NULL, raised_ms DESC, sequence DESC LIMIT ?",  # noqa: S608
        (limit,),
    )
    return [alarm_record(row) for row in rows]


def read_alarm(connection: sqlite3.Connection, alarm_id: str) -> AlarmRecord | None:
    """One alarm."""
    row = connection.execute(f"SELECT {ALARM_COLUMNS} FROM alarm WHERE id = ?", (alarm_id,)).fetchone()  # noqa: S608
    return alarm_record(row) if row else None


def acknowledge(connection: sqlite3.Connection, alarm_id: str, who: str, note: str, at_ms: int) -> AlarmRecord | None:
    """Note who has taken up an alarm; gives the alarm, None where there is none."""
    connection.execute(
        "UPDATE alarm SET acknowledged_ms=?, acknowledged_by=?, note=? WHERE id=? AND acknowledged_ms IS NULL",
        (at_ms, who, note, alarm_id),
    )
    return read_alarm(connection, alarm_id)


def write_actions(connection: sqlite3.Connection, actions: Iterable[Action]) -> None:
    """Record actions as pending, in the transaction that causes them; ``Ledger.load`` has them counted."""
    connection.executemany(_INSERT_ACTION, [_action_row(action) for action in actions])


def reopen(connection: sqlite3.Connection, action_ids: Iterable[str]) -> list[Action]:
    """Make parked, failed and undelivered actions pending again; gives those that were."""
    again = []
    for action_id in action_ids:
        changed = connection.execute(
            "UPDATE action SET status='pending', attempts=0, detail='' WHERE id=?"
            " AND status IN ('parked', 'failed', 'undelivered')",
            (action_id,),
        )
        record = read_action(connection, action_id) if changed.rowcount else None
        if record is not None:
            again.append(record.action)
    return again


def write_audit(connection: sqlite3.Connection, records: Iterable[AuditRecord]) -> None:
    """Record who did what, in the transaction that makes it durable."""
    statement = f"INSERT INTO audit ({', '.join(_AUDIT_COLUMNS)}) VALUES ({', '.join('?' * len(_AUDIT_COLUMNS))})"  # noqa: S608
    for record in records:
        connection.execute(statement, msgspec.structs.astuple(record))


def strike_audit(connection: sqlite3.Connection, records: Sequence[AuditRecord]) -> None:
    """Delete what ``write_audit`` has just written, in that order; only within a transaction."""
    equal = " AND ".join(f"{name} IS ?" for name in _AUDIT_COLUMNS)
    for record in reversed(records):
        connection.execute(
            f"DELETE FROM audit WHERE number = (SELECT number FROM audit WHERE {equal} ORDER BY number DESC LIMIT 1)",  # noqa: S608
            msgspec.structs.astuple(record),
        )


def read_audit(connection: sqlite3.Connection, *, limit: int = 1000) -> list[AuditRecord]:
    """The newest records, oldest first."""
    rows = connection.execute(
        f"SELECT {', '.join(_AUDIT_COLUMNS)} FROM audit ORDER BY number DESC LIMIT ?",  # noqa: S608
        (limit,),
    ).fetchall()
    return [AuditRecord(**dict(zip(_AUDIT_COLUMNS, row, strict=True))) for row in reversed(rows)]


def _action_row(action: Action, position: int = 0) -> tuple[Any, ...]:
    return (
        *(action.id, position, action.time_ms, action.model, action.key, action.type, action.target),
        *(_encoder.encode(action), "pending", 0, None, ""),
    )


def _action_record(row: tuple[Any, ...]) -> ActionRecord:
    body, status, attempts, settled_ms, detail = row
    return ActionRecord(
        action=_decoder.decode(body), status=status, attempts=attempts, settled_ms=settled_ms, detail=detail
    )


def alarm_record(row: tuple[Any, ...], shelved: Shelved | None = None) -> AlarmRecord:
    """What a row of ``ALARM_COLUMNS`` says, and what lies on the shelf."""
    values = dict(zip(ALARM_COLUMNS.split(", "), row, strict=True))
    values["body"] = msgspec.Raw(values["body"])
    values["kind"], values["model"] = named_by(values["model"])
    return AlarmRecord(**values, shelved=shelved)
