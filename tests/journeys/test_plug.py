"""Somebody pulls the plug: broker away, device and gateway killed again and again; nothing is lost, nothing rings twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import free_port, wait_for_port
from wheeltapper.transport import Delivery
from wheeltapper.transport.settings import BrokerSettings, open_transport
from wheeltapper.up import plan
from wheeltapper.up.plan import Run

KILLS = 50


class Plant:
    """A mosquitto that keeps its queues on disk, and the rooms as processes."""

    def __init__(self, mosquitto: str, folder: Path, seed: int) -> None:
        self._folder = folder
        self.port = free_port()
        settings = folder / "broker.conf"
        settings.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\n"
            f"persistence true\npersistence_location {folder}/\nuser {_user()}\n"
        )
        run = Run(scenario="motor", seed=seed, speed=40.0)
        url = f"mqtt://127.0.0.1:{self.port}"
        programs = plan.programs(run, folder / "data", broker=url, embedded_port=None, port=free_port())
        self._commands = {program.name: [*program.command] for program in programs}
        self._commands["broker"] = [mosquitto, "-c", str(settings)]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(self._commands[name], stdout=log, stderr=log)
        if name == "broker":
            wait_for_port(self.port)

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        process = self._processes.pop(name)
        os.kill(process.pid, number)
        process.wait(90)

    def stop_all(self) -> None:
        for name in list(self._processes):
            self.stop(name, signal.SIGKILL if name == "broker" else signal.SIGTERM)


class Listener:
    """Hears everything, in a session of its own that outlives the broker's absence."""

    def __init__(self, port: int) -> None:
        self.heard: dict[str, list[dict[str, Any]]] = {
            "reading": [],
            "prediction": [],
            "alarm": [],
            "health": [],
            "fault": [],
        }
        self._transport = open_transport(BrokerSettings(url=f"mqtt://127.0.0.1:{port}"), "the-listener")
        for kind in self.heard:
            self._transport.subscribe(f"wt/+/{kind}", self._take)
        self._transport.start()

    def _take(self, delivery: Delivery) -> None:
        self.heard[delivery.topic.rsplit("/", 1)[1]].append(json.loads(delivery.payload))
        delivery.acknowledge()

    def wait(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not holds() and time.monotonic() < deadline:
            time.sleep(0.05)
        return holds()

    def close(self) -> None:
        self._transport.close()


def _user() -> str:
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def plant(mosquitto_path: str, tmp_path: Path) -> Iterator[Plant]:
    (tmp_path / "data").mkdir()
    running = Plant(mosquitto_path, tmp_path, seed=2)
    yield running
    running.stop_all()


@pytest.mark.timeout(600)
def test_every_reading_arrives_and_each_alarm_rings_once(plant: Plant) -> None:
    chance = random.Random(5)
    plant.start("broker")
    listener = Listener(plant.port)
    plant.start("cloud")
    plant.start("gateway")
    assert listener.wait(lambda: {"cloud", "gateway"} <= {each["thing"] for each in listener.heard["health"]}, 120)

    for kill in range(KILLS):
        plant.start("device")
        time.sleep(chance.uniform(0.3, 0.9))
        plant.stop("device", signal.SIGKILL)
        if kill == KILLS // 3:
            plant.stop("gateway", signal.SIGKILL)
            plant.start("gateway")
        if kill == KILLS // 2:
            plant.stop("broker")
        if kill == KILLS // 2 + 4:
            plant.start("broker")
    plant.start("device")
    assert listener.wait(lambda: bool(listener.heard["alarm"]), 120)
    time.sleep(2)
    plant.stop("device")

    def numbers(kind: str, member: str) -> set[int]:
        return {int(each[member].rsplit("-", 1)[1]) for each in list(listener.heard[kind])}

    def every() -> set[int]:
        return set(range(1, max(numbers("reading", "message_id")) + 1))

    assert listener.wait(lambda: numbers("reading", "message_id") == every(), 120)
    assert listener.wait(lambda: numbers("prediction", "reading_id") == every(), 120)
    listener.close()

    assert len({each["message_id"].rsplit("-", 1)[0] for each in listener.heard["reading"]}) == 1
    values_of: dict[str, set[str]] = {}
    for each in listener.heard["reading"]:
        values_of.setdefault(each["message_id"], set()).add(json.dumps(each, sort_keys=True))
    assert all(len(values) == 1 for values in values_of.values())
    assert len(Counter(each["message_id"] for each in listener.heard["alarm"])) == 1
    assert listener.heard["alarm"][0]["reading_time_ms"] >= min(each["time_ms"] for each in listener.heard["fault"])


if sys.platform != "linux":  # pragma: no cover
    pytestmark = pytest.mark.skip(reason="signals and users as Linux has them")
