"""The sender beside brokers that hang up on what they forbid, and one that says so."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hanging_up import HangingUp, hanging_up
from tests.loopback import free_port, wait_for_port, wait_until
from wheeltapper import inquiry
from wheeltapper.outbox import Outbox, Put
from wheeltapper.outbox_commands import read_refused
from wheeltapper.sender import Sender
from wheeltapper.transport.settings import BrokerSettings, Client, open_transport


@pytest.fixture
def broker() -> Iterator[HangingUp]:
    with hanging_up() as server:
        yield server


def drained(folder: Path, port: int, client: Client, puts: list[Put], left: int = 0) -> Path:
    """Send from a fresh outbox until no more than ``left`` wait, and give its path."""
    outbox = Outbox(folder / "outbox.db")
    outbox.put_and_wait(puts)
    transport = open_transport(BrokerSettings(url=f"mqtt://127.0.0.1:{port}", client=client), "publisher")
    transport.start()
    sender = Sender(outbox, transport)
    sender.start()
    try:
        wait_until(lambda: len(outbox) <= left)
    finally:
        sender.close()
        transport.close()
        outbox.close()
    return folder / "outbox.db"


@pytest.mark.parametrize("client", ["paho", "bulk"])
def test_what_a_broker_hangs_up_on_is_set_aside(
    tmp_path: Path, broker: HangingUp, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inquiry, "CALM_S", 0.3)
    topics = ["a", "a", "forbidden/1", "b", "a", "forbidden/2", "b"]
    puts = [Put(topic, str(number).encode()) for number, topic in enumerate(topics)]

    path = drained(tmp_path, broker.server_address[1], client, puts)

    assert [entry.payload for entry in read_refused(path)] == [b"2", b"5"]
    assert set(broker.heard) == {"0", "1", "3", "4", "6"}


@pytest.mark.mosquitto
def test_what_a_broker_refuses_by_name_is_set_aside_with_its_reason(
    tmp_path: Path, mosquitto_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inquiry, "CALM_S", 0.1)
    tmp_path.chmod(0o755)
    rules, conf, port = tmp_path / "rules", tmp_path / "mosquitto.conf", free_port()
    rules.write_text("topic readwrite allowed\n")
    conf.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nacl_file {rules}\n")
    process = subprocess.Popen([mosquitto_path, "-c", str(conf)], stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        puts = [Put("allowed", b"1"), Put("other", b"2"), Put("allowed", b"3"), Put("other", b"4")]

        path = drained(tmp_path, port, "awscrt", puts)
    finally:
        process.terminate()
        process.wait(60)

    refused = read_refused(path)
    assert [entry.payload for entry in refused] == [b"2", b"4"]
    assert all("0x87" in entry.reason for entry in refused)
