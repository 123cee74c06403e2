"""What operators do to alarms of detector models, beside acknowledging them: whether it can be done, and what it means."""

from collections.abc import Sequence

from wheeltapper.detector.handle import handle_of
from wheeltapper.judge.core import Core
from wheeltapper.judge.types import AuditRecord, Refusal, ShelfOperation, Shelved


def operate(core: Core, operation: ShelfOperation, now_ms: int, audit: Sequence[AuditRecord]) -> Refusal | None:
    """
    Do it, durably, or say why not.

    Raises:
        UnavailableError: the disk cannot be written; nothing has changed.
    """
    handle = handle_of("detector", operation.model)
    lying = core.ledger.shelf.of(handle, operation.key)
    out_of_service = any(entry.until_ms is None for entry in lying)
    name = f"{operation.model} {operation.key}".strip()
    match operation.operation:
        case "shelve" | "disable" if core.shard.export(handle, operation.key) is None:
            return Refusal(0, "not found", f"detector {name}: does not exist")
        case "shelve" | "unshelve" if out_of_service:
            return _invalid(f"{operation.operation}: {name} is out of service; enable puts it back")
        case "shelve" if operation.for_s < 1:
            return _invalid(f"shelve: must be for at least 1 s, not {operation.for_s}")
        case "shelve":
            whole = any(not entry.state for entry in lying)
            until_ms = now_ms + 1000 * operation.for_s
            core.shelve(_entry(operation, "" if whole else operation.state, now_ms, until_ms), audit)
        case "disable":
            core.shelve(_entry(operation, "", now_ms, None), audit)
        case "unshelve" | "enable":
            named = operation.state if operation.operation == "unshelve" else ""
            back = [entry for entry in lying if not named or entry.state in ("", named)]
            if not back:
                what = "shelved" if operation.operation == "unshelve" else "out of service or shelved"
                return _invalid(f"{operation.operation}: {name} is not {what}")
            core.unshelve(back, now_ms, audit)
    return None


def _entry(operation: ShelfOperation, state: str, now_ms: int, until_ms: int | None) -> Shelved:
    return Shelved(
        kind="detector", model=operation.model, key=operation.key, state=state, since_ms=now_ms, until_ms=until_ms,
        by=operation.by, note=operation.note,
    )  # fmt: skip


def _invalid(detail: str) -> Refusal:
    return Refusal(0, "invalid", detail)
