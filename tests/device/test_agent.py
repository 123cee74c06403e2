"""The agent in virtual time: pace, numbering, triggers, faults, and what happens when disk, broker or clock fail."""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from wheeltapper.clock import ManualClock
from wheeltapper.outbox import Outbox
from wheeltapper.sender import Sender
from wheeltapper.transport.memory import MemoryBroker, MemoryTransport
from wheeltapper_device.agent import Agent
from wheeltapper_device.run import source_of
from wheeltapper_device.settings import (
    DeviceSettings,
    ReplaySettings,
    SimulationSettings,
    TopicSettings,
    TriggerSettings,
)

START_MS = 1_795_000_000_000
TRIGGER = "wt/machine-1/trigger/ingest"


class Device:
    """One agent with its outbox, sender and broker, driven by hand."""

    def __init__(self, folder: Path, broker: MemoryBroker, clock: ManualClock, settings: DeviceSettings, **bounds: Any):
        self.clock = clock
        self.broker = broker
        self.outbox = Outbox(folder / "outbox.db", clock=clock, **bounds)
        self.transport = broker.transport()
        self.sender = Sender(self.outbox, self.transport, clock=clock)
        self.agent = Agent(settings, source_of(settings), self.outbox, clock)
        self.transport.subscribe(
            settings.topics.trigger_ingest.replace("{thing}", settings.thing), self.agent.take_trigger
        )
        self.transport.start()

    def live(self, seconds: float) -> None:
        """Let the agent work for so long, sending as it goes."""
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            pause_s = self.agent.tick()
            self.send()
            self.clock.advance(min(max(pause_s, 0.001), 0.25, end - self.clock.monotonic()))

    def send(self) -> None:
        self.broker.deliver()
        while self.sender.send_waiting():
            self.broker.deliver()

    def close(self) -> None:
        self.transport.close()
        self.sender.close()
        self.outbox.close()


Make = Callable[..., Device]


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START_MS)


@pytest.fixture
def make(tmp_path: Path, broker: MemoryBroker, clock: ManualClock) -> Iterator[Make]:
    devices: list[Device] = []

    def make_device(settings: DeviceSettings | None = None, **bounds: Any) -> Device:
        for old in devices:
            old.close()
        devices.append(Device(tmp_path, broker, clock, settings or DeviceSettings(), **bounds))
        return devices[-1]

    yield make_device
    for device in devices:
        device.close()


@pytest.fixture
def operator(broker: MemoryBroker) -> MemoryTransport:
    transport = broker.transport()
    transport.start()
    return transport


def messages(broker: MemoryBroker, kind: str) -> list[dict[str, Any]]:
    return [json.loads(payload) for topic, payload in broker.published if topic == f"wt/machine-1/{kind}"]


def numbers(readings: list[dict[str, Any]]) -> list[int]:
    return [int(reading["message_id"].rpartition("-")[2]) for reading in readings]


def simulated(**told: Any) -> DeviceSettings:
    return DeviceSettings(simulation=SimulationSettings(**told))


def test_readings_are_sent_at_their_pace_with_the_time_they_were_due(make: Make, broker: MemoryBroker) -> None:
    make(simulated(time_scale=10.0)).live(2.0)

    readings = messages(broker, "reading")
    assert numbers(readings) == list(range(1, 21))
    assert [reading["time_ms"] - START_MS for reading in readings] == pytest.approx(list(range(0, 2000, 100)), abs=2)
    assert readings[0]["motorID"] == "machine-1"


def test_an_outage_of_the_broker_loses_nothing_and_keeps_the_order(make: Make, broker: MemoryBroker) -> None:
    device = make()
    device.live(5.0)
    broker.go_away()
    device.live(60.0)
    broker.come_back()
    device.live(5.0)

    assert numbers(messages(broker, "reading")) == list(range(1, 71))


def test_lost_acknowledgements_repeat_the_same_ids(make: Make, broker: MemoryBroker) -> None:
    broker.lose_acknowledgements = 7
    device = make(simulated(time_scale=10.0))
    device.live(5.0)

    by_id: dict[str, set[str]] = {}
    for reading in messages(broker, "reading"):
        by_id.setdefault(reading["message_id"], set()).add(json.dumps(reading))
    assert sorted(numbers([{"message_id": each} for each in by_id])) == list(range(1, device.agent.sequence + 1))
    assert all(len(contents) == 1 for contents in by_id.values())
    assert len(messages(broker, "reading")) > device.agent.sequence


def test_a_restarted_agent_goes_on_with_the_next_reading_of_the_same_machine(make: Make, broker: MemoryBroker) -> None:
    for _ in range(5):
        make(simulated(seed=3)).live(10.0)
    interrupted = messages(broker, "reading")

    assert numbers(interrupted) == list(range(1, 51))
    source = source_of(simulated(seed=3))
    expected = [step.values for _ in range(50) if (step := source.next()) is not None]
    assert [{name: reading[name] for name in expected[0]} for reading in interrupted] == expected


