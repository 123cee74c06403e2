"""
Why an alarm was raised: the journal replayed to that moment, with everything that was looked at on the way.

Recording what came in is enough: the engine decides the same again. The journal is only read, so this works beside a
running server.
"""

import contextlib
import re
import sqlite3
import sys
from pathlib import Path
from typing import Any

import msgspec

from wheeltapper.detector.handle import handle_of
from wheeltapper.detector.migrate import migrate_state
from wheeltapper.detector.plan import AlarmPlan, Plan, key_text
from wheeltapper.detector.runtime import Message, Outcome, Shard
from wheeltapper.detector.settings import DEFAULTS
from wheeltapper.detector.trace import Trace, render, summary
from wheeltapper.detector.values import follow
from wheeltapper.errors import DataError, DefinitionError, SettingsError
from wheeltapper.journal import Row, open_reader, read_rows
from wheeltapper.judge import rows
from wheeltapper.judge.ledger import read_alarm, recent_alarms
from wheeltapper.judge.snapshots import Base
from wheeltapper.judge.types import AlarmRecord, Deployment

_SEQUENCE_BITS = 24
_OFFSET = re.compile(r"-?(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Told(msgspec.Struct):
    """A pass of the alarm's detector; ``alarm`` marks the one that raised it."""

    position: int
    now_ms: int
    alarm: bool
    outcome: Outcome


def explain(data_dir: Path, alarm_id: str, at: str, *, as_json: bool = False) -> int:
    """
    Print the pass that raised an alarm, and those up to ``at`` before it.

    Raises:
        DataError: no journal, no such alarm, or the journal no longer reaches back to it.
        SettingsError: ``at`` is no offset.
    """
    path = data_dir / "judge.db"
    if not path.is_file():
        raise DataError(f"{path}: no such file; --data-dir is where the server or gateway keeps its journal")
    before_ms = offset_ms(at)
    with contextlib.closing(open_reader(path)) as connection:
        told, remark = trace_alarm(path, connection, _alarm(connection, alarm_id), before_ms)
    if remark:
        print(f"note: {remark}", file=sys.stderr)
    if as_json:
        for each in told:
            print(msgspec.json.encode(_as_json(each)).decode())
    else:
        print("\n\n".join(_text(each) for each in told))
    return 0


def offset_ms(text: str) -> int:
    """
    How long before the alarm, in milliseconds.

    >>> offset_ms("-10s"), offset_ms("2m"), offset_ms("0")
    (10000, 120000, 0)
    """
    match = _OFFSET.fullmatch(text.strip())
    if match is None:
        raise SettingsError(f"--at {text!r}: must be an offset such as -10s, -5m or -1h")
    return round(float(match[1]) * _SECONDS[match[2] or "s"] * 1000)


def _alarm(connection: sqlite3.Connection, alarm_id: str) -> AlarmRecord:
    record = read_alarm(connection, alarm_id)
    if record is not None:
        return record
    recent = recent_alarms(connection, limit=10_000)
    beginning = [each for each in recent if alarm_id and (each.id.startswith(alarm_id) or each.id.endswith(alarm_id))]
    if len(beginning) == 1:
        return beginning[0]
    latest = ", ".join(each.id for each in recent[:5])
    raise DataError(f"alarm {alarm_id!r}: not found; the journal's alarms include: {latest or '(none)'}")


def trace_alarm(
    path: Path, connection: sqlite3.Connection, record: AlarmRecord, before_ms: int
) -> tuple[list[Told], str]:
    """
    The passes that led to an alarm.

    Returns:
        The passes in order, the raising one last; and a remark where they may not be exact.

    Raises:
        DataError: the journal no longer reaches back to the alarm, or the replay does not raise it.
    """
    target = record.sequence >> _SEQUENCE_BITS
    row = connection.execute("SELECT now_ms FROM journal WHERE position = ?", (target,)).fetchone()
    if row is None:
        raise DataError(f"alarm {record.id!r}: the journal's rows of that time are pruned")
    # Whether the host went by its own clock or by the messages' is its setting; the one that raises the alarm is right.
    for by_event in (False, True):
        replay = _Replay(record, target, row[0] - before_ms, by_event)
        remark = replay.start(connection)
        for each in read_rows(path, replay.position, target):
            replay.apply(each)
        if any(each.alarm for each in replay.told):
            raising = max(place for place, each in enumerate(replay.told) if each.alarm)
            return replay.told[: raising + 1], remark
    why = remark or "the definition or the engine's settings are not those of that time"
    raise DataError(f"alarm {record.id!r}: the replay does not raise it: {why}")


class _Replay:
    """One detector's or alarm's history."""

    def __init__(self, record: AlarmRecord, target: int, since_ms: int, by_event: bool) -> None:
        self.told: list[Told] = []
        self.position = 0
        self._record = record
        self._target = target
        self._since_ms = since_ms
        self._by_event = by_event
        self._shard = Shard(msgspec.structs.replace(DEFAULTS, dedup_window_s=0.0))
        self._plan: Plan | AlarmPlan | None = None
        self._engine_ms = 0
        body = msgspec.json.decode(record.body)
        self._raised = (body.get("state"), body.get("event"))

    def start(self, connection: sqlite3.Connection) -> str:
        """Stand where the replay begins: at the first row of all, or at the last snapshot before the alarm."""
        first = connection.execute("SELECT min(position) FROM journal").fetchone()[0]
        if first == 1:
            return ""
        stored = connection.execute("SELECT value FROM meta WHERE name = 'base'").fetchone()
        base = msgspec.json.decode(stored[0], type=Base) if stored else Base()
        for deployment in base.deployments:
            self._deploy(deployment)
        saved = connection.execute(
            "SELECT position, state FROM detector WHERE model = ? AND key = ?", (self._record.handle, self._record.key)
        ).fetchone()
        if base.position < self._target and (saved is None or saved[0] <= base.position):
            self.position, self._engine_ms = base.position, base.engine_ms
            if saved is not None and saved[1] is not None and self._plan is not None:
                self._shard.insert(saved[1])
            return ""
        self.position = (first or 1) - 1
        return f"the journal begins at row {first}; what the detector was before is not known"

    def apply(self, row: Row) -> None:
        """One row of the journal."""
        if row.kind == rows.MESSAGES:
            self._messages(row)
            return
        if not self._by_event:
            self._engine_ms = max(self._engine_ms, row.now_ms)
        self._command(row, rows.decode_command(row.kind, row.entries))

    def _messages(self, row: Row) -> None:
        if not self._by_event:
            self._engine_ms = max(row.now_ms, self._engine_ms)
        for message in rows.decode_messages(row.entries):
            if self._by_event:
                stamp = row.now_ms if message.time_ms is None else min(message.time_ms, row.now_ms)
                self._engine_ms = max(self._engine_ms, stamp)
            self._advance(row)
            payload = _decode(message.payload)
            if not self._concerns(message.input, payload):
                continue
            given = Message(message.input, payload, message.message_id, message.time_ms)
            self._note(row, self._shard.put(given, self._engine_ms / 1000, trace=row.now_ms >= self._since_ms))

    def _concerns(self, input_name: str, payload: dict[str, Any]) -> bool:
        if self._plan is None or self._record.handle not in self._shard.routing(input_name):
            return False
        key = "" if self._plan.key is None else key_text(follow(payload, self._plan.key))
        return key == self._record.key

    def _advance(self, row: Row, *, late: bool = False) -> None:
        traced = row.now_ms >= self._since_ms
        self._note(row, self._shard.advance(self._engine_ms / 1000, late=late, trace=traced))

    def _command(self, row: Row, command: rows.Command) -> None:
        record, now = self._record, self._engine_ms / 1000
        match command:
            case rows.Timers(until_ms, late):
                self._engine_ms = until_ms
                self._advance(row, late=late)
            case rows.Deploy(deployment, migrating):
                self._deploy(deployment, migrating=migrating)
            case rows.Withdraw() if command.handle == record.handle:
                self._shard.unload(record.handle)
                self._plan = None
            case rows.Delete(targets) if (record.handle, record.key) in [tuple(each) for each in targets]:
                self._shard.delete_detector(record.handle, record.key)
            case rows.Update(updates):
                for update in updates:
                    if (update.model, update.key) == (record.handle, record.key):
                        with contextlib.suppress(DefinitionError):  # refused then as now
                            self._shard.update_detector(
                                update.model, update.key, update.state, update.variables, update.timers, now
                            )
            case rows.Operate(operations):
                for each in operations:
                    if (handle_of("alarm", each.model), each.key) == (record.handle, record.key):
                        with contextlib.suppress(DefinitionError):
                            self._note(row, [self._shard.operate_alarm(
                                record.handle, each.key, each.operation, now, note=each.note, snooze_s=each.snooze_s or 0
                            )])  # fmt: skip

    def _deploy(self, deployment: Deployment, *, migrating: bool = False) -> None:
        record = self._record
        if deployment.handle != record.handle:
            return
        old, state = self._plan, self._shard.export(record.handle, record.key)
        new = self._plan = self._shard.load(msgspec.json.decode(deployment.body), deployment.version)
        if migrating and old is not None and state is not None:
            self._shard.insert(migrate_state(state, old, new))

    def _note(self, row: Row, outcomes: Any) -> None:
        for outcome in outcomes:
            if row.now_ms < self._since_ms or outcome.key != self._record.key:
                continue
            state, event = self._raised
            raised = row.position == self._target and outcome.state == state and (not event or outcome.event == event)
            self.told.append(Told(row.position, row.now_ms, raised, outcome))


def _text(told: Told) -> str:
    mark = "alarm raised" if told.alarm else "before the alarm"
    head = f"{mark} (journal row {told.position})"
    outcome = told.outcome
    if isinstance(outcome.trace, Trace):
        return f"{head}\n{render(outcome.trace)}"
    moved = f"{outcome.from_state} → {outcome.state}" if outcome.from_state != outcome.state else outcome.state
    values = ", ".join(f"{name} = {msgspec.json.encode(value).decode()}" for name, value in outcome.values.items())
    return f"{head}\n{outcome.model} {outcome.key} at {outcome.time_ms} ms: {moved}\n└─ {outcome.condition}: {values}"


def _as_json(told: Told) -> dict[str, Any]:
    said = msgspec.to_builtins(told)
    if isinstance(told.outcome.trace, Trace):
        said["summary"] = summary(told.outcome.trace)
    return dict(said)
