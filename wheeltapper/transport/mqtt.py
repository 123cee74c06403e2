"""
MQTT 3.1.1 through paho, for any broker.

A fresh paho client is made for every connection: paho's own queue would otherwise send again, out of order, what the
outbox sends again in order. The session lives at the broker, under the client id, so subscriptions and what is not yet
acknowledged outlast a connection.
"""

import contextlib
import logging
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.topics import plain_filter
from wheeltapper.transport import Handler
from wheeltapper.transport.settings import BrokerSettings, refused_subscriptions

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 10.0
_NO_ANSWER = "no answer to CONNECT"
_BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class _MqttDelivery:
    """One QoS 1 message of one connection."""

    __slots__ = ("_client", "_mid", "_qos", "payload", "topic")

    def __init__(self, client: paho.Client, message: paho.MQTTMessage) -> None:
        self._client: paho.Client | None = client
        self._mid = message.mid
        self._qos = message.qos
        self.topic = message.topic
        self.payload = bytes(message.payload)

    def acknowledge(self) -> None:
        client, self._client = self._client, None
        if client is not None and self._qos > 0:
            client.ack(self._mid, self._qos)


class MqttTransport:
    """
    The Transport protocol over paho.

    Args:
        settings: where the broker is and who we are to it.
        client_id: names the session where the settings name none; made up, and the session forgotten, where both are empty.
    """

    def __init__(self, settings: BrokerSettings, client_id: str = "") -> None:
        self._settings = settings
        self._address = settings.host_and_port()
        self._client_id = settings.client_id or client_id
        self._clean = not self._client_id
        self._client_id = self._client_id or f"wheeltapper-{uuid.uuid4().hex[:12]}"
        self._handlers: dict[str, Handler] = {}
        self._asked: dict[int, str] = {}
        self._answers: dict[int, bool] = {}
        self._lock = threading.Lock()
        self._pending: dict[int, Callable[[bool], None] | None] = {}
        self._early: set[int] = set()
        self._client: paho.Client | None = None
        self._connected = threading.Event()
        self._lost = threading.Event()
        self._answered = threading.Event()
        self._stop = threading.Event()
        self._refusal = ""
        self._thread = threading.Thread(target=self._keep_connected, name=f"mqtt-{self._client_id}", daemon=True)

    def start(self) -> None:
        self._settings.check_files()
        host, port = self._address
        try:
            self._connect()
        except (OSError, ValueError) as error:
            if isinstance(error, ssl.SSLError) and error.reason != "UNEXPECTED_EOF_WHILE_READING":
                raise SettingsError(f"broker {host}:{port}: TLS refused: {error.reason or error}") from error
            raise UnavailableError(
                f"broker {host}:{port}: cannot be reached ({error}); start it, or name another with --broker mqtt://host:port"
            ) from error
        self._thread.start()

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        self._handlers[topic_filter] = handler
        client = self._client
        if client is not None and self._connected.is_set():
            self._subscribe_now(client, topic_filter)

    def publish(self, topic: str, payload: bytes, done: Callable[[bool], None] | None = None) -> None:
        # paho calls back with its own lock held, so ours is never held while paho is called.
        client = self._client
        delivered = False
        if client is not None and self._connected.is_set():
            info = client.publish(topic, payload, qos=1)
            if info.rc == paho.MQTT_ERR_SUCCESS:
                with self._lock:
                    delivered = info.mid in self._early
                    self._early.discard(info.mid)
                    if not delivered and self._client is client:
                        self._pending[info.mid] = done
                        return
        if done is not None:
            done(delivered)

    @property
    def connected(self) -> bool:
        return self._connected.is_set()

    @property
    def trouble(self) -> str:
        answers = self._answers
        latest = {name: answers.get(mid, True) for mid, name in list(self._asked.items()) if mid in answers}
        return refused_subscriptions(self._address, [name for name, granted in latest.items() if not granted])

    def close(self) -> None:
        self._stop.set()
        self._lost.set()
        with self._lock:
            client = self._client
        if client is not None:
            with contextlib.suppress(Exception):
                client.disconnect()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(_CONNECT_TIMEOUT_S)
        self._drop_client()

    def _connect(self) -> None:
        """Make one connection; raises OSError or ValueError when it cannot be had."""
        client = self._new_client()
        self._lost.clear()
        self._answered.clear()
        self._refusal = _NO_ANSWER
        self._asked, self._answers = {}, {}
        host, port = self._address
        client.connect(host, port, keepalive=self._settings.keep_alive_s)
        with self._lock:
            self._client = client
        client.loop_start()
        self._answered.wait(_CONNECT_TIMEOUT_S)
        if not self._connected.is_set():
            self._drop_client()
            raise OSError(self._refusal)

    def _new_client(self) -> paho.Client:
        settings = self._settings
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=self._clean,
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        if settings.tls:
            context = ssl.create_default_context(cafile=settings.ca)
            if settings.certificate is not None:
                context.load_cert_chain(settings.certificate, settings.key)
            client.tls_set_context(context)
        if settings.username:
            client.username_pw_set(settings.username, settings.password())
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(65_535)
        client.max_queued_messages_set(0)
        client.on_socket_open = _set_no_delay
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    def _on_connect(self, client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            self._refusal = f"refused: {reason}"
            self._answered.set()
            return
        for topic_filter in list(self._handlers):
            self._subscribe_now(client, topic_filter)
        self._connected.set()
        self._answered.set()
        log.info("broker %s:%d: connected", *self._address)

    def _subscribe_now(self, client: paho.Client, topic_filter: str) -> None:
        client.message_callback_add(plain_filter(topic_filter), self._on_message_for(topic_filter))
        _error, mid = client.subscribe(topic_filter, qos=1)
        if mid is not None:
            self._asked[mid] = topic_filter

    def _on_subscribe(
        self, _client: paho.Client, _data: Any, mid: int, reasons: Sequence[ReasonCode], _properties: Any
    ) -> None:
        granted = self._answers[mid] = not any(reason.is_failure for reason in reasons)
        asked = self._asked
        for old in [number for number, name in list(asked.items()) if name == asked.get(mid) and number != mid]:
            if self._answers.pop(old, None) is not None:
                del asked[old]
        if not granted:
            log.error("broker %s:%d: refused a subscription; see its access rules", *self._address)

    def _on_message_for(self, topic_filter: str) -> Callable[[paho.Client, Any, paho.MQTTMessage], None]:
        def deliver(client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
            if message.retain:  # what was retained is old, and comes again with every reconnect
                client.ack(message.mid, message.qos)
                return
            try:
                self._handlers[topic_filter](_MqttDelivery(client, message))
            except Exception:
                log.exception("%s: a handler failed", message.topic)

        return deliver

    def _on_message(self, client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        """What the session still held for a filter that nobody listens to any more."""
        client.ack(message.mid, message.qos)

    def _on_publish(self, _client: paho.Client, _data: Any, mid: int, _reason: ReasonCode, _properties: Any) -> None:
        with self._lock:
            if mid not in self._pending:
                self._early.add(mid)
                return
            done = self._pending.pop(mid)
        if done is not None:
            done(True)

    def _on_disconnect(
        self, client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        if self._connected.is_set() and not self._stop.is_set():
            log.warning("broker %s:%d: connection lost (%s)", *self._address, reason)
        elif self._refusal == _NO_ANSWER:
            hint = "; is the certificate valid? See: wheeltapper certs show" if self._settings.tls else ""
            self._refusal = f"it hung up before CONNACK{hint}"
        self._connected.clear()
        self._answered.set()
        self._lost.set()

    def _drop_client(self) -> None:
        with self._lock:
            client, self._client = self._client, None
            self._connected.clear()
        if client is not None:
            client.loop_stop()
        with self._lock:
            pending, self._pending = self._pending, {}
            self._early.clear()
        for done in pending.values():
            if done is not None:
                done(False)

    def _keep_connected(self) -> None:
        while not self._stop.is_set():
            self._lost.wait()
            self._drop_client()
            attempt = 0
            while not self._stop.wait(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)]):
                attempt += 1
                try:
                    self._connect()
                    break
                except (OSError, ValueError, SettingsError) as error:
                    log.warning("broker %s:%d: cannot be reached: %s", *self._address, error)


def _set_no_delay(_client: paho.Client, _data: Any, connection: Any) -> None:
    with contextlib.suppress(OSError, AttributeError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
