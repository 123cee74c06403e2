"""
MQTT 5 through the AWS client: AWS IoT Core with X.509, and the fastest way in from any MQTT 5 broker.

Its queue is told to fail at once what cannot be sent, so that what must not be lost waits in the outbox alone.
"""

import logging
import queue
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from awscrt import io, mqtt5

from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.topics import matches, plain_filter
from wheeltapper.transport import Handler, Refused, Settled
from wheeltapper.transport.settings import BrokerSettings, refused_subscriptions

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 10.0
_ACK_TIMEOUT_S = 30
_RECEIVE_MAXIMUM = 65_535
# Failures of the moment, not of the message: packet number in use, quota exceeded.
_PASSING = (0x91, 0x97)


class _AwsDelivery:
    __slots__ = ("_acknowledge", "payload", "topic")

    def __init__(self, packet: mqtt5.PublishPacket, acknowledge: Callable[[], None]) -> None:
        self.topic: str = packet.topic
        self.payload: bytes = packet.payload or b""
        self._acknowledge: Callable[[], None] | None = acknowledge

    def acknowledge(self) -> None:
        acknowledge, self._acknowledge = self._acknowledge, None
        if acknowledge is not None:
            acknowledge()


class AwsTransport:
    """
    The Transport protocol over awscrt's MQTT 5 client.

    Args:
        settings: where the broker is and who we are to it.
        client_id: names the session where the settings name none; made up, and the session forgotten, where both are empty.
    """

    def __init__(self, settings: BrokerSettings, client_id: str = "") -> None:
        self._settings = settings
        self._host, self._port = settings.host_and_port()
        named = settings.client_id or client_id
        self._client_id = named or f"wheeltapper-{uuid.uuid4().hex[:12]}"
        self._session_expiry_s = settings.session_expiry_s if named else 0
        self._handlers: dict[str, Handler] = {}
        self._refused: set[str] = set()
        self._lock = threading.Lock()
        self._connected = threading.Event()
        self._stopped = threading.Event()
        self._outcome: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._started = False
        self._client: mqtt5.Client | None = None

    def start(self) -> None:
        self._settings.check_files()
        self._client = mqtt5.Client(self._options())
        self._client.start()
        self._started = True
        try:
            failure = self._outcome.get(timeout=_CONNECT_TIMEOUT_S)
        except queue.Empty:
            failure = "no answer to CONNECT"
        if failure is not None:
            self.close()
            where = f"broker {self._host}:{self._port}"
            if "TLS" in str(failure):
                raise SettingsError(f"{where}: TLS refused: {failure}")
            raise UnavailableError(
                f"{where}: cannot be reached ({failure}); start it, or name another with --broker mqtt://host:port"
            )

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        with self._lock:
            self._handlers[topic_filter] = handler
        if self._client is not None and self._connected.is_set():
            self._subscribe_now([topic_filter])

    def publish(self, topic: str, payload: bytes, done: Settled | None = None) -> None:
        if self._client is None or not self._connected.is_set():
            if done is not None:
                done(False)
            return
        future: Future[Any] = self._client.publish(
            mqtt5.PublishPacket(topic=topic, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE)
        )
        if done is not None:
            future.add_done_callback(lambda settled: done(_outcome(settled)))

    @property
    def connected(self) -> bool:
        return self._connected.is_set()

    @property
    def trouble(self) -> str:
        with self._lock:
            return refused_subscriptions((self._host, self._port), self._refused)

    def close(self) -> None:
        if self._client is not None and self._started:
            self._started = False
            self._client.stop()
            self._stopped.wait(_CONNECT_TIMEOUT_S)
        self._connected.clear()

    def _options(self) -> mqtt5.ClientOptions:
        settings = self._settings
        tls = None
        if settings.tls:
            options = (
                io.TlsContextOptions.create_client_with_mtls_from_path(str(settings.certificate), str(settings.key))
                if settings.certificate is not None
                else io.TlsContextOptions()
            )
            if settings.ca is not None:
                options.override_default_trust_store_from_path(None, str(settings.ca))
            if self._port == 443:
                options.alpn_list = ["x-amzn-mqtt-ca"]
            try:
                tls = io.ClientTlsContext(options)
            except Exception as error:
                raise SettingsError(f"broker {self._host}: certificate or key refused: {error}") from error
        return mqtt5.ClientOptions(
            host_name=self._host,
            port=self._port,
            tls_ctx=tls,
            connect_options=mqtt5.ConnectPacket(
                client_id=self._client_id,
                keep_alive_interval_sec=settings.keep_alive_s,
                session_expiry_interval_sec=self._session_expiry_s,
                receive_maximum=_RECEIVE_MAXIMUM,
                username=settings.username or None,
                password=settings.password(),
            ),
            session_behavior=mqtt5.ClientSessionBehaviorType.REJOIN_ALWAYS,
            offline_queue_behavior=mqtt5.ClientOperationQueueBehaviorType.FAIL_ALL_ON_DISCONNECT,
            min_reconnect_delay_ms=100,
            max_reconnect_delay_ms=5_000,
            ack_timeout_sec=_ACK_TIMEOUT_S,
            on_publish_callback_fn=self._on_publish,
            on_lifecycle_event_connection_success_fn=self._on_connected,
            on_lifecycle_event_connection_failure_fn=self._on_failure,
            on_lifecycle_event_disconnection_fn=self._on_disconnected,
            on_lifecycle_event_stopped_fn=lambda _data: self._stopped.set(),
            disable_metrics=True,
        )

    def _on_publish(self, data: mqtt5.PublishReceivedData) -> None:
        packet = data.publish_packet
        client = self._client
        if data.acquire_publish_acknowledgement_control is None or client is None:
            delivery = _AwsDelivery(packet, lambda: None)
        else:
            handle = data.acquire_publish_acknowledgement_control()
            delivery = _AwsDelivery(packet, lambda: client.invoke_publish_acknowledgement(handle))
        handler = self._handler_of(packet.topic)
        if handler is None or packet.retain:  # what was retained is old, and comes again with every reconnect
            delivery.acknowledge()
            return
        try:
            handler(delivery)
        except Exception:
            log.exception("%s: a handler failed", packet.topic)

    def _handler_of(self, topic: str) -> Handler | None:
        handlers = self._handlers
        if len(handlers) == 1:
            return next(iter(handlers.values()))
        for topic_filter, handler in list(handlers.items()):
            if matches(plain_filter(topic_filter), topic):
                return handler
        return None

    def _on_connected(self, _data: mqtt5.LifecycleConnectSuccessData) -> None:
        self._connected.set()
        with self._lock:
            filters = list(self._handlers)
        if filters:
            self._subscribe_now(filters)
        log.info("broker %s:%d: connected", self._host, self._port)
        self._outcome.put(None)

    def _subscribe_now(self, filters: list[str]) -> None:
        subscriptions = [mqtt5.Subscription(topic_filter=name, qos=mqtt5.QoS.AT_LEAST_ONCE) for name in filters]
        assert self._client is not None  # noqa: S101 - only called while connected
        future: Future[Any] = self._client.subscribe(mqtt5.SubscribePacket(subscriptions=subscriptions))
        future.add_done_callback(lambda settled: self._subscribed(filters, settled))

    def _subscribed(self, filters: list[str], settled: "Future[Any]") -> None:
        error = settled.exception()
        if error is not None:  # the connection is lost, or will be: the next one subscribes again
            log.warning("broker %s:%d: no answer to subscribing: %s", self._host, self._port, error)
            return
        codes = settled.result().reason_codes
        refused = {name for name, code in zip(filters, codes, strict=False) if int(code) >= 0x80}
        with self._lock:
            self._refused = self._refused.difference(filters) | refused
        if refused:
            log.error("%s", refused_subscriptions((self._host, self._port), refused))

    def _on_failure(self, data: mqtt5.LifecycleConnectFailureData) -> None:
        log.warning("broker %s:%d: cannot be reached: %s", self._host, self._port, data.exception)
        self._outcome.put(data.exception)

    def _on_disconnected(self, data: mqtt5.LifecycleDisconnectData) -> None:
        if self._started:
            log.warning("broker %s:%d: connection lost (%s)", self._host, self._port, data.exception)
        self._connected.clear()


def _outcome(future: "Future[Any]") -> bool | Refused:
    if future.cancelled() or future.exception() is not None:
        return False
    puback = getattr(future.result(), "puback", None)
    if puback is None:
        return False
    code = int(puback.reason_code)
    if code < 0x80:
        return True
    if code in _PASSING:
        return False
    said = puback.reason_string
    return Refused(f"MQTT 5 reason 0x{code:02x} {puback.reason_code.name}" + (f": {said}" if said else ""))
