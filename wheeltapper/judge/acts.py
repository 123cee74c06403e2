"""Who did what: the records of acts for the audit trail."""

from typing import Literal

from wheeltapper.detector.handle import Kind
from wheeltapper.judge.types import AuditRecord


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
