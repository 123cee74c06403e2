"""
A loop-back against streams that die in silence: what is sent round must be heard.

When a nucleus lite restarts the daemon behind a subscription, it neither closes nor fails the component's streams; the
process looks healthy and hears nothing any more. A heartbeat that the nucleus took and that never came back tells.
"""

import logging
from collections.abc import Callable
from typing import Protocol

from wheeltapper.clock import Clock
from wheeltapper.errors import WheeltapperError
from wheeltapper.transport import Delivery, Handler

log = logging.getLogger(__name__)


class Loop(Protocol):
    """A transport that can send a message round and subscribe anew."""

    def subscribe(self, topic_filter: str, handler: Handler) -> None: ...

    def probe(self, topic: str, payload: bytes, done: Callable[[bool], None]) -> None: ...

    def resubscribe(self) -> None: ...


class Heartbeat:
    """
    The heartbeat of one side.

    Args:
        loop: the side.
        topic: an own topic, heard by nobody else.
        deaf_s: silence after a heartbeat was taken, before something is done: first subscribing anew, then giving up.
        give_up: called with the reason; may return, and is then called again after another ``deaf_s``.
    """

    def __init__(self, loop: Loop, topic: str, deaf_s: float, give_up: Callable[[str], None], clock: Clock) -> None:
        self._loop = loop
        self._topic = topic
        self._deaf_s = deaf_s
        self._give_up = give_up
        self._clock = clock
        self._unheard_since: float | None = None
        self._resubscribed = False
        self.heard = 0

    def start(self) -> None:
        """Subscribe to the own topic."""
        self._loop.subscribe(self._topic, self._hear)

    def beat(self) -> None:
        """Act on silence, then send the next heartbeat; to be called every few seconds."""
        since = self._unheard_since
        if since is not None and self._clock.monotonic() - since >= self._deaf_s:
            self._act()
        self._loop.probe(self._topic, str(self._clock.time_ms()).encode(), self._sent)

    def _hear(self, delivery: Delivery) -> None:
        self.heard += 1
        self._unheard_since = None
        self._resubscribed = False
        delivery.acknowledge()

    def _sent(self, taken: bool) -> None:
        """A heartbeat that was not taken says that the link is away, not that the stream is deaf."""
        if not taken:
            self._unheard_since = None
        elif self._unheard_since is None:
            self._unheard_since = self._clock.monotonic()

    def _act(self) -> None:
        self._unheard_since = None
        if self._resubscribed:
            self._give_up(
                f"{self._topic}: nothing comes round although the nucleus takes it, even after subscribing anew"
            )
            return
        log.warning("%s: nothing comes round; subscribing anew", self._topic)
        self._resubscribed = True
        try:
            self._loop.resubscribe()
        except WheeltapperError as error:
            log.warning("%s", error)
