"""The gateway as its users run it: a process, a broker, a settings file."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.components.detector_models import hot_motor
from tests.components.small_models import write_small_model
from tests.loopback import free_port, wait_for_port
from wheeltapper.cli import main
from wheeltapper.messages import Reading, encode
from wheeltapper.transport import Delivery
from wheeltapper.transport.settings import BrokerSettings, open_transport


class Ear:
    """A client that keeps what it hears."""

    def __init__(self, port: int) -> None:
        self.transport = open_transport(BrokerSettings(url=f"mqtt://127.0.0.1:{port}"))
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self._changed = threading.Condition()
        self.transport.subscribe("wt/#", self._hear)
        self.transport.start()

    def _hear(self, delivery: Delivery) -> None:
        with self._changed:
            self.heard.append((delivery.topic, json.loads(delivery.payload)))
            self._changed.notify_all()
        delivery.acknowledge()

    def on(self, topic: str) -> list[dict[str, Any]]:
        with self._changed:
            return [message for heard, message in self.heard if heard == topic]

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 90.0) -> bool:
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not condition():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def say(self, topic: str, payload: bytes) -> None:
        self.transport.publish(topic, payload)


def start_gateway(settings: Path, **options: Any) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "wheeltapper.cli", "gateway", "run", "--config", str(settings)]
    return subprocess.Popen(command, **options)


def write_settings(folder: Path, port: int, more: str = "") -> Path:
    write_small_model(folder / "model")
    path = folder / "gateway.toml"
    path.write_text(
        f'data_dir = "data"\n[broker]\nurl = "mqtt://127.0.0.1:{port}"\n'
        f'[[models]]\nthings = ["motor-*"]\nfolder = "model"\n{more}'
    )
    return path


def reading(number: int) -> bytes:
    return encode(Reading(f"m{number}", "motor-1", 1_000 * number, {"TT01": 60.0 + number, "motorType": "pump"}))


def test_readings_become_predictions_across_a_kill_each_once(mosquitto: int, tmp_path: Path) -> None:
    settings = write_settings(tmp_path, mosquitto)
    ear = Ear(mosquitto)
    gateway = start_gateway(settings)
    assert ear.wait_for(lambda: bool(ear.on("wt/gateway/health")))
    for number in range(20):
        ear.say("wt/motor-1/reading", reading(number))
    assert ear.wait_for(lambda: len(ear.on("wt/motor-1/prediction")) >= 19)
    gateway.send_signal(signal.SIGKILL)
    gateway.wait()
    for number in range(15, 40):
        ear.say("wt/motor-1/reading", reading(number))
    gateway = start_gateway(settings)

    assert ear.wait_for(lambda: len({p["reading_id"] for p in ear.on("wt/motor-1/prediction")}) >= 39)
    gateway.terminate()
    assert gateway.wait(60) == 0
    ear.transport.close()
    predictions = ear.on("wt/motor-1/prediction")
    ids = {prediction["message_id"] for prediction in predictions}
    assert len(ids) == 39  # the first reading only warms the model up
    assert predictions[0]["motorType"] == "pump"
    assert predictions[0]["thing"] == "motor-1"


def test_detectors_in_the_same_process_raise_the_alarm(mosquitto: int, tmp_path: Path) -> None:
    (tmp_path / "hot.json").write_text(json.dumps(hot_motor()))
    settings = write_settings(tmp_path, mosquitto, '[detectors]\nmodels = ["hot.json"]\n')
    ear = Ear(mosquitto)
    gateway = start_gateway(settings)
    processes = {"inference", "detectors"}
    assert ear.wait_for(lambda: {health["process"] for health in ear.on("wt/gateway/health")} == processes)

    for number in (0, 1, 2, 80, 81):
        ear.say("wt/motor-1/reading", reading(number))

    assert ear.wait_for(lambda: bool(ear.on("wt/motor-1/alarm")))
    gateway.terminate()
    assert gateway.wait(60) == 0
    ear.transport.close()
    alarm = ear.on("wt/motor-1/alarm")[0]
    assert (alarm["detector"], alarm["model"]["name"]) == ("hot_motor", "motor")
    assert alarm["contributions"][0]["sensor"] == "TT01"


def test_a_gateway_starts_without_its_broker_and_serves_once_it_is_there(mosquitto_path: str, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "hot.json").write_text(json.dumps(hot_motor()))
    settings = write_settings(tmp_path, port, '[detectors]\nmodels = ["hot.json"]\n')
    gateway = start_gateway(settings, stderr=subprocess.PIPE)
    said: list[str] = []
    assert gateway.stderr is not None
    for line in gateway.stderr:
        said.append(line.decode())
        if "cannot be reached" in said[-1]:
            break
    assert gateway.poll() is None

    broker = subprocess.Popen([mosquitto_path, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_port(port)
    ear = Ear(port)
    both = {"inference", "detectors"}
    ready = ear.wait_for(
        lambda: {word["process"] for word in ear.on("wt/gateway/health") if word["status"] == "ready"} == both
    )
    for number in (0, 1):
        ear.say("wt/motor-1/reading", reading(number))
    scored = ear.wait_for(lambda: bool(ear.on("wt/motor-1/prediction")))
    healthy = main(["health", str(tmp_path / "data")])
    gateway.terminate()
    rest = gateway.stderr.read().decode()
    ear.transport.close()
    broker.terminate()
    broker.wait(60)

    assert ready and scored
    assert healthy == 0
    assert gateway.wait(90) == 0
    assert "Traceback" not in "".join(said) + rest


def test_credentials_that_cannot_be_read_end_the_process_with_one_line(tmp_path: Path) -> None:
    settings = write_settings(tmp_path, 1)
    settings.write_text(settings.read_text().replace("[broker]", '[broker]\nca = "nowhere.pem"'))

    ended = subprocess.run(
        [sys.executable, "-m", "wheeltapper.cli", "gateway", "run", "--config", str(settings)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )

    assert ended.returncode == 2
    assert "nowhere.pem" in ended.stderr
    assert "Traceback" not in ended.stderr
