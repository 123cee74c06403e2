"""
One side of a Greengrass nucleus as a Transport: publish/subscribe between components, or AWS IoT Core behind the nucleus.

Both go over the one connection of a ``Nucleus``, which makes them and has them subscribe anew.
"""

import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from awsiot.greengrasscoreipc import model

from wheeltapper.clock import Clock
from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.transport import Handler, Refused, Settled

if TYPE_CHECKING:
    from wheeltapper.transport.greengrass import Nucleus

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 5.0
_PAUSE_S = (0.5, 1.0, 2.0, 5.0, 10.0)
_SHOWN = 3
_MOST_FORBIDDEN = 100
_NEVER = (model.UnauthorizedError, model.InvalidArgumentsError)

Done = Callable[[bool], None]


class NucleusDelivery:
    """A message from the nucleus, which knows no acknowledgements."""

    __slots__ = ("payload", "topic")

    def __init__(self, topic: str, payload: bytes) -> None:
        self.topic = topic
        self.payload = payload

    def acknowledge(self) -> None:
        """Nothing: the nucleus has forgotten the message."""


class GreengrassTransport:
    """
    The Transport protocol over one side of a nucleus.

    Args:
        nucleus: the connection.
        side: ``local`` or ``core``.
        limit: payload bytes; a longer message is refused, since a nucleus lite would hang up on it.
    """

    def __init__(self, nucleus: "Nucleus", side: str, limit: int, clock: Clock) -> None:
        self._nucleus = nucleus
        self._side = side
        self._limit = limit
        self._clock = clock
        self._handlers: dict[str, Handler] = {}
        self._operations: dict[str, Any] = {}
        self._forbidden: dict[tuple[str, str], None] = {}
        self._failures = 0
        self._pause_until = 0.0

    def start(self) -> None:
        self._nucleus.start()

    @property
    def connected(self) -> bool:
        """False as well for a moment after a failed publish, so that what waits is not thrown at a link that is away."""
        if self._side == "core" and not self._nucleus.core_reachable:
            return False
        return self._nucleus.connected and self._clock.monotonic() >= self._pause_until

    @property
    def trouble(self) -> str:
        forbidden = [f"{what} {topic}" for what, topic in sorted(self._forbidden)]
        more = f" and {len(forbidden) - _SHOWN} more" if len(forbidden) > _SHOWN else ""
        return self._not_allowed(", ".join(forbidden[:_SHOWN]) + more) if forbidden else ""

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        """
        As the protocol has it, and where there is a connection already:

        Raises:
            SettingsError: the recipe does not allow it; ``trouble`` says so, too.
            UnavailableError: the nucleus does not take it.
        """
        self._handlers[topic_filter] = handler
        if self._nucleus.connected and topic_filter not in self._operations:
            self._subscribe(topic_filter)

    def publish(self, topic: str, payload: bytes, done: Settled | None = None) -> None:
        if len(payload) > self._limit:
            self._refuse(topic, f"{len(payload)} bytes are more than the {self._limit} that it takes", done)
        elif not self.connected:
            self._tell(done, False)
        else:
            self._send(topic, payload, "1", lambda error: self._settle(topic, error, done))

    def probe(self, topic: str, payload: bytes, done: Done) -> None:
        """
        Publish now or never, QoS 0: a nucleus that spools QoS 1 while the link is away refuses this.

        Args:
            done: True when the nucleus has taken it; where the recipe does not allow it, ``trouble`` says so.
        """

        def told(error: BaseException | None) -> None:
            if error is None or isinstance(error, _NEVER):
                self._note("publishing on", topic, allowed=error is None)
            done(error is None)

        if not self._nucleus.connected or ("subscribing to", topic) in self._forbidden:
            done(False)
        else:
            self._send(topic, payload, "0", told)

    def resubscribe(self) -> None:
        """
        Replace every subscription: their streams may be dead without a sign.

        Raises:
            UnavailableError: the nucleus does not take them; what it took stays.
        """
        operations, self._operations = self._operations, {}
        for operation in operations.values():
            operation.close()
        self.subscribe_all()

    def subscribe_all(self) -> None:
        """Subscribe anew on a fresh connection; see ``resubscribe``. What is not allowed keeps nothing else from coming."""
        self._operations = {}
        self._failures, self._pause_until = 0, 0.0
        for topic_filter in list(self._handlers):
            with contextlib.suppress(SettingsError):
                self._subscribe(topic_filter)

    def close(self) -> None:
        self._nucleus.close()

    def _send(self, topic: str, payload: bytes, qos: str, told: Callable[[BaseException | None], None]) -> None:
        try:
            client = self._nucleus.client()
            if self._side == "core":
                future = client.publish_to_iot_core_async(topic_name=topic, qos=qos, payload=payload)
            else:
                message = model.PublishMessage(binary_message=model.BinaryMessage(message=payload))
                future = client.publish_to_topic_async(topic=topic, publish_message=message)
        except Exception as error:  # the connection closed meanwhile
            told(error)
            return
        future.add_done_callback(lambda settled: told(settled.exception()))

    def _settle(self, topic: str, error: BaseException | None, done: Settled | None) -> None:
        if error is None:
            self._failures, self._pause_until = 0, 0.0
            self._note("publishing on", topic, allowed=True)
        elif isinstance(error, _NEVER):
            self._note("publishing on", topic, allowed=False)
            self._refuse(topic, f"the recipe's accessControl does not allow it ({named(error)})", done)
            return
        else:
            pause = _PAUSE_S[min(self._failures, len(_PAUSE_S) - 1)]
            if self._clock.monotonic() >= self._pause_until:
                self._failures += 1
                self._pause_until = self._clock.monotonic() + pause
            log.warning("%s: not taken by greengrass %s: %s", topic, self._side, named(error))
        self._tell(done, error is None)

    def _refuse(self, topic: str, reason: str, done: Settled | None) -> None:
        log.error("%s: refused by greengrass %s: %s", topic, self._side, reason)
        self._tell(done, Refused(reason))

    def _tell(self, done: Settled | None, outcome: bool | Refused) -> None:
        if done is not None:
            done(outcome)

    def _subscribe(self, topic_filter: str) -> None:
        client = self._nucleus.client()
        if self._side == "core":
            future, operation = client.subscribe_to_iot_core_async(
                topic_name=topic_filter,
                qos="1",
                on_stream_event=lambda event: self._deliver(
                    topic_filter, event.message.topic_name, event.message.payload
                ),
                on_stream_error=keep_stream,
            )
        else:
            future, operation = client.subscribe_to_topic_async(
                topic=topic_filter,
                on_stream_event=lambda event: self._deliver_local(topic_filter, event),
                on_stream_error=keep_stream,
            )
        try:
            future.result(CALL_TIMEOUT_S)
        except _NEVER as error:
            self._note("subscribing to", topic_filter, allowed=False)
            raise SettingsError(self._not_allowed(f"subscribing to {topic_filter}")) from error
        except Exception as error:
            raise UnavailableError(f"greengrass: cannot subscribe to {topic_filter}: {named(error)}") from error
        self._note("subscribing to", topic_filter, allowed=True)
        self._operations[topic_filter] = operation

    def _note(self, what: str, topic: str, *, allowed: bool) -> None:
        """Remember what the recipe does not allow, until it does."""
        if allowed:
            self._forbidden.pop((what, topic), None)
        elif (what, topic) not in self._forbidden and len(self._forbidden) < _MOST_FORBIDDEN:
            self._forbidden[what, topic] = None
            log.error("%s", self._not_allowed(f"{what} {topic}"))

    def _not_allowed(self, what: str) -> str:
        return f"greengrass {self._side}: the recipe's accessControl does not allow {what}"

    def _deliver_local(self, topic_filter: str, event: Any) -> None:
        message = event.binary_message or event.json_message
        payload = message.message if event.binary_message else msgspec.json.encode(message.message)
        context = message.context
        self._deliver(topic_filter, context.topic if context is not None else topic_filter, payload)

    def _deliver(self, topic_filter: str, topic: str, payload: bytes | None) -> None:
        handler = self._handlers.get(topic_filter)
        if handler is not None:
            handler(NucleusDelivery(topic, payload or b""))


def keep_stream(error: Exception) -> bool:
    """What a stream does about an event that could not be read: log it, and go on."""
    log.warning("greengrass: an event could not be read: %s", named(error))
    return False


def named(error: BaseException) -> str:
    """An error as one reads it: a nucleus lite sends none but its class."""
    text = " ".join(str(getattr(error, "message", None) or error).split())
    return f"{type(error).__name__} {text}".strip()
