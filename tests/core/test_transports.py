"""All MQTT transports against a real broker: delivery, acknowledgement, reconnection."""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt import publish

from tests.loopback import free_port, wait_for_port, wait_until
from wheeltapper.certs import Authority
from wheeltapper.clock import SystemClock
from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.transport import Delivery, Transport
from wheeltapper.transport.settings import BrokerSettings, open_transport


class Broker:
    """A mosquitto that can be stopped and started on the same port."""

    def __init__(self, executable: str, folder: Path) -> None:
        self.port = free_port()
        self._executable = executable
        self._settings = folder / "broker.conf"
        self._settings.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\npersistence true\n"
            f"persistence_location {folder}/\nautosave_interval 1\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._executable, "-c", str(self._settings)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_port(self.port)

    def forget(self) -> None:
        """Lose what was kept of sessions."""
        (self._settings.parent / "mosquitto.db").unlink(missing_ok=True)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None


@pytest.fixture
def broker(mosquitto_path: str, tmp_path: Path) -> Iterator[Broker]:
    if shutil.which("id") and subprocess.run(["id", "-u"], capture_output=True, check=True).stdout.strip() == b"0":
        tmp_path.chmod(0o777)  # started by root, mosquitto becomes another user
        for parent in (tmp_path.parent, tmp_path.parent.parent):
            parent.chmod(0o755)
    running = Broker(mosquitto_path, tmp_path)
    running.start()
    yield running
    running.stop()


def opened(port: int, client: str, client_id: str) -> Transport:
    settings = BrokerSettings(url=f"mqtt://127.0.0.1:{port}", client=client)  # type: ignore[arg-type]
    return open_transport(settings, client_id)


