"""
A transport that starts without its broker.

A device in the field measures whether or not the broker answers when it is switched on, and whether or not its certificate
is still valid; it goes on trying, with fresh credentials from disk each time.
"""

import logging
import threading
from collections.abc import Callable, Mapping

from wheeltapper.clock import Clock, SystemClock
from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.transport import Handler, Settled, Transport

log = logging.getLogger(__name__)

_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class PatientTransport:
    """
    The Transport protocol over a transport that is made anew until it starts.

    Args:
        make: a transport, not yet started.
        clock: paces the attempts.
    """

    def __init__(self, make: Callable[[], Transport], clock: Clock | None = None) -> None:
        self._make = make
        self._clock = clock or SystemClock()
        self._handlers: dict[str, Handler] = {}
        self._lock = threading.Lock()
        self._started: Transport | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._try, name="connect", daemon=True)
        self._next: Transport | None = None

    def start(self) -> None:
        """
        Return at once; the connection comes when it can be had.

        Raises:
            SettingsError: the transport cannot even be made; no waiting would help.
        """
        self._next = self._make()
        self._thread.start()

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        with self._lock:
            self._handlers[topic_filter] = handler
            started = self._started
        if started is not None:
            started.subscribe(topic_filter, handler)

    def publish(self, topic: str, payload: bytes, done: Settled | None = None) -> None:
        started = self._started
        if started is not None:
            started.publish(topic, payload, done)
        elif done is not None:
            done(False)

    @property
    def connected(self) -> bool:
        started = self._started
        return started is not None and started.connected

    @property
    def trouble(self) -> str:
        started = self._started
        return started.trouble if started is not None else ""

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()
        if self._started is not None:
            self._started.close()

    def _try(self) -> None:
        attempt = 0
        while not self._stop.is_set():
            transport, self._next = self._next or self._make(), None
            with self._lock:
                known = dict(self._handlers)
            for topic_filter, handler in known.items():
                transport.subscribe(topic_filter, handler)
            try:
                transport.start()
            except (UnavailableError, SettingsError) as error:
                log.warning("%s; trying again", error)
                transport.close()
            else:
                self._take(transport, known)
                return
            self._clock.wait(self._stop, _BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])
            attempt += 1

    def _take(self, transport: Transport, known: Mapping[str, Handler]) -> None:
        with self._lock:
            self._started = transport
            late = {name: handler for name, handler in self._handlers.items() if name not in known}
        for topic_filter, handler in late.items():
            transport.subscribe(topic_filter, handler)