def test_another_source_in_the_same_directory_begins_anew_under_fresh_ids(make: Make, broker: MemoryBroker) -> None:
    make(simulated(seed=1)).live(3.0)
    make(simulated(seed=2)).live(3.0)

    readings = messages(broker, "reading")
    first = source_of(simulated(seed=2)).next()
    assert numbers(readings) == [1, 2, 3, 4, 5, 6]
    assert first is not None
    assert readings[3]["TT01"] == first.values["TT01"]


def test_a_device_that_lost_its_disk_does_not_repeat_ids(tmp_path: Path, make: Make, broker: MemoryBroker) -> None:
    make().live(3.0)
    make().close()
    for path in tmp_path.glob("outbox.db*"):
        path.unlink()
    make().live(3.0)

    ids = [reading["message_id"] for reading in messages(broker, "reading")]
    assert len(set(ids)) == 6


def test_a_full_outbox_makes_readings_wait_and_none_is_skipped(make: Make, broker: MemoryBroker) -> None:
    device = make(max_bytes=3_000)
    broker.go_away()
    device.live(60.0)
    trouble = device.agent.trouble
    broker.come_back()
    device.live(60.0)

    assert "full" in trouble
    assert device.agent.trouble == ""
    sent = numbers(messages(broker, "reading"))
    assert sent == list(range(1, len(sent) + 1))
    assert len(sent) >= 60


def test_a_machine_says_when_it_falls_ill_and_a_reading_says_nothing(make: Make, broker: MemoryBroker) -> None:
    make(simulated(fault="leak", onset_s=5.0)).live(10.0)

    (fault,) = messages(broker, "fault")
    readings = messages(broker, "reading")
    begun = next(reading for reading in readings if reading["message_id"] == fault["reading_id"])
    assert (fault["fault"], fault["sensors"]) == ("leak", ["PT01", "FT01"])
    assert (numbers([begun]), begun["time_ms"]) == ([6], fault["time_ms"])
    assert len({tuple(reading) for reading in readings}) == 1


def test_a_fault_that_began_before_a_restart_is_told_once(make: Make, broker: MemoryBroker) -> None:
    make(simulated(fault="leak", onset_s=5.0)).live(10.0)
    make(simulated(fault="leak", onset_s=5.0)).live(10.0)

    assert len(messages(broker, "fault")) == 1


@pytest.mark.parametrize(
    "payload", [b"", b" ", b"{}", b"[1,2]", b'"go"', b"null", b"17", b"go!", b'{"seed": "003"}', b"\xff"]
)
def test_a_trigger_with_any_payload_asks_for_one_reading(
    make: Make, broker: MemoryBroker, operator: MemoryTransport, payload: bytes
) -> None:
    device = make(simulated(rate_hz=0.001))
    device.live(1.0)
    operator.publish(TRIGGER, payload)
    device.live(1.0)

    (reply,) = messages(broker, "trigger/ingest/reply")
    readings = messages(broker, "reading")
    assert reply["status"] == "done"
    assert numbers(readings) == [1, 2]
    assert reply["result"] == {
        "readings": 1,
        "first_id": readings[1]["message_id"],
        "last_id": readings[1]["message_id"],
    }


def test_a_burst_sends_the_machines_next_readings_at_once(
    make: Make, broker: MemoryBroker, operator: MemoryTransport
) -> None:
    device = make(simulated(rate_hz=0.001))
    device.live(1.0)
    operator.publish(TRIGGER, b'{"rows": 500, "request_id": "r1"}')
    device.live(1.0)

    (reply,) = messages(broker, "trigger/ingest/reply")
    assert (reply["request_id"], reply["result"]["readings"]) == ("r1", 500)
    assert numbers(messages(broker, "reading")) == list(range(1, 502))


def test_a_request_that_comes_twice_is_done_once_even_across_a_restart(
    make: Make, broker: MemoryBroker, operator: MemoryTransport
) -> None:
    for _ in range(2):
        device = make(simulated(rate_hz=0.001))
        device.live(1.0)
        operator.publish(TRIGGER, b'{"rows": 5, "request_id": "r1"}')
        device.live(1.0)

    counts = [reply["result"]["readings"] for reply in messages(broker, "trigger/ingest/reply")]
    assert counts == [5, 0]


def test_a_trigger_is_acknowledged_when_its_effect_is_kept(
    make: Make, broker: MemoryBroker, operator: MemoryTransport
) -> None:
    device = make(simulated(rate_hz=0.001), max_bytes=1_000)
    device.live(1.0)
    broker.go_away()
    broker.come_back()
    operator.publish(TRIGGER, b'{"rows": 3}')
    broker.deliver()
    broker.away = True
    device.agent.tick()
    held = device.transport.unacknowledged

    assert held == 1
    assert device.agent.trouble


def test_a_fault_begins_on_request(make: Make, broker: MemoryBroker, operator: MemoryTransport) -> None:
    device = make(simulated(fault="none"))
    device.live(3.0)
    operator.publish(TRIGGER, b'{"fault": "winding-short"}')
    device.live(3.0)

    (fault,) = messages(broker, "fault")
    (reply,) = messages(broker, "trigger/ingest/reply")
    assert fault["sensors"] == ["TT02"]
    assert "TT02" in reply["detail"]