@pytest.fixture(params=["paho", "awscrt", "bulk"])
def client(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_what_is_published_is_acknowledged_and_arrives_in_order(broker: Broker, client: str) -> None:
    arrived: list[bytes] = []
    outcomes: list[bool] = []

    heard = threading.Event()

    def take(delivery: Delivery) -> None:
        if delivery.topic == "wt/probe/reading":
            heard.set()
        else:
            arrived.append(delivery.payload)
        delivery.acknowledge()

    listener, speaker = opened(broker.port, client, "listener"), opened(broker.port, client, "speaker")
    listener.subscribe("wt/+/reading", take)
    listener.start()
    speaker.start()
    wait_until(lambda: (speaker.publish("wt/probe/reading", b""), heard.wait(0.2))[1])  # type: ignore[func-returns-value]
    for number in range(200):
        speaker.publish("wt/m/reading", str(number).encode(), outcomes.append)
    wait_until(lambda: len(arrived) == 200 and len(outcomes) == 200)

    assert arrived == [str(number).encode() for number in range(200)]
    assert all(outcomes)
    speaker.close()
    listener.close()


def test_an_unacknowledged_delivery_comes_again_to_the_session(broker: Broker, client: str) -> None:
    seen, again = threading.Event(), threading.Event()
    first = opened(broker.port, client, "worker")
    first.subscribe("work", lambda delivery: seen.set())
    first.start()
    speaker = opened(broker.port, client, "speaker")
    speaker.start()
    wait_until(lambda: (speaker.publish("work", b"1"), seen.wait(0.2))[1])  # type: ignore[func-returns-value]
    first.close()

    second = opened(broker.port, client, "worker")
    second.subscribe("work", lambda delivery: (delivery.acknowledge(), again.set()))  # type: ignore[func-returns-value]
    second.start()

    assert again.wait(20)
    second.close()
    speaker.close()


def test_a_broker_that_goes_away_fails_publishes_and_is_found_again_though_it_forgets_sessions(
    broker: Broker, client: str
) -> None:
    arrived: list[bytes] = []
    transport = opened(broker.port, client, "both")

    def take(delivery: Delivery) -> None:
        arrived.append(delivery.payload)
        delivery.acknowledge()

    transport.subscribe("a", take)
    transport.start()
    broker.stop()
    wait_until(lambda: not transport.connected)
    outcomes: list[bool] = []
    transport.publish("a", b"lost", outcomes.append)
    broker.forget()
    broker.start()
    wait_until(lambda: transport.connected)
    wait_until(lambda: (transport.publish("a", b"found"), time.sleep(0.2), b"found" in arrived)[2])  # type: ignore[func-returns-value]

    assert outcomes == [False]
    transport.close()


def test_what_the_broker_had_retained_is_not_delivered(broker: Broker, client: str) -> None:
    arrived: list[bytes] = []
    publish.single("a/1", "old", qos=1, retain=True, hostname="127.0.0.1", port=broker.port)
    transport = opened(broker.port, client, "both")
    transport.subscribe("a/+", lambda delivery: (arrived.append(delivery.payload), delivery.acknowledge())[1])  # type: ignore[func-returns-value]
    transport.start()

    wait_until(lambda: (transport.publish("a/2", b"new"), time.sleep(0.2), b"new" in arrived)[2])  # type: ignore[func-returns-value]

    assert set(arrived) == {b"new"}
    transport.close()


def test_nobody_at_the_address_is_said_in_one_line_with_the_remedy(client: str) -> None:
    transport = opened(free_port(), client, "nobody")

    with pytest.raises(UnavailableError, match="--broker mqtt://host:port"):
        transport.start()


def test_a_missing_certificate_is_named_before_connecting(client: str, tmp_path: Path) -> None:
    settings = BrokerSettings(url="mqtts://127.0.0.1:1", client=client, ca=tmp_path / "ca.pem")  # type: ignore[arg-type]

    with pytest.raises(SettingsError, match=r"ca\.pem"):
        open_transport(settings).start()


def test_certificates_are_shown_and_asked_for(mosquitto_path: str, client: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "certs", SystemClock())
    authority.create()
    authority.issue("broker", names=["localhost", "127.0.0.1"])
    authority.issue("motor-1")
    broker, machine = tmp_path / "certs/broker", tmp_path / "certs/motor-1"
    port = free_port()
    (tmp_path / "tls.conf").write_text(
        f"user root\nlistener {port} 127.0.0.1\ncafile {broker}/ca.crt\ncertfile {broker}/broker.crt\n"
        f"keyfile {broker}/broker.key\nrequire_certificate true\nallow_anonymous true\n"
    )
    process = subprocess.Popen([mosquitto_path, "-c", str(tmp_path / "tls.conf")], stderr=subprocess.DEVNULL)
    arrived: list[bytes] = []
    try:
        wait_for_port(port)
        settings = BrokerSettings(
            url=f"mqtts://localhost:{port}", client=client, ca=machine / "ca.crt",  # type: ignore[arg-type]
            certificate=machine / "motor-1.crt", key=machine / "motor-1.key",
        )  # fmt: skip
        stranger = open_transport(BrokerSettings(url=settings.url, client=settings.client, ca=settings.ca), "stranger")
        with pytest.raises((SettingsError, UnavailableError)):
            stranger.start()
        transport = open_transport(settings, "motor-1")
        transport.subscribe("a", lambda delivery: (arrived.append(delivery.payload), delivery.acknowledge())[1])  # type: ignore[func-returns-value]
        transport.start()
        sent = bytes(range(256)) * 400
        wait_until(lambda: (transport.publish("a", sent), time.sleep(0.2), sent in arrived)[2])  # type: ignore[func-returns-value]

        assert set(arrived) == {sent}
        transport.close()
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize("url", ["127.0.0.1:1883", "http://x", "mqtt://", "mqtt://h:99999", "mqtt://h/topic"])
def test_a_malformed_address_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="broker"):
        BrokerSettings(url=url).host_and_port()


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(SettingsError, match="password_file") as refused:
        BrokerSettings(url="mqtt://ada:engine@plant.example").host_and_port()

    assert "engine" not in str(refused.value)
