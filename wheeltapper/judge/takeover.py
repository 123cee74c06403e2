"""What an earlier release's operators laid aside: it had no shelf, but its alarms know, and its audit trail knows who."""

import sqlite3
from collections.abc import Iterator

from wheeltapper.detector.runtime import Shard
from wheeltapper.detector.state import AlarmState
from wheeltapper.judge.ledger import read_audit
from wheeltapper.judge.models import Models
from wheeltapper.judge.shelf import Shelf
from wheeltapper.judge.types import AuditRecord, Shelved

_ACTS = {"SNOOZE": "snooze", "DISABLE": "disable"}

_Act = tuple[str, str, str]


def laid_aside(connection: sqlite3.Connection, shard: Shard, models: Models, shelf: Shelf) -> list[Shelved]:
    """Alarms of alarm models that an operator snoozed or disabled and of which nothing lies on the shelf."""
    missing = [alarm for alarm in _operated(shard, models) if not shelf.of(alarm.handle, alarm.key)]
    acts = _last_acts(connection) if missing else {}
    return [_entry(alarm, acts.get((_ACTS[alarm.operation], alarm.model, alarm.key))) for alarm in missing]


def _operated(shard: Shard, models: Models) -> Iterator[AlarmState]:
    for model in models.deployments():
        if model.kind == "alarm":
            for alarm in shard.detectors(model.handle):
                if isinstance(alarm, AlarmState) and alarm.operation in _ACTS:
                    yield alarm


def _last_acts(connection: sqlite3.Connection) -> dict[_Act, AuditRecord]:
    trail = read_audit(connection, limit=-1)
    return {(each.what, each.model, each.key): each for each in trail if each.kind != "detector"}


def _entry(alarm: AlarmState, act: AuditRecord | None) -> Shelved:
    """An act of another note is not the one that the alarm remembers."""
    known = act if act is not None and act.note == alarm.note else None
    until, changed = alarm.snoozed_until, alarm.updated
    since_ms = int(1000 * (changed if until is None else until - alarm.snooze_s))
    return Shelved(
        kind="alarm", model=alarm.model, key=alarm.key, note=alarm.note,
        since_ms=since_ms if known is None else known.time_ms,
        until_ms=None if until is None else int(until * 1000),
        by="" if known is None else known.who,
    )  # fmt: skip
