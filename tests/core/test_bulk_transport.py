"""MQTT transports, the bulk one above all, against a broker that does what it is told."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.loopback import wait_until
from wheeltapper.errors import UnavailableError
from wheeltapper.transport import Delivery, Transport, mqtt_link
from wheeltapper.transport import mqtt_packets as packets
from wheeltapper.transport.bulk import BulkTransport
from wheeltapper.transport.settings import BrokerSettings, Client, open_transport


class ScriptedBroker:
    """Accepts connections; the test reads and writes the packets."""

    def __init__(self, connack: bytes = b"\x20\x02\x00\x00") -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connack = connack
        self.port = self._listener.getsockname()[1]

    def accept(self) -> "Peer":
        connection = self._listener.accept()[0]
        connection.settimeout(90)
        peer = Peer(connection)
        assert peer.next()[0] == 0x10
        connection.sendall(self._connack)
        return peer

    def close(self) -> None:
        self._listener.close()


class Peer:
    """The broker's end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._splitter = packets.Splitter()
        self._found: list[tuple[int, bytes]] = []

    def next(self) -> tuple[int, bytes]:
        while not self._found:
            data = self.connection.recv(1 << 16)
            assert data
            self._found = self._splitter.feed(data)
        return self._found.pop(0)


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    scripted = ScriptedBroker()
    yield scripted
    scripted.close()


def started(broker: ScriptedBroker, transport: Transport) -> Peer:
    starting = threading.Thread(target=transport.start)
    starting.start()
    peer = broker.accept()
    starting.join(90)
    return peer


def transport_to(broker: ScriptedBroker, keep_alive_s: int = 30) -> BulkTransport:
    return BulkTransport(BrokerSettings(url=f"mqtt://127.0.0.1:{broker.port}", keep_alive_s=keep_alive_s), "me")


def test_an_acknowledgement_is_sent_on_the_connection_of_its_message_or_not_at_all(broker: ScriptedBroker) -> None:
    arrived: list[Delivery] = []
    transport = transport_to(broker)
    transport.subscribe("a", arrived.append)
    first = started(broker, transport)
    first.next()
    first.connection.sendall(packets.publish("a", b"1", 7))
    while not arrived:
        time.sleep(0.01)
    first.connection.close()
    second = broker.accept()

    arrived[0].acknowledge()
    while not transport.connected:
        time.sleep(0.01)
    transport.publish("b", b"2")

    assert [second.next()[0] & 0xF0 for _ in range(2)] == [0x80, packets.PUBLISH]
    transport.close()


def test_a_message_behind_the_connack_is_not_lost() -> None:
    broker = ScriptedBroker(b"\x20\x02\x01\x00" + packets.publish("a", b"1", 7))
    transport = transport_to(broker)
    transport.subscribe("a", lambda delivery: delivery.acknowledge())
    peer = started(broker, transport)

    answers = {peer.next()[0] for _ in range(2)}

    assert answers == {0x82, packets.PUBACK}
    transport.close()
    broker.close()


def test_what_is_not_acknowledged_when_the_connection_ends_has_failed(broker: ScriptedBroker) -> None:
    outcomes: list[bool] = []
    transport = transport_to(broker)
    peer = started(broker, transport)
    transport.publish("a", b"1", outcomes.append)
    transport.publish("a", b"2", outcomes.append)
    first = peer.next()[1]
    peer.connection.sendall(packets.answer(packets.PUBACK, packets.read_publish(0x32, first)[2]))
    while not outcomes:
        time.sleep(0.01)
    peer.connection.close()
    while len(outcomes) < 2:
        time.sleep(0.01)

    assert outcomes == [True, False]
    transport.close()


def test_a_message_that_the_broker_never_acknowledges_although_it_answers_is_given_up(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_link, "_PATIENCE_S", 0.5)
    outcomes: list[bool] = []
    transport = transport_to(broker, keep_alive_s=60)
    peer = started(broker, transport)
    transport.publish("a", b"1", outcomes.append)

    def answer() -> None:
        with contextlib.suppress(OSError, AssertionError):
            while not outcomes:
                peer.connection.sendall(b"\xd0\x00" if peer.next()[0] == 0xC0 else b"")

    threading.Thread(target=answer, daemon=True).start()
    with contextlib.suppress(OSError):  # it hangs up
        while not outcomes:
            peer.connection.sendall(packets.publish("b", b"", 7))
            time.sleep(0.05)
    wait_until(lambda: bool(outcomes))

    assert outcomes == [False]
    broker.accept()
    transport.close()


def test_a_quiet_connection_is_kept_alive(broker: ScriptedBroker) -> None:
    transport = transport_to(broker, keep_alive_s=1)

    peer = started(broker, transport)

    assert peer.next() == (0xC0, b"")
    transport.close()


def test_a_broker_that_answers_no_ping_is_left(broker: ScriptedBroker) -> None:
    transport = transport_to(broker, keep_alive_s=1)
    started(broker, transport)

    assert broker.accept()
    transport.close()


def test_a_refused_connection_says_why() -> None:
    broker = ScriptedBroker(b"\x20\x02\x00\x05")
    accepting = threading.Thread(target=broker.accept)
    accepting.start()

    with pytest.raises(UnavailableError, match="not authorised"):
        transport_to(broker).start()

    accepting.join(20)
    broker.close()


def test_more_than_the_network_takes_at_once_arrives_whole_and_in_order(broker: ScriptedBroker) -> None:
    transport = transport_to(broker)
    peer = started(broker, transport)
    for number in range(200):
        transport.publish("a", number.to_bytes(2, "big") * 50_000)

    bodies = [packets.read_publish(*peer.next())[1] for _ in range(200)]

    assert [int.from_bytes(body[:2], "big") for body in bodies] == list(range(200))
    assert {len(body) for body in bodies} == {100_000}
    transport.close()


@pytest.mark.parametrize(
    ("client", "connack", "refusal"),
    [
        ("bulk", b"\x20\x02\x00\x00", b"\x80"),
        ("paho", b"\x20\x02\x00\x00", b"\x80"),
        ("awscrt", b"\x20\x03\x00\x00\x00", b"\x00\x87"),  # MQTT 5: no properties, not authorised
    ],
    ids=["bulk", "paho", "awscrt"],
)
def test_a_refused_subscription_is_told_until_it_is_granted(
    client: Client, connack: bytes, refusal: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    broker = ScriptedBroker(connack)
    transport = open_transport(BrokerSettings(url=f"mqtt://127.0.0.1:{broker.port}", client=client), "me")
    transport.subscribe("secret", lambda delivery: delivery.acknowledge())
    peer = started(broker, transport)
    asked = peer.next()[1]

    peer.connection.sendall(b"\x90" + bytes([2 + len(refusal)]) + asked[:2] + refusal)

    deadline = time.monotonic() + 90
    while not transport.trouble and time.monotonic() < deadline:
        time.sleep(0.01)
    where = f"broker 127.0.0.1:{broker.port}"
    assert transport.trouble == f"{where}: refused to subscribe to secret; see its access rules"
    assert "refused" in caplog.text
    transport.subscribe("secret", lambda delivery: delivery.acknowledge())
    asked = peer.next()[1]
    peer.connection.sendall(b"\x90" + bytes([2 + len(refusal)]) + asked[:2] + refusal[:-1] + b"\x01")
    while transport.trouble and time.monotonic() < deadline:
        time.sleep(0.01)
    assert transport.trouble == ""
    transport.close()
    peer.connection.close()
    broker.close()
