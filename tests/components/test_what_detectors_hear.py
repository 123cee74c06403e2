"""Whatever arrives for a gateway's detectors is judged or dropped, and settled either way."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components.detector_models import hot_motor
from tests.components.memory_gateway import memory_links
from wheeltapper.clock import ManualClock
from wheeltapper.transport.memory import MemoryBroker
from wheeltapper_components.detectors import Detectors
from wheeltapper_components.settings import DetectorSettings, GatewaySettings

DEEP = b"[" * 50_000 + b"]" * 50_000


class Edge:
    """Detectors alone, on a memory broker."""

    def __init__(self, folder: Path) -> None:
        definition = folder / "hot.json"
        definition.write_text(json.dumps(hot_motor()))
        settings = GatewaySettings(data_dir=folder / "data", detectors=DetectorSettings(models=[definition]))
        clock, self.broker = ManualClock(1_700_000_000_000), MemoryBroker()
        self.device, self.client = self.broker.transport(), self.broker.transport()
        self.links = memory_links(settings, clock, self.client, MemoryBroker().transport(), folder, "detectors")
        self.detectors = Detectors(settings, self.links, clock)
        self.detectors.open(thread=False)
        self.device.start()
        self.client.start()

    def send(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.device.publish("wt/motor-1/prediction", payload)
        while self.broker.deliver():
            pass

    def close(self) -> None:
        self.detectors.close()
        for link in self.links.all:
            link.sender.close()
            link.outbox.close()


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    edge = Edge(tmp_path)
    yield edge
    edge.close()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b'{"anomaly": 1,',
        b'{"\xff": 1}',
        b'{"thing": "\xff"}',
        b'{"note": ' + DEEP + b"}",
        b'{"time_ms": 1e300}',
        b'{"time_ms": -1e300}',
        b'{"message_id": 7}',
    ],
    ids=lambda payload: repr(payload[:24]),
)
def test_what_cannot_be_judged_is_dropped_and_the_next_is_judged(edge: Edge, payload: bytes) -> None:
    edge.send(payload, b'{"anomaly": 1}')

    state = edge.detectors.judge.detector("hot_motor", "motor-1")
    assert state is not None and state.state == "Hot"
    assert edge.client.unacknowledged == 0
    assert "malformed 1" in edge.detectors._condition()[1]


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "nan", "1e999", "9" * 400])
def test_a_value_that_no_number_holds_hinders_no_judgement(edge: Edge, value: str) -> None:
    edge.send(b'{"anomaly": 1, "score": ' + value.encode() + b"}")

    state = edge.detectors.judge.detector("hot_motor", "motor-1")
    assert state is not None and state.state == "Hot"
    assert edge.client.unacknowledged == 0
