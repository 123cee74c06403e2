"""A transport that starts without its broker: it comes up when the broker does, with all that was subscribed."""

import threading
from collections.abc import Iterator

import pytest

from tests.loopback import wait_until
from wheeltapper.clock import ManualClock
from wheeltapper.errors import SettingsError
from wheeltapper.transport import Delivery
from wheeltapper.transport.memory import MemoryBroker, MemoryTransport
from wheeltapper.transport.patient import PatientTransport


class SlowClock(ManualClock):
    """Virtual time that lets other threads work while somebody waits."""

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        event.wait(0.005)
        return super().wait(event, timeout_s)


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def patient(broker: MemoryBroker) -> Iterator[PatientTransport]:
    transport = PatientTransport(broker.transport, SlowClock())
    yield transport
    transport.close()


def test_it_starts_while_the_broker_is_away_and_connects_when_it_comes(
    broker: MemoryBroker, patient: PatientTransport
) -> None:
    heard: list[str] = []

    def take(delivery: Delivery) -> None:
        heard.append(delivery.topic)

    broker.away = True
    patient.subscribe("a/#", take)
    patient.start()
    refused: list[bool] = []
    patient.publish("a/1", b"", refused.append)
    away = patient.connected
    broker.come_back()
    wait_until(lambda: patient.connected)
    patient.subscribe("b", take)
    for topic in ("a/2", "b"):
        patient.publish(topic, b"")
    broker.deliver()

    assert (away, refused) == (False, [False])
    assert heard == ["a/2", "b"]


def test_what_is_refused_now_may_be_accepted_later(broker: MemoryBroker, caplog: pytest.LogCaptureFixture) -> None:
    attempts: list[int] = []

    class Refused(MemoryTransport):
        def start(self) -> None:
            attempts.append(len(attempts))
            if len(attempts) < 4:
                raise SettingsError("broker x:8883: TLS refused: certificate expired")
            super().start()

    patient = PatientTransport(lambda: Refused(broker), SlowClock())
    patient.start()
    wait_until(lambda: patient.connected)
    patient.close()

    assert attempts == [0, 1, 2, 3]
    assert [record.message for record in caplog.records] == [
        "broker x:8883: TLS refused: certificate expired; trying again"
    ] * 3


def test_it_can_be_closed_while_it_waits(broker: MemoryBroker) -> None:
    broker.away = True
    patient = PatientTransport(broker.transport)
    patient.start()
    patient.close()
    patient.close()

    assert not patient.connected


def test_a_refused_subscription_is_its_trouble_once_there_is_a_connection(
    broker: MemoryBroker, patient: PatientTransport
) -> None:
    broker.refused_filters.add("a/#")
    patient.subscribe("a/#", lambda delivery: delivery.acknowledge())
    before = patient.trouble

    patient.start()
    wait_until(lambda: patient.connected)

    assert before == ""
    assert "refused to subscribe to a/#" in patient.trouble
