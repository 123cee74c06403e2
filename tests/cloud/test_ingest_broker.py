"""Messages through a real broker that asks for certificates: what is accepted survives whoever is killed."""

import json
import os
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.cloud_crash import model
from tests.loopback import free_port, wait_for_port, wait_until
from wheeltapper.certs import Authority
from wheeltapper.clock import SystemClock
from wheeltapper.transport import Transport
from wheeltapper.transport.settings import BrokerSettings, open_transport
from wheeltapper_cloud.rules import RuleSettings
from wheeltapper_cloud.serve import Companion
from wheeltapper_cloud.settings import CloudSettings, InputSettings

KEYS = ("a", "b", "c")


class Broker:
    """A mosquitto with TLS that keeps its sessions on disk, and can be stopped, killed and started again."""

    def __init__(self, executable: str, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        authority = Authority(folder / "certs", SystemClock())
        authority.create()
        authority.issue("broker", names=["localhost", "127.0.0.1"])
        for name in ("companion", "device"):
            authority.issue(name)
        own = folder / "certs/broker"
        self._command = [executable, "-c", str(folder / "broker.conf")]
        (folder / "broker.conf").write_text(
            f"{'user root' if os.getuid() == 0 else ''}\nlistener {self.port} 127.0.0.1\nset_tcp_nodelay true\n"
            f"cafile {own}/ca.crt\ncertfile {own}/broker.crt\nkeyfile {own}/broker.key\nrequire_certificate true\n"
            "use_identity_as_username true\nallow_anonymous false\nmax_queued_messages 0\n"
            f"persistence true\npersistence_location {folder}/\nautosave_interval 1\n"
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_port(self.port)

    def stop(self, *, kill: bool = False) -> None:
        if self.process is not None:
            (self.process.kill if kill else self.process.terminate)()
            self.process.wait(20)

    def settings(self, name: str, client: str, client_id: str = "") -> BrokerSettings:
        own = self.folder / "certs" / name
        return BrokerSettings(
            url=f"mqtts://localhost:{self.port}", client=client, client_id=client_id,  # type: ignore[arg-type]
            ca=own / "ca.crt", certificate=own / f"{name}.crt", key=own / f"{name}.key",
        )  # fmt: skip


@pytest.fixture
def broker(mosquitto_path: str, tmp_path: Path) -> Iterator[Broker]:
    running = Broker(mosquitto_path, tmp_path)
    running.start()
    yield running
    running.stop()


class Device:
    """Publishes each message until the broker has acknowledged it."""

    def __init__(self, broker: Broker) -> None:
        self._transport = open_transport(broker.settings("device", "paho"), "device")
        self._transport.start()
        self.sent: Counter[str] = Counter()

    def send(self, count: int) -> None:
        for _ in range(count):
            key = KEYS[self.sent.total() % len(KEYS)]
            content = json.dumps({"key": key, "message_id": str(self.sent.total())}).encode()
            wait_until(lambda content=content: self.put("tick", content))  # type: ignore[misc]
            self.sent[key] += 1

    def put(self, topic: str, content: bytes) -> bool:
        outcomes: list[object] = []
        self._transport.publish(topic, content, outcomes.append)
        wait_until(lambda: bool(outcomes))
        return outcomes[0] is True

    def close(self) -> None:
        self._transport.close()


class CompanionProcess:
    """``wheeltapper cloud serve`` that counts what it hears, by key."""

    def __init__(self, broker: Broker, client: str) -> None:
        self.folder = broker.folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        (self.folder / "counter.json").write_text(json.dumps(model()))
        (self.folder / "cloud.toml").write_text(
            'models = ["counter.json"]\n[[inputs]]\nname = "Tick"\nattributes = ["key"]\n'
            f'[[rules]]\nfilter = "tick"\ninput = "Tick"\n[broker]\nurl = "mqtts://localhost:{broker.port}"\n'
            f'client = "{client}"\nca = "certs/companion/ca.crt"\ncertificate = "certs/companion/companion.crt"\n'
            'key = "certs/companion/companion.key"\n'
        )

    def start(self) -> None:
        command = ["cloud", "serve", "--port", str(self.port), "--data-dir", "data", "--config", "cloud.toml"]
        with (self.folder / "companion.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "wheeltapper.cli", *command], cwd=self.folder, stdout=log, stderr=log
            )
        wait_for_port(self.port, 120)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(20)

    def counted(self) -> dict[str, int]:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}/wheeltapper/detectors/Counter", timeout=30
        ) as answer:
            return {one["key"]: one["variables"]["count"] for one in json.load(answer)["detectors"]}


