"""An action as JSON that people and programs can read."""

import json
from typing import Any

from wheeltapper.judge import Action


def as_json(content: Any, indent: int | None = None) -> str:
    """Text that a person can read and UTF-8 can carry: half of a surrogate pair stays an escape."""
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()


def decoded(payload: bytes) -> Any:
    """What JSON text says; None where it is not JSON (or says null)."""

    def refuse(name: str) -> Any:
        raise ValueError(name)

    try:
        return json.loads(payload, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None


def describe(action: Action) -> dict[str, Any]:
    """An action for files, commands and people; a payload that is JSON stays JSON."""
    payload = decoded(action.payload)
    if payload is None:
        payload = action.payload.decode("utf-8", "replace")
    return {
        "id": action.id,
        "time_ms": action.time_ms,
        "detector": action.model,
        "key": action.key,
        "thing": action.thing,
        "event": action.event,
        "type": action.type,
        "target": action.target,
        "parameters": action.parameters,
        "payload": payload,
    }
