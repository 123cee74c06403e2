"""What people do beside the journal, each durable in one transaction, and the records of acts for the audit trail."""

from collections.abc import Sequence
from typing import Literal

from wheeltapper.detector.handle import Kind
from wheeltapper.judge import ledger
from wheeltapper.judge.core import Core
from wheeltapper.judge.types import Action, AlarmRecord, AuditRecord


def recorded(
    now_ms: int,
    by: str,
    what: str,
    model: str,
    key: str = "",
    note: str = "",
    *,
    kind: Kind | Literal[""] = "detector",
    for_s: int | None = None,
) -> list[AuditRecord]:
    """The record of an act; acts of the system itself, which name nobody, leave none."""
    if not by:
        return []
    until_ms = None if for_s is None else now_ms + 1000 * for_s
    return [
        AuditRecord(time_ms=now_ms, who=by, what=what, model=model, key=key, note=note, kind=kind, until_ms=until_ms)
    ]


def acknowledge(core: Core, alarm_id: str, now_ms: int, by: str, note: str) -> AlarmRecord | None:
    """Note who has taken up an alarm; gives the alarm, None where there is none of this id."""
    with core.beside() as connection:
        record = ledger.acknowledge(connection, alarm_id, by, note, now_ms)
        if record is not None:
            audit = recorded(now_ms, by, "acknowledge", record.model, record.key, note, kind=record.kind)
            ledger.write_audit(connection, audit)
    return record


def order(core: Core, actions: Sequence[Action]) -> int:
    """Have further actions carried out, unless their ids are known; gives how many were new."""
    with core.beside() as connection:
        new = [action for action in actions if ledger.read_action(connection, action.id) is None]
        ledger.write_actions(connection, new)
    return _carry_out(core, new)


def replay(core: Core, action_ids: Sequence[str], now_ms: int, by: str) -> int:
    """Have actions tried again that were given up; gives how many there were."""
    with core.beside() as connection:
        again = ledger.reopen(connection, action_ids)
        for each in again:
            audit = recorded(now_ms, by, "replay", each.model, each.key, each.id, kind=each.kind)
            ledger.write_audit(connection, audit)
    return _carry_out(core, again)


def _carry_out(core: Core, actions: list[Action]) -> int:
    """Hand on what a transaction has made pending."""
    if actions:
        core.ledger.load(core.journal.connection)
        core.hand_on(actions)
    return len(actions)
