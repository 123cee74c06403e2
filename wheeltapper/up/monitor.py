"""
Everything that travels on the bus, as plain events: the one source of the live view and of ``--json``.

An event is ``{"time_ms", "kind", "thing", …}``, the message's own members behind these three. Repeats are dropped by id.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from wheeltapper import topics
from wheeltapper.messages import UNREADABLE
from wheeltapper.transport import Delivery, Transport

log = logging.getLogger(__name__)

Event = dict[str, Any]

KIND_OF = {
    topics.READING: "reading",
    topics.PREDICTION: "prediction",
    topics.STATE: "state",
    topics.ALARM: "alarm",
    topics.ACTION: "action",
    topics.HEALTH: "health",
    topics.FAULT: "health",
    topics.DRIFT: "health",
}
_REMEMBERED = 100_000


class Monitor:
    """
    Turns deliveries into events.

    Args:
        on_event: called for each, one at a time, on the transport's thread.
    """

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event
        self._decode = msgspec.json.Decoder(dict[str, Any]).decode
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()

    def listen(self, transport: Transport) -> None:
        """Subscribe to every topic that has a kind."""
        for template in KIND_OF:
            transport.subscribe(topics.filter_of(template), self.take)

    def take(self, delivery: Delivery) -> None:
        """Handle one delivery; what is not of our making is dropped with a word."""
        delivery.acknowledge()
        try:
            event = event_of(delivery.topic, self._decode(delivery.payload))
        except (*UNREADABLE, TypeError) as error:
            log.warning("%s: not an event: %s", delivery.topic, error)
            return
        if event is not None and not self._is_repeat(event):
            self._on_event(event)

    def _is_repeat(self, event: Event) -> bool:
        message_id = event.get("message_id")
        if not message_id:
            return False
        identity = (event["kind"], message_id)
        if identity in self._seen:
            return True
        self._seen[identity] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return False


def event_of(topic: str, body: dict[str, Any]) -> Event | None:
    """
    The event that a message is; None for a topic that has no kind.

    >>> event_of("wt/m1/reading", {"time_ms": 5, "TT01": 70.5})
    {'time_ms': 5, 'kind': 'reading', 'thing': 'm1', 'TT01': 70.5}
    """
    for template, kind in KIND_OF.items():
        thing = topics.thing_of(template, topic)
        if thing is not None:
            head = {"time_ms": body.get("time_ms"), "kind": kind, "thing": body.get("thing", thing)}
            if template == topics.FAULT:
                head |= {"process": "machine", "status": "degraded", "detail": body.get("explanation", "")}
            elif template == topics.DRIFT:
                head |= {"process": "model", "status": "degraded", "detail": body.get("detail", "")}
            return {**head, **{name: value for name, value in body.items() if name not in head}}
    return None
