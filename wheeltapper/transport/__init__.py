"""
The seam to the outside: publish and subscribe, at least once, whatever carries it.

``memory.MemoryBroker`` carries it in tests and fails on cue, ``mqtt.MqttTransport`` through any broker (paho),
``bulk.BulkTransport`` through any broker for those who hear much,
``careful.CarefulTransport`` finds out on what a broker hangs up, ``patient.PatientTransport`` starts without one,
``aws.AwsTransport`` to AWS IoT Core or any MQTT 5 broker (awsiotsdk), ``greengrass.GreengrassTransport`` through a nucleus.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec


class Delivery(Protocol):
    """A message that has arrived and is not yet acknowledged."""

    @property
    def topic(self) -> str: ...

    @property
    def payload(self) -> bytes: ...

    def acknowledge(self) -> None:
        """Tell the broker that the message's effect is durable; safe from any thread, harmless when repeated."""


Handler = Callable[[Delivery], None]


class Refused(msgspec.Struct, frozen=True):
    """
    The other side has said that it will not take this message; false, as all that was not delivered is.

    Attributes:
        reason: its words.
        final: it was sent often enough to know; to send it again would do harm.
    """

    reason: str
    final: bool = False

    def __bool__(self) -> bool:
        return False


Settled = Callable[[bool | Refused], None]


class Transport(Protocol):
    """
    A connection that mends itself.

    Handlers run one at a time, in order of arrival, on the transport's own thread: they must not block on the transport.
    A delivery that is not acknowledged comes again after a reconnect.
    """

    def start(self) -> None:
        """
        Connect, and go on trying for ever after the first success.

        Raises:
            UnavailableError: nobody answers at the address.
            SettingsError: the address or the credentials are refused.
        """

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        """Deliver what passes the filter, QoS 1; renewed after every reconnect. May be called before ``start``."""

    def publish(self, topic: str, payload: bytes, done: Settled | None = None) -> None:
        """
        Send once, QoS 1; keeps nothing: what must not be lost goes through an outbox.

        Args:
            topic: a topic name, without wildcards.
            payload: the bytes.
            done: called once, from any thread: True when the other side has acknowledged, ``Refused`` when it has said that
                it will not take this message, False when the message may be lost (not connected, connection lost before
                the acknowledgement).
        """

    @property
    def connected(self) -> bool: ...

    @property
    def trouble(self) -> str:
        """Why what was subscribed to will not come although there is a connection, in one line; empty where it will."""

    def close(self) -> None:
        """Stop taking work, disconnect cleanly; harmless when repeated."""
