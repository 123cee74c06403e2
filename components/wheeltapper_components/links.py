"""
Where messages leave by: one transport each, with its own outbox, so that one that is away holds up no other.

Off Greengrass there is one link, the broker (and a second where a cloud broker is set). On a nucleus there are two: local
publish/subscribe and IoT Core. The code above does not know which.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from wheeltapper.clock import Clock
from wheeltapper.errors import UnavailableError, WheeltapperError
from wheeltapper.outbox import Outbox, Put
from wheeltapper.sender import Sender
from wheeltapper.topics import matches
from wheeltapper.transport import Transport
from wheeltapper_components.settings import StoreSettings

log = logging.getLogger(__name__)

MAX_PAYLOAD_BYTES = 128 * 1024  # AWS IoT Core's limit
_RETRY_S = 5.0


class Link:
    """
    A transport and what waits for it.

    Args:
        name: for logs.
        transport: not yet started.
        folder: where the outbox lies.
        filters: topic filters of the messages that go out here.
        max_payload_bytes: longer messages are dropped and counted; they would never pass.
        reads: whether readings come by it.
        window: messages sent and not yet acknowledged, at the most.
    """

    def __init__(
        self,
        name: str,
        transport: Transport,
        folder: Path,
        store: StoreSettings,
        clock: Clock,
        *,
        filters: Sequence[str] = ("#",),
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        reads: bool = True,
        window: int = 1_000,
    ) -> None:
        self.name = name
        self.transport = transport
        self.filters = tuple(filters)
        self.reads = reads
        self.oversized = 0
        self._max_payload_bytes = max_payload_bytes
        self.outbox = Outbox(
            folder / f"{name}.db",
            max_bytes=store.max_bytes,
            max_age_s=store.max_age_s,
            full="drop_oldest",
            flush=store.flush,
            clock=clock,
        )
        self.sender = Sender(self.outbox, transport, window=window, clock=clock)

    def accepts(self, put: Put) -> bool:
        """Whether the message goes out here; says so where it is too long to."""
        if not any(matches(topic_filter, put.topic) for topic_filter in self.filters):
            return False
        if len(put.payload) <= self._max_payload_bytes:
            return True
        self.oversized += 1
        log.error("%s: a message of %d bytes is too long for %s; dropped", put.topic, len(put.payload), self.name)
        return False


class Links:
    """
    All the ways out; the first link's outbox keeps the states.

    A message for several links is in the others' outboxes before it is in the first's with the states: a power cut in
    between makes the reading come again, and the repeat is known by its message id.
    """

    def __init__(self, links: Sequence[Link]) -> None:
        self.all = tuple(links)
        self.first = links[0]
        self._closing = threading.Event()

    def start(self) -> None:
        """
        Begin to send; the first link's transport must answer, the others may come later.

        Raises:
            UnavailableError: the first link is away.
        """
        for link in self.all:
            link.sender.start()
        self.first.transport.start()
        for link in self.all[1:]:
            threading.Thread(target=self._start_later, args=(link,), name=f"start-{link.name}", daemon=True).start()

    def _start_later(self, link: Link) -> None:
        while not self._closing.is_set():
            try:
                link.transport.start()
                return
            except WheeltapperError as error:
                log.warning("link %s: %s", link.name, error)
            self._closing.wait(_RETRY_S)

    def put(self, puts: Sequence[Put], states: Mapping[str, bytes] | None = None) -> None:
        """
        Keep messages for every link that accepts them, and named states, and return when all is on disk.

        Raises:
            UnavailableError: a disk is full or failing; ask again with the same.
        """
        for link in self.all[1:]:
            accepted = [put for put in puts if link.accepts(put)]
            if accepted:
                link.outbox.put_and_wait(accepted)
        accepted = [put for put in puts if self.first.accepts(put)]
        if accepted or states:
            self.first.outbox.put_and_wait(accepted, states=states)

    def put_soon(self, put: Put, done: Callable[[UnavailableError | None], None] = lambda _error: None) -> None:
        """Keep a message without waiting; ``done`` is called when every link that accepts it has it on disk, or cannot."""
        accepting = [link for link in self.all if link.accepts(put)]
        told: list[UnavailableError | None] = []
        lock = threading.Lock()

        def settle(error: UnavailableError | None) -> None:
            with lock:
                told.append(error)
                last = len(told) == len(accepting)
            if last:
                done(next((problem for problem in told if problem is not None), None))

        for link in accepting:
            link.outbox.put([put], done=settle)
        if not accepting:
            done(None)

    def tell(self, topic: str, payload: bytes) -> None:
        """Publish now or never, on every link that accepts it: for words that are stale a moment later."""
        for link in self.all:
            if link.accepts(Put(topic, payload)) and link.transport.connected:
                link.transport.publish(topic, payload)

    @property
    def waiting(self) -> int:
        """Messages that no link has delivered yet."""
        return sum(len(link.outbox) for link in self.all)

    @property
    def dropped(self) -> int:
        """Messages given up because they were too many, too old or too long."""
        return sum(link.outbox.dropped + link.oversized for link in self.all)

    def troubles(self) -> list[str]:
        """What an operator should know of messages that did not leave, or will not come."""
        return [
            *([f"{self.dropped} messages dropped from the outbox"] if self.dropped else []),
            *[f"{link.name}: {link.sender.trouble}" for link in self.all if link.sender.trouble],
            *[link.transport.trouble for link in self.all if link.transport.trouble],
        ]

    def close(self, drain_s: float = 3.0) -> None:
        """Send for at most that long, then let go; the rest waits on disk. Harmless when repeated."""
        self._closing.set()
        for link in self.all:
            link.sender.close(drain_s / len(self.all))
        for link in self.all:
            link.transport.close()
        for link in self.all:
            link.outbox.close()
