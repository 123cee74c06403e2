"""
Time, handed in: the only module that asks the machine what time it is.

Everything that waits or stamps takes a ``Clock``, so that tests and simulations run in virtual time.
"""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for stamps, monotonic time for durations, and a wait that an event can end."""

    def time_ms(self) -> int:
        """Milliseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until the event is set or the time is up; True if the event is set."""


class SystemClock:
    """The machine's own clock."""

    def time_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        return event.wait(max(timeout_s, 0.0))


class ManualClock:
    """
    A clock that moves only when told; ``wait`` moves it and returns at once.

    >>> clock = ManualClock(1_000)
    >>> clock.advance(2.5)
    >>> clock.time_ms(), clock.monotonic()
    (3500, 2.5)
    """

    def __init__(self, time_ms: int = 0) -> None:
        self._time_ms = float(time_ms)
        self._monotonic = 0.0
        self._lock = threading.Lock()

    def time_ms(self) -> int:
        return int(self._time_ms)

    def monotonic(self) -> float:
        return self._monotonic

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        if not event.is_set():
            self.advance(max(timeout_s, 0.0))
        return event.is_set()

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        with self._lock:
            self._time_ms += seconds * 1000.0
            self._monotonic += seconds

    def set_time_ms(self, time_ms: int) -> None:
        """Set wall time alone, as an operator or NTP does; monotonic time goes on."""
        self._time_ms = float(time_ms)
