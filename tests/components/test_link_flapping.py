"""One hour of a link that comes and goes, readings that repeat and processes that restart, in virtual time."""

import json
import random
from pathlib import Path

import pytest

from tests.components.detector_models import hot_motor
from tests.components.memory_gateway import MemoryGateway, memory_links
from tests.components.small_models import write_small_model
from wheeltapper.clock import ManualClock
from wheeltapper_components.detectors import Detectors
from wheeltapper_components.settings import DetectorSettings, OrderSettings

STEP_S = 10
PER_STEP = 10


class EdgeDetectors:
    """Detectors in one thread on a gateway's brokers."""

    def __init__(self, gateway: MemoryGateway, clock: ManualClock) -> None:
        (gateway.folder / "hot.json").write_text(json.dumps(hot_motor()))
        self._gateway = gateway
        self._clock = clock
        self._clients = gateway.local.transport(), gateway.cloud.transport()
        self.settings = gateway.settings.__class__(
            data_dir=gateway.folder / "data",
            store=gateway.settings.store,
            detectors=DetectorSettings(models=[gateway.folder / "hot.json"]),
        )
        self.open()

    def open(self) -> None:
        self.links = memory_links(self.settings, self._clock, *self._clients, self._gateway.folder, "detectors")
        self.detectors = Detectors(self.settings, self.links, self._clock)
        self.detectors.open(thread=False)
        for client in self._clients:
            if not client.connected and not self._gateway.cloud.away:
                client.start()
        self._clients[0].redeliver()

    def close(self) -> None:
        self.detectors.close()
        for link in self.links.all:
            link.sender.close()
            link.outbox.close()

    def run(self) -> None:
        self.detectors.judge.tick()
        for _ in range(20):
            moved = self._gateway.local.deliver() + self._gateway.cloud.deliver()
            for link in self.links.all:
                link.outbox.put_and_wait([])  # whatever was put before is on disk now
            moved += sum(link.sender.send_waiting() for link in self.links.all)
            if not moved:
                return


@pytest.mark.parametrize("seed", [1])
def test_an_hour_of_a_flapping_link_loses_and_repeats_nothing_that_matters(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    write_small_model(tmp_path / "model", limit=100.0)
    clock = ManualClock(1_700_000_000_000)
    gateway = MemoryGateway(tmp_path, clock, order=OrderSettings(late_ms=0))
    edge = EdgeDetectors(gateway, clock)
    sent = 0
    for step in range(3_600 // STEP_S):
        if chance.random() < 0.15:
            gateway.cloud.come_back() if gateway.cloud.away else gateway.cloud.go_away()
        gateway.cloud.lose_acknowledgements = chance.random() < 0.1
        gateway.local.repeat_deliveries = 3 * (chance.random() < 0.1)
        hot = 200.0 if step % 60 >= 30 else 0.0
        gateway.send(*range(sent, sent + PER_STEP), TT02=hot)
        sent += PER_STEP
        if chance.random() < 0.02:
            gateway.close()
            gateway.open()
        if chance.random() < 0.02:
            edge.close()
            edge.open()
        gateway.run()
        edge.run()
        clock.advance(STEP_S)
    gateway.cloud.come_back()
    for _ in range(20):
        gateway.run()
        edge.run()
    wanted = [f"m{number}" for number in range(1, sent)]

    in_cloud = [prediction["message_id"] for prediction in gateway.heard(broker="cloud")]
    assert list(dict.fromkeys(gateway.scored())) == wanted
    assert list(dict.fromkeys(in_cloud)) == [f"{reading}@motor-1.0.0" for reading in wanted]
    rung = [alarm["message_id"] for alarm in gateway.heard("alarm")]
    assert len(set(rung)) == 3_600 // STEP_S // 60
    assert list(dict.fromkeys(alarm["message_id"] for alarm in gateway.heard("alarm", "cloud"))) == list(
        dict.fromkeys(rung)
    )
    gateway.close()
    edge.close()


def test_the_alarm_rings_while_the_link_is_down(tmp_path: Path) -> None:
    write_small_model(tmp_path / "model", limit=100.0)
    clock = ManualClock(1_700_000_000_000)
    gateway = MemoryGateway(tmp_path, clock)
    edge = EdgeDetectors(gateway, clock)
    gateway.cloud.go_away()

    gateway.send(0, 1)
    gateway.send(2, 3, TT02=500.0)
    gateway.run()
    edge.run()

    alarm = gateway.heard("alarm")[0]
    assert (alarm["thing"], alarm["detector"], alarm["state"]) == ("motor-1", "hot_motor", "Hot")
    assert alarm["values"] == {"$input.Prediction.anomaly": 1}
    assert gateway.heard("alarm", "cloud") == []
    gateway.close()
    edge.close()
