"""
Logging to standard error or output, one line an event, repeated errors limited.

A fault that repeats a thousand times a second must not fill a gateway's disk: of equal lines (same logger, level and
format) a few pass per window, and the count of the rest is told when the window ends.
"""

import logging
import sys
from datetime import datetime
from typing import TextIO

from wheeltapper.clock import Clock, SystemClock


class RepeatFilter(logging.Filter):
    """
    Lets ``burst`` records of a kind pass per ``window_s`` seconds and says how many it held back.

    Args:
        burst: records of the same logger, level and message format that pass in one window.
        window_s: the window's length.
        clock: measures it.
    """

    def __init__(self, burst: int = 5, window_s: float = 60.0, clock: Clock | None = None) -> None:
        super().__init__()
        self._burst = burst
        self._window_s = window_s
        self._clock = clock or SystemClock()
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        kind = (record.name, record.levelno, str(record.msg))
        now = self._clock.monotonic()
        start, count = self._seen.get(kind, (now, 0))
        if now - start >= self._window_s:
            held = max(count - self._burst, 0)
            start, count = now, 0
            if held:
                record.msg = f"{record.msg} ({held} more like this in the last {self._window_s:.0f} s)"
        if len(self._seen) > 1_000:
            self._seen.clear()
        self._seen[kind] = (start, count + 1)
        return count < self._burst


class OneLineFormatter(logging.Formatter):
    """The time with its zone, the text on one line: what devices send stands in it, and must begin no line of its own."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = "".join(
            each if each.isprintable() else each.encode("unicode_escape").decode() for each in record.message
        )
        return super().formatMessage(record)


def set_up(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send every log record to one stream, standard error unless told otherwise, as ``time level logger: message``."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(RepeatFilter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
