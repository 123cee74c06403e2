"""
What has arrived and is not handled yet: one queue, bounded, that outlives a change of settings.

A full inbox holds up the transport's thread, and so the broker, which keeps the rest.
"""

import queue
import threading
from typing import NamedTuple

from wheeltapper.clock import Clock
from wheeltapper.topics import thing_of
from wheeltapper.transport import Delivery, Handler

_SIZE = 10_000


class Arrival(NamedTuple):
    """A message that has come, what it is, and whose by its topic."""

    kind: str
    delivery: Delivery
    thing: str
    time_ms: int


class Inbox:
    """
    A queue between transports and one worker.

    >>> from wheeltapper.clock import ManualClock
    >>> Inbox(ManualClock()).take(limit=10)
    []
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queue: queue.Queue[Arrival | None] = queue.Queue(_SIZE)
        self._closed = threading.Event()

    def receiver(self, kind: str, template: str, default_thing: str = "") -> Handler:
        """A transport's handler that puts messages in here."""

        def receive(delivery: Delivery) -> None:
            thing = thing_of(template, delivery.topic) or default_thing
            arrival = Arrival(kind, delivery, thing, self._clock.time_ms())
            while not self._closed.is_set():
                try:
                    self._queue.put(arrival, timeout=1.0)
                    return
                except queue.Full:
                    continue

        return receive

    def take(self, limit: int, timeout_s: float = 0.0) -> list[Arrival]:
        """What waits, at most ``limit``; with nothing waiting, what comes first within the time."""
        arrivals: list[Arrival] = []
        try:
            arrival = self._queue.get(timeout=timeout_s) if timeout_s > 0 else self._queue.get_nowait()
            while arrival is not None:
                arrivals.append(arrival)
                if len(arrivals) >= limit:
                    break
                arrival = self._queue.get_nowait()
        except queue.Empty:
            pass
        return arrivals

    def wake(self) -> None:
        """Let ``take`` return now."""
        if self._queue.empty():
            self._queue.put_nowait(None)

    def close(self) -> None:
        """Take no more; what is in here is not acknowledged and comes again where the transport repeats."""
        self._closed.set()
        self.wake()
