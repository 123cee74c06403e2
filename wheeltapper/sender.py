"""
Drains an outbox into a transport, in order, a window at a time.

An entry leaves the outbox when the other side has acknowledged it. When an acknowledgement fails to come, everything from
the oldest entry on is sent again: receivers drop repeats by message id. It begins with the oldest alone and doubles with
every acknowledgement, so that an entry on which the other side hangs up is soon alone, where an ``Inquiry`` finds it out;
then it is set aside, and what stood behind it goes on.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Protocol

from wheeltapper.clock import Clock, SystemClock
from wheeltapper.inquiry import Blame, Inquiry
from wheeltapper.outbox import Entry
from wheeltapper.transport import Refused, Transport

log = logging.getLogger(__name__)

_REMOVE_AT = 256
_IDLE_S = 0.2
_WATCH_S = 0.05
_AGAIN_S = 0.01
_FAILED_S = 1.0
_LOOK_AHEAD = 256


class Waiting(Protocol):
    """What waits to be sent: an ``Outbox``, on disk, or a ``Backlog``, in memory."""

    grown: threading.Condition
    refused: int

    def peek(self, limit: int, after_id: int = 0) -> Sequence[Entry]: ...

    def remove(self, ids: Sequence[int]) -> None: ...

    def set_aside(self, entry_id: int, reason: str) -> None: ...

    def __len__(self) -> int: ...


class Sender:
    """
    One thread between what waits and a transport.

    Args:
        outbox: where entries wait.
        transport: where they go; may be disconnected at any time.
        window: entries sent and not yet acknowledged, at the most.
        clock: paces the retries.
        shown_by: the command that shows what was set aside.
        hand_back: told of what the other side refuses by name, where whoever sent it will try again; else that is done here.
    """

    def __init__(
        self,
        outbox: Waiting,
        transport: Transport,
        *,
        window: int = 1_000,
        clock: Clock | None = None,
        shown_by: str = "wheeltapper outbox show",
        hand_back: Callable[[int, Refused], None] | None = None,
    ) -> None:
        self._outbox = outbox
        self._transport = transport
        self._window = window
        self._room = window
        self._clock = clock or SystemClock()
        self._shown_by = shown_by
        self._hand_back = hand_back
        self._inquiry = Inquiry()
        self._alone = False
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

    @property
    def trouble(self) -> str:
        """What keeps messages from leaving although the broker answers; empty where nothing does."""
        refused = self._outbox.refused
        aside = f"{refused} messages refused and set aside, see: {self._shown_by}" if refused else ""
        return "; ".join(filter(None, [aside, self._inquiry.trouble]))

    def suspects(self, topic: str) -> bool:
        """Whether an entry of this topic was set aside and none has passed since."""
        return self._inquiry.is_blamed(topic)

    def send_waiting(self) -> int:
        """Send what the window allows and return how many entries were sent; for tests and for single-threaded hosts."""
        connected = self._transport.connected
        with self._lock:
            if self._failed and self._in_flight == 0:
                self._failed = False
                self._begin_again(alone=True)
                self._forget_locked()
            if not connected and self._in_flight == 0:
                self._set_aside(self._inquiry.disconnected())
            room = 0 if self._failed else self._room - self._in_flight
        if room <= 0 or not connected:
            return 0
        entries = self._pick_one() if self._alone else self._pick(room)
        self._send(entries)
        return len(entries)

    def _begin_again(self, *, alone: bool) -> None:
        """Go back to the oldest entry, one at a time at first."""
        self._cursor = 0
        self._room = 1
        self._alone = alone

    def _pick(self, room: int) -> Sequence[Entry]:
        """The next entries, up to one that may be refused, which waits until it can be sent alone."""
        entries = self._outbox.peek(room, self._cursor)
        safe = list(takewhile(lambda entry: not self._inquiry.is_blamed(entry.topic), entries))
        if safe or not entries:
            return safe
        with self._lock:
            if self._in_flight:
                return []
            self._begin_again(alone=True)
        return self._pick_one()

    def _pick_one(self) -> Sequence[Entry]:
        """The entry that the inquiry wants to be sent alone, if any."""
        waiting = self._outbox.peek(_LOOK_AHEAD)
        with self._lock:
            chosen = self._inquiry.choose(waiting, self._clock.monotonic()) if waiting else None
        return [] if chosen is None else [chosen]

    def _send(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            with self._lock:
                if self._failed:
                    return
                self._in_flight += 1
                self._cursor = entry.id
            settle = partial(self._settle, entry.id)
            try:
                self._transport.publish(entry.topic, entry.payload, settle)
            except Exception as error:  # a topic that is none, say: one entry must not hold up the others
                log.exception("%s: cannot be published", entry.topic)
                settle(Refused(f"it cannot be published: {error}"))

    def _settle(self, entry_id: int, outcome: bool | Refused) -> None:
        if isinstance(outcome, Refused) and self._hand_back is not None:
            self._hand_back(entry_id, outcome)
            outcome = True  # there was an answer: whatever a hang-up is due to, it is not this
        with self._lock:
            self._in_flight -= 1
            if outcome:
                self.sent += 1
                self._acknowledged.append(entry_id)
            if self._alone:
                blame = self._inquiry.settle(outcome, self._clock.monotonic())
                if outcome:
                    self._begin_again(alone=False)
                self._set_aside(blame)
            elif not outcome:
                self._failed = True
            if outcome:
                self._room = min(self._room + 1, self._window)
            if len(self._acknowledged) >= _REMOVE_AT or self._in_flight == 0:
                self._forget_locked()
        with self._outbox.grown:
            self._outbox.grown.notify_all()

    def _set_aside(self, blame: Blame | None) -> None:
        if blame is not None:
            log.error(
                "%s: message %d is set aside: %s; see: %s",
                blame.entry.topic,
                blame.entry.id,
                blame.reason,
                self._shown_by,
            )
            self._outbox.set_aside(blame.entry.id, blame.reason)
            self._begin_again(alone=False)

    def _forget(self) -> None:
        with self._lock:
            self._forget_locked()

    def _forget_locked(self) -> None:
        acknowledged, self._acknowledged = self._acknowledged, []
        self._outbox.remove(acknowledged)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                pause_s = self._pause_s(self.send_waiting())
            except Exception:  # a disk that cannot be read, say, and soon can again
                log.exception("sender: failed; going on")
                pause_s = _FAILED_S
            if pause_s:
                with self._outbox.grown:
                    self._outbox.grown.wait(pause_s)

    def _pause_s(self, sent: int) -> float:
        """How long to wait after so many were sent."""
        connected = self._transport.connected
        if sent:  # what fails at once would do so over and over
            return _AGAIN_S if connected and self._inquiry.at_a_loss else 0.0
        return _WATCH_S if self._alone and connected else _IDLE_S
