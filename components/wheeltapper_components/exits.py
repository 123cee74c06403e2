"""
How often a component may exit so that the nucleus starts it anew.

A nucleus lite gives a component up for good at the fourth crash within an hour, a classic one at the third; so two are
spent at the most, counted on disk, and after that the process waits inside.
"""

import logging
from pathlib import Path

import msgspec

from wheeltapper.clock import Clock
from wheeltapper.messages import UNREADABLE

log = logging.getLogger(__name__)

_WINDOW_MS = 3_600_000


class ExitBudget:
    """
    Exits that may still be spent.

    Args:
        path: a small file that outlives the process.
        per_hour: exits in any hour, at the most.
    """

    def __init__(self, path: Path, clock: Clock, per_hour: int = 2) -> None:
        self._path = path
        self._clock = clock
        self._per_hour = per_hour

    def spend(self) -> bool:
        """Take one exit; False when there is none left, or when it cannot be written down that one was taken."""
        now = self._clock.time_ms()
        recent = [stamp for stamp in self._stamps() if abs(now - stamp) < _WINDOW_MS]
        if len(recent) >= self._per_hour:
            return False
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside = self._path.with_suffix(".new")
            beside.write_bytes(msgspec.json.encode([*recent, now]))
            beside.replace(self._path)
        except OSError as error:
            log.error("%s: cannot be written: %s", self._path, error.strerror)
            return False
        return True

    def _stamps(self) -> list[int]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[int])
        except (OSError, *UNREADABLE):
            return []
