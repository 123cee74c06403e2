"""
A broker in memory that fails on cue, for tests in virtual time.

Nothing runs by itself: ``publish`` queues, ``MemoryBroker.deliver`` hands out until nothing is left, on the caller's thread.
Sessions persist: what a subscriber has not acknowledged comes again after the broker was away.
"""

import threading
from collections import deque
from collections.abc import Callable

from wheeltapper.errors import UnavailableError
from wheeltapper.topics import matches
from wheeltapper.transport import Handler, Refused, Settled
from wheeltapper.transport.settings import refused_subscriptions


class MemoryBroker:
    """Carries messages between its transports; ``away``, the counters and the rules are the faults."""

    def __init__(self) -> None:
        self.away = False
        self.lose_acknowledgements = 0
        """So many coming publishes are delivered, but the publisher is told they may be lost."""
        self.repeat_deliveries = 0
        """So many coming deliveries arrive twice."""
        self.hangs_up_on: Callable[[str, bytes], bool] = lambda _topic, _payload: False
        """Messages at which the broker goes away, as one does that speaks MQTT 3.1.1 when its access rules forbid them."""
        self.refuses: Callable[[str, bytes], bool] = lambda _topic, _payload: False
        """Messages that the broker says it will not take, as one does that speaks MQTT 5."""
        self.refused_filters: set[str] = set()
        """Filters to which nobody may subscribe."""
        self.published: list[tuple[str, bytes]] = []
        self._queue: deque[tuple[str, bytes, Settled | None]] = deque()
        self._transports: list[MemoryTransport] = []
        self._lock = threading.RLock()

    def transport(self) -> "MemoryTransport":
        """A new client of this broker."""
        client = MemoryTransport(self)
        self._transports.append(client)
        return client

    def go_away(self) -> None:
        """Drop every connection; unacknowledged publishes are reported as perhaps lost."""
        self.away = True
        with self._lock:
            waiting, self._queue = self._queue, deque()
        for _topic, _payload, done in waiting:
            if done is not None:
                done(False)

    def come_back(self) -> None:
        """Accept connections again; what was not acknowledged is delivered again."""
        self.away = False
        for client in self._transports:
            client.redeliver()

    def deliver(self) -> int:
        """Hand out everything that waits and what that causes; returns how many publishes were handled."""
        handled = 0
        while self._queue and not self.away:
            with self._lock:
                topic, payload, done = self._queue.popleft()
            handled += 1
            if self._turned_away(topic, payload, done):
                continue
            self.published.append((topic, payload))
            for client in list(self._transports):
                client.receive(topic, payload)
                if self.repeat_deliveries > 0:
                    self.repeat_deliveries -= 1
                    client.receive(topic, payload)
            lost = self.lose_acknowledgements > 0
            self.lose_acknowledgements -= lost
            if done is not None:
                done(not lost)
        return handled

    def _turned_away(self, topic: str, payload: bytes, done: Settled | None) -> bool:
        hangs_up = self.hangs_up_on(topic, payload)
        if not hangs_up and not self.refuses(topic, payload):
            return False
        if done is not None:
            done(False if hangs_up else Refused("not authorized"))
        if hangs_up:
            self.go_away()
        return True

    def accept(self, topic: str, payload: bytes, done: Settled | None) -> None:
        """Queue one publish of a connected client."""
        with self._lock:
            self._queue.append((topic, payload, done))


class MemoryTransport:
    """The Transport protocol on a MemoryBroker."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._handlers: dict[str, Handler] = {}
        self._unacknowledged: dict[int, MemoryDelivery] = {}
        self._next = 0
        self._open = False

    def start(self) -> None:
        if self._broker.away:
            raise UnavailableError("broker memory: away")
        self._open = True

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        self._handlers[topic_filter] = handler

    def publish(self, topic: str, payload: bytes, done: Settled | None = None) -> None:
        if self.connected:
            self._broker.accept(topic, payload, done)
        elif done is not None:
            done(False)

    @property
    def connected(self) -> bool:
        return self._open and not self._broker.away

    @property
    def trouble(self) -> str:
        return refused_subscriptions(("memory", 0), self._broker.refused_filters & self._handlers.keys())

    @property
    def unacknowledged(self) -> int:
        """Deliveries that this client has not acknowledged."""
        return len(self._unacknowledged)

    def close(self) -> None:
        self._open = False

    def receive(self, topic: str, payload: bytes) -> None:
        """Take one message from the broker."""
        for topic_filter, handler in list(self._handlers.items()):
            plain = topic_filter.split("/", 2)[2] if topic_filter.startswith("$share/") else topic_filter
            if self._open and matches(plain, topic) and topic_filter not in self._broker.refused_filters:
                self._next += 1
                delivery = MemoryDelivery(topic, payload, self._next, self._unacknowledged)
                self._unacknowledged[delivery.id] = delivery
                handler(delivery)

    def redeliver(self) -> None:
        """Deliver again what was not acknowledged, in order."""
        waiting = list(self._unacknowledged.values())
        self._unacknowledged.clear()
        for delivery in waiting:
            self.receive(delivery.topic, delivery.payload)


class MemoryDelivery:
    """One message that has arrived at a MemoryTransport."""

    __slots__ = ("_waiting", "id", "payload", "topic")

    def __init__(self, topic: str, payload: bytes, delivery_id: int, waiting: dict[int, "MemoryDelivery"]) -> None:
        self.topic = topic
        self.payload = payload
        self.id = delivery_id
        self._waiting = waiting

    def acknowledge(self) -> None:
        self._waiting.pop(self.id, None)
