"""
MQTT 3.1.1 for those who hear much: the cloud companion and gateways beside a busy broker.

It speaks the protocol over a socket of its own, because the client libraries cost more for a message than judging it does:
they make several system calls for each, and each of those gives the interpreter away to the thread that judges. This one
reads whatever has come, hands it on, and acknowledges it together.
"""

import logging
import socket
import ssl
import threading
import uuid
from collections.abc import Callable

from wheeltapper.clock import Clock, SystemClock
from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.topics import matches, plain_filter
from wheeltapper.transport import Handler
from wheeltapper.transport import mqtt_packets as packets
from wheeltapper.transport.mqtt_link import Link, LinkDelivery
from wheeltapper.transport.settings import BrokerSettings, refused_subscriptions

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 10.0
_BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_KNOWN_TOPICS = 100_000


class BulkTransport:
    """
    The Transport protocol over one socket.

    Args:
        settings: where the broker is and who we are to it.
        client_id: names the session where the settings name none; made up, and the session forgotten, where both are empty.
    """

    def __init__(self, settings: BrokerSettings, client_id: str = "", clock: Clock | None = None) -> None:
        self._settings = settings
        self._address = settings.host_and_port()
        named = settings.client_id or client_id
        self._clean = not named
        self._client_id = named or f"wheeltapper-{uuid.uuid4().hex[:12]}"
        self._clock = clock or SystemClock()
        self._handlers: dict[str, Handler] = {}
        self._by_topic: dict[str, Handler | None] = {}
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_connected, name=f"mqtt-{self._client_id}", daemon=True)

    def start(self) -> None:
        self._settings.check_files()
        where = "broker {}:{}".format(*self._address)
        try:
            self._connect()
        except ssl.SSLError as error:
            raise SettingsError(f"{where}: TLS refused: {error.reason or error}") from error
        except (OSError, ValueError) as error:
            raise UnavailableError(
                f"{where}: cannot be reached ({error}); start it, or name another with --broker mqtt://host:port"
            ) from error
        self._thread.start()

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        with self._lock:
            self._handlers[topic_filter] = handler
            self._by_topic = {}
            link = self._link
        if link is not None:
            link.subscribe([topic_filter])

    def publish(self, topic: str, payload: bytes, done: Callable[[bool], None] | None = None) -> None:
        link = self._link
        if (link is None or not link.publish(topic, payload, done)) and done is not None:
            done(False)

    @property
    def connected(self) -> bool:
        return self._link is not None

    @property
    def trouble(self) -> str:
        link = self._link
        return refused_subscriptions(self._address, link.refused) if link is not None else ""

    def close(self) -> None:
        self._stop.set()
        link = self._link
        if link is not None:
            link.close()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(_CONNECT_TIMEOUT_S)

    def _connect(self) -> None:
        """Make one connection; raises OSError or ValueError when it cannot be had."""
        settings = self._settings
        connection = socket.create_connection(self._address, _CONNECT_TIMEOUT_S)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if settings.tls:
                connection = self._encrypted(connection)
            hello = packets.connect(
                self._client_id, clean=self._clean, keep_alive_s=settings.keep_alive_s,
                username=settings.username, password=settings.password(),
            )  # fmt: skip
            link = Link(connection, hello, settings.keep_alive_s, self._deliver, self._clock)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._link = link
            filters = list(self._handlers)
        if filters:
            link.subscribe(filters)
        log.info("broker %s:%d: connected", *self._address)

    def _encrypted(self, connection: socket.socket) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self._settings.ca)
        if self._settings.certificate is not None:
            context.load_cert_chain(self._settings.certificate, self._settings.key)
        return context.wrap_socket(connection, server_hostname=self._address[0])

    def _deliver(self, delivery: LinkDelivery) -> None:
        topic = delivery.topic
        try:
            handler = self._by_topic[topic]
        except KeyError:
            handler = self._find(topic)
        if handler is None:  # what the session still held for a filter that nobody listens to any more
            delivery.acknowledge()
            return
        try:
            handler(delivery)
        except Exception:
            log.exception("%s: a handler failed", topic)

    def _find(self, topic: str) -> Handler | None:
        with self._lock:
            found = (handler for name, handler in self._handlers.items() if matches(plain_filter(name), topic))
            handler = next(found, None)
            if len(self._by_topic) >= _KNOWN_TOPICS:
                self._by_topic = {}
            self._by_topic[topic] = handler
            return handler

    def _keep_connected(self) -> None:
        while not self._stop.is_set():
            if self._link is not None:
                reason = self._link.serve()
                self._link = None
                if not self._stop.is_set():
                    log.warning("broker %s:%d: connection lost (%s)", *self._address, reason)
            self._reconnect()
        if self._link is not None:  # connected while it was told to stop
            self._link.close()
            self._link.serve()
            self._link = None

    def _reconnect(self) -> None:
        attempt = 0
        while not self._clock.wait(self._stop, _BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)]):
            attempt += 1
            try:
                self._connect()
                return
            except (OSError, ValueError, SettingsError) as error:
                log.warning("broker %s:%d: cannot be reached: %s", *self._address, error)
