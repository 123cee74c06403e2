"""
Drains an outbox into a transport, in order, a window at a time.

An entry leaves the outbox when the other side has acknowledged it. When an acknowledgement fails to come, everything from
the oldest entry on is sent again: receivers drop repeats by message id.
"""

import threading
from collections.abc import Sequence
from functools import partial

from wheeltapper.clock import Clock, SystemClock
from wheeltapper.outbox import Entry, Outbox
from wheeltapper.transport import Transport

_REMOVE_AT = 256
_IDLE_S = 0.2


class Sender:
    """
    One thread between an outbox and a transport.

    Args:
        outbox: where entries wait.
        transport: where they go; may be disconnected at any time.
        window: entries sent and not yet acknowledged, at the most.
        clock: paces the retries.
    """

    def __init__(
        self, outbox: Outbox, transport: Transport, *, window: int = 1_000, clock: Clock | None = None
    ) -> None:
        self._outbox = outbox
        self._transport = transport
        self._window = window
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._in_flight = 0
        self._failed = False
        self._acknowledged: list[int] = []
        self._cursor = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self.sent = 0

    def start(self) -> None:
        """Begin to drain."""
        self._thread.start()

    def close(self, drain_s: float = 0.0) -> None:
        """Stop, after at most ``drain_s`` seconds spent on emptying the outbox."""
        deadline = self._clock.monotonic() + drain_s
        while len(self._outbox) and self._transport.connected and self._clock.monotonic() < deadline:
            self._clock.wait(self._stop, 0.02)
        self._stop.set()
        with self._outbox.grown:
            self._outbox.grown.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        self._forget()

    def send_waiting(self) -> int:
        """Send what the window allows and return how many entries were sent; for tests and for single-threaded hosts."""
        with self._lock:
            if self._failed and self._in_flight == 0:
                self._failed = False
                self._cursor = 0
                self._forget_locked()
            room = 0 if self._failed else self._window - self._in_flight
        if room <= 0 or not self._transport.connected:
            return 0
        entries = self._outbox.peek(room, self._cursor)
        self._send(entries)
        return len(entries)

    def _send(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            with self._lock:
                if self._failed:
                    return
                self._in_flight += 1
                self._cursor = entry.id
            self._transport.publish(entry.topic, entry.payload, partial(self._settle, entry.id))

    def _settle(self, entry_id: int, delivered: bool) -> None:
        with self._lock:
            self._in_flight -= 1
            if delivered:
                self.sent += 1
                self._acknowledged.append(entry_id)
            else:
                self._failed = True
            if len(self._acknowledged) >= _REMOVE_AT or self._in_flight == 0:
                self._forget_locked()
        with self._outbox.grown:
            self._outbox.grown.notify_all()

    def _forget(self) -> None:
        with self._lock:
            self._forget_locked()

    def _forget_locked(self) -> None:
        acknowledged, self._acknowledged = self._acknowledged, []
        self._outbox.remove(acknowledged)

    def _run(self) -> None:
        while not self._stop.is_set():
            if self.send_waiting() == 0:
                with self._outbox.grown:
                    self._outbox.grown.wait(_IDLE_S)