@pytest.mark.parametrize("client", ["bulk", "awscrt"])
def test_what_the_broker_has_accepted_is_judged_once_whoever_is_killed(broker: Broker, client: str) -> None:
    companion, device = CompanionProcess(broker, client), Device(broker)
    try:
        companion.start()
        wait_until(
            lambda: device.put("tick", b"?") and b"dropped: tick" in (broker.folder / "companion.log").read_bytes()
        )
        device.send(60)
        companion.kill()
        device.send(30)
        companion.start()
        device.send(30)
        wait_until(lambda: companion.counted() == device.sent)
        broker.stop(kill=True)
        broker.start()
        device.send(30)
        broker.stop()
        broker.start()
        device.send(30)

        wait_until(lambda: companion.counted() == device.sent)
    finally:
        device.close()
        companion.kill()


def companion_of(folder: Path, transport: Transport, **rule: str) -> Companion:
    inputs = [InputSettings(name="Tick", attributes=["key"])]
    settings = CloudSettings(inputs=inputs, rules=[RuleSettings(input="Tick", **rule)], health_s=3600)
    folder.mkdir()
    return Companion(settings, folder, SystemClock(), transport)


@pytest.mark.parametrize("client", ["bulk", "awscrt"])
def test_companions_that_share_a_subscription_divide_its_messages(broker: Broker, client: str, tmp_path: Path) -> None:
    pair = [
        companion_of(
            tmp_path / name,
            open_transport(broker.settings("companion", client, name)),
            filter="tick",
            share="judges",
        )
        for name in ("first", "second")
    ]
    device = Device(broker)
    try:
        for companion in pair:
            companion.start()
        wait_until(lambda: device.put("tick", b"?") and all(one._ingest and one._ingest.malformed for one in pair))
        device.send(90)

        wait_until(lambda: sum(one.judge.statistics().accepted for one in pair) >= 90)
        assert [one.judge.statistics().repeated for one in pair] == [0, 0]
        assert sum(one.judge.statistics().accepted for one in pair) == 90
        assert all(one.judge.statistics().accepted > 0 for one in pair)
    finally:
        device.close()
        for companion in pair:
            companion.close()


@pytest.mark.parametrize("client", ["bulk", "awscrt"])
def test_no_payload_holds_up_those_behind_it(broker: Broker, client: str, tmp_path: Path) -> None:
    transport = open_transport(broker.settings("companion", client), "companion")
    companion = companion_of(tmp_path / "data", transport, sql="SELECT *, topic(2) AS key FROM 'tick/+'")
    device = Device(broker)
    garbage = [
        b"",
        b"\xff\xfe",
        b"[1]",
        b"{",
        b'"x"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\x00" * 200_000,
        b'{"a":1e999}',
    ]
    large = json.dumps({"pad": "x" * 400_000}).encode()
    try:
        companion.start()
        wait_until(
            lambda: device.put("tick/probe", b'{"message_id":"p"}') and companion.judge.statistics().accepted > 0
        )
        for payload in garbage:
            assert device.put("tick/a", payload)
        for topic in ("tick/é", "tick/ ", "tick/" + "x" * 60_000, "tick/"):
            assert device.put(topic, b'{"n":1}')
        assert device.put("tick/a", large)

        wait_until(lambda: companion.judge.statistics().accepted >= 8)
        assert companion._ingest is not None
        assert companion._ingest.malformed == len(garbage) - 2  # to an array and a text, the rule adds a key
        assert companion.why_not_ready() == ""
    finally:
        device.close()
        companion.close()
