"""
A transport for those who send again what was not acknowledged, and have no outbox of their own: the companion's actions.

Where the other side hangs up on a message that it does not allow, sending that again would make it hang up for ever, and
all else on the connection would suffer. So what was lost goes through a ``Sender``, from memory: one at a time at first,
until it has passed or the sender's ``Inquiry`` has found out the one that does not. That one is refused for good; after two
of one topic, so is, unsent, what follows on it within a while. As long as nothing was lost, messages go straight through.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

from wheeltapper.clock import Clock, SystemClock
from wheeltapper.outbox import Entry
from wheeltapper.sender import Sender
from wheeltapper.transport import Handler, Refused, Settled, Transport

log = logging.getLogger(__name__)

_ADVICE = "compare it with the broker's access rules"
_REFUSED_FOR_S = 60.0
_KNOWN_TOPICS = 1_000
# Of what nobody waits for, such as health: more of it is not kept while the connection mends.
_UNASKED = 1_000


class _Refusal(NamedTuple):
    """The last message of a topic was refused; until when further ones are refused unsent."""

    reason: str
    until: float


class Backlog:
    """
    What a ``Sender`` drains, in memory: messages in order, each with whoever is to hear what becomes of it.

    Args:
        heard: told of each message, before whoever sent it: the topic, and why it was refused, or nothing where it passed.
    """

    refused = 0

    def __init__(self, heard: Callable[[str, str], None]) -> None:
        self.grown = threading.Condition()
        self._heard = heard
        self._entries: dict[int, tuple[Entry, Settled | None]] = {}
        self._last = 0

    def put(self, topic: str, payload: bytes, done: Settled | None) -> None:
        """Keep a message behind the others."""
        with self.grown:
            if done is None and len(self._entries) >= _UNASKED:
                return
            self._last += 1
            self._entries[self._last] = Entry(self._last, topic, payload), done
            self.grown.notify_all()

    def peek(self, limit: int, after_id: int = 0) -> list[Entry]:
        """The oldest whose id is above ``after_id``, at most ``limit`` of them."""
        with self.grown:
            return list(islice((entry for entry, _ in self._entries.values() if entry.id > after_id), limit))

    def remove(self, ids: Sequence[int]) -> None:
        """Forget what was acknowledged."""
        for entry_id in ids:
            self._settle(entry_id, True, "")

    def set_aside(self, entry_id: int, reason: str) -> None:
        """Forget what the other side will not take."""
        self._settle(entry_id, Refused(f"{reason}; {_ADVICE}", final=True), reason)

    def hand_back(self, entry_id: int, refusal: Refused) -> None:
        """Forget what the other side has refused by name; whoever sent it will know when to try again."""
        self._settle(entry_id, refusal)

    def refuse(self, topic: str, refusal: Refused) -> None:
        """Forget everything of a topic."""
        with self.grown:
            ids = [entry.id for entry, _ in self._entries.values() if entry.topic == topic]
        for entry_id in ids:
            self._settle(entry_id, refusal)

    def give_up(self) -> None:
        """Forget everything."""
        for entry_id in list(self._entries):
            self._settle(entry_id, False)

    def __len__(self) -> int:
        return len(self._entries)

    def _settle(self, entry_id: int, outcome: bool | Refused, refused: str | None = None) -> None:
        with self.grown:
            found = self._entries.pop(entry_id, None)
        if found is None:  # refused meanwhile, with others of its topic
            return
        entry, done = found
        if refused is not None:
            self._heard(entry.topic, refused)
        _tell(done, outcome)


class CarefulTransport:
    """
    The Transport protocol over another, not yet started.

    Args:
        transport: what it sends by.
        clock: paces what is sent again.
    """

    def __init__(self, transport: Transport, clock: Clock | None = None) -> None:
        self._transport = transport
        self._clock = clock or SystemClock()
        self._backlog = Backlog(self._hear)
        self._sender = Sender(
            self._backlog,
            transport,
            clock=self._clock,
            shown_by="wheeltapper actions parked",
            hand_back=self._backlog.hand_back,
        )
        self._refusals: dict[str, _Refusal] = {}

    def start(self) -> None:
        self._transport.start()
        self._sender.start()

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        self._transport.subscribe(topic_filter, handler)

    def publish(self, topic: str, payload: bytes, done: Settled | None = None) -> None:
        """As the protocol has it; what is lost is kept until it has passed or is refused, and ``done`` told only then."""
        refusal = self._refusals.get(topic)
        if refusal is not None and self._clock.monotonic() < refusal.until:
            _tell(done, _unsent(refusal.reason))
        elif not self._transport.connected:
            _tell(done, False)
        elif len(self._backlog) or self._sender.suspects(topic):
            self._backlog.put(topic, payload, done)
        else:
            self._transport.publish(topic, payload, partial(self._settle, topic, payload, done))

    @property
    def connected(self) -> bool:
        return self._transport.connected

    @property
    def trouble(self) -> str:
        return self._transport.trouble

    @property
    def refusing(self) -> str:
        """What the other side does not let through, in one line; empty where it lets everything through."""
        now = self._clock.monotonic()
        topics = [topic for topic, refusal in list(self._refusals.items()) if now < refusal.until]
        refused = f"the broker hangs up on {', '.join(sorted(topics)[:3])}; {_ADVICE}" if topics else ""
        return "; ".join(filter(None, [refused, self._sender.trouble]))

    def send_waiting(self) -> int:
        """Send again what may be sent again now; for tests and single-threaded hosts, which do not ``start``."""
        return self._sender.send_waiting()

    def close(self) -> None:
        self._sender.close()
        self._transport.close()
        self._backlog.give_up()

    def _settle(self, topic: str, payload: bytes, done: Settled | None, outcome: bool | Refused) -> None:
        if outcome or isinstance(outcome, Refused):
            _tell(done, outcome)
        else:
            self._backlog.put(topic, payload, done)

    def _hear(self, topic: str, refused: str) -> None:
        if not refused:
            self._refusals.pop(topic, None)
            return
        again = topic in self._refusals
        if len(self._refusals) >= _KNOWN_TOPICS:
            self._refusals.clear()
        now = self._clock.monotonic()
        self._refusals[topic] = _Refusal(refused, now + _REFUSED_FOR_S if again else now)
        if again:
            self._backlog.refuse(topic, _unsent(refused))


def _unsent(reason: str) -> Refused:
    return Refused(f"not sent: of another on this topic, a moment ago: {reason}; {_ADVICE}", final=True)


def _tell(done: Settled | None, outcome: bool | Refused) -> None:
    if done is None:
        return
    try:
        done(outcome)
    except Exception:
        log.exception("who published failed to hear what became of it")
