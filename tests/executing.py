"""An action, an executor that is to carry it out, and the secret that it may need."""

from pathlib import Path
from typing import Any

from wheeltapper.judge import Action
from wheeltapper.judge.delivery import Executor, Result


def action(
    kind: str = "sns",
    target: str = "arn:aws:sns:us-east-1:123456789012:t",
    payload: bytes = b'{"a": 1}',
    **more: Any,
) -> Action:
    """An action of one type on one target; ``more`` are members of it."""
    values = {"id": "a1", "model": "Motor", "key": "m1", "thing": "m1", "event": "e", "time_ms": 1_700_000_000_123}
    return Action(**{**values, "type": kind, "target": target, "payload": payload, **more})


def run(executor: Executor, wanted: Action) -> Result:
    """What becomes of an action; what the executor raises is raised."""
    results: list[Result] = []
    executor.execute(wanted, results.append)
    return results[0]


def secret(folder: Path, mode: int = 0o600) -> Path:
    """A file with a secret, for its owner alone unless the mode says otherwise."""
    path = folder / "secret"
    path.write_text("0123456789abcdef0123\n")
    path.chmod(mode)
    return path