def test_a_file_in_the_trigger_folder_is_replayed(
    tmp_path: Path, make: Make, broker: MemoryBroker, operator: MemoryTransport
) -> None:
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "f.csv").write_text("time;a\n2026-01-01 00:00;1\n2026-01-01 00:01;2\n")
    trigger = TriggerSettings(folder=tmp_path / "recordings")
    device = make(msgspec.structs.replace(simulated(rate_hz=0.001), trigger=trigger))
    device.live(1.0)
    operator.publish(TRIGGER, b'{"file": "f.csv"}')
    device.live(1.0)

    readings = messages(broker, "reading")[1:]
    assert [(reading["a"], reading["time_ms"]) for reading in readings] == [(1.0, 1767225600000), (2.0, 1767225660000)]


@pytest.mark.parametrize(
    "request_text",
    [
        '{"rows": -1}',
        '{"rows": 1e9}',
        '{"rows": "many"}',
        '{"fault": "rust"}',
        '{"file": "../secret.csv"}',
        '{"file": "/etc/passwd"}',
    ],
)
def test_a_request_that_cannot_be_granted_is_refused_with_the_reason(
    tmp_path: Path, make: Make, broker: MemoryBroker, operator: MemoryTransport, request_text: str
) -> None:
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    (tmp_path / "recordings").mkdir()
    trigger = TriggerSettings(folder=tmp_path / "recordings")
    device = make(msgspec.structs.replace(simulated(rate_hz=0.001), trigger=trigger))
    device.live(1.0)
    operator.publish(TRIGGER, request_text.encode())
    device.live(1.0)

    (reply,) = messages(broker, "trigger/ingest/reply")
    assert reply["status"] == "refused"
    assert reply["detail"]
    assert len(messages(broker, "reading")) == 1


def test_a_refused_trigger_is_answered_under_its_id(
    make: Make, broker: MemoryBroker, operator: MemoryTransport
) -> None:
    device = make(simulated(rate_hz=0.001))
    operator.publish(TRIGGER, b'{"rows": "many", "request_id": "r1"}')
    operator.publish(TRIGGER, b'{"rows": -1, "request_id": "r2"}')
    device.live(1.0)

    replies = messages(broker, "trigger/ingest/reply")
    assert [(reply["request_id"], reply["status"]) for reply in replies] == [("r1", "refused"), ("r2", "refused")]


def test_other_systems_topic_names_can_be_used(make: Make, broker: MemoryBroker, operator: MemoryTransport) -> None:
    topics = TopicSettings(reading="iml_iotevents_data", trigger_ingest="pollution/data/ingest/trigger")
    device = make(msgspec.structs.replace(simulated(rate_hz=0.001), topics=topics))
    device.live(1.0)
    operator.publish("pollution/data/ingest/trigger", b"")
    device.live(1.0)

    sent = [topic for topic, _ in broker.published]
    assert sent.count("iml_iotevents_data") == 2
    assert sent.count("pollution/data/ingest/trigger/reply") == 1


def test_the_wall_clock_set_back_changes_stamps_and_not_the_pace(
    make: Make, broker: MemoryBroker, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    device = make()
    device.live(5.0)
    clock.set_time_ms(START_MS - 3_600_000)
    device.live(5.0)

    readings = messages(broker, "reading")
    assert numbers(readings) == list(range(1, 11))
    assert readings[5]["time_ms"] < readings[4]["time_ms"] - 3_500_000
    assert sum("clock: was set" in record.message for record in caplog.records) == 1


def test_a_machine_that_slept_goes_on_without_a_burst(make: Make, broker: MemoryBroker, clock: ManualClock) -> None:
    device = make()
    device.live(5.0)
    clock.advance(3_600.0)
    device.live(5.0)

    assert len(messages(broker, "reading")) == 10


def test_a_replay_ends_and_the_agent_stays_to_answer(
    tmp_path: Path, make: Make, broker: MemoryBroker, operator: MemoryTransport
) -> None:
    path = tmp_path / "f.csv"
    path.write_text("a,b\n" + "".join(f"{row},0\n" for row in range(4)))
    device = make(DeviceSettings(replay=ReplaySettings(file=path, speed=10.0)))
    device.live(10.0)
    operator.publish(TRIGGER, b"")
    device.live(1.0)

    (reply,) = messages(broker, "trigger/ingest/reply")
    assert device.agent.finished
    assert [reading["a"] for reading in messages(broker, "reading")] == [0.0, 1.0, 2.0, 3.0]
    assert "end" in reply["detail"]


def test_readings_at_a_thousand_a_second_keep_up(make: Make, broker: MemoryBroker) -> None:
    make(simulated(time_scale=1000.0)).live(3.0)

    stamps = [reading["time_ms"] for reading in messages(broker, "reading")]
    assert len(stamps) >= 2_990
    assert all(earlier <= later for earlier, later in itertools.pairwise(stamps))
