"""A broker with a cloud companion beside it that judges the pump model of AWS's sample, for benchmarks."""

import http.client
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.mqtt_raw import RawClient, publish
from tests.loopback import free_port, wait_for_port
from tests.mosquitto import Mosquitto

SAMPLE = Path(__file__).resolve().parents[2] / "shared/examples/detector-models/repo-iml-detector-model.json"
MOTORS = 100
INPUTS = ("IoTImlPumpData", "IoTImlPumpInference", "IoTImlPumpAction")


def payload(number: int, motor: int, temperature: float) -> bytes:
    """One reading of a motor, as long as the sample's."""
    return json.dumps(
        {"message_id": f"m{number}", "motorID": f"motor{motor}", "TT01": temperature, "FT01": 150 + number % 20,
         "PT01": 1.25, "ST01": 1480.5, "time_ms": 1_700_000_000_000 + number, "site": "plant-1", "type": "pump"}
    ).encode()  # fmt: skip


class Site:
    """A broker, and a companion beside it."""

    def __init__(self, folder: Path, client: str) -> None:
        self.folder = folder
        self._broker = Mosquitto(folder)
        self.broker_port, self.port = self._broker.port, free_port()
        shutil.copy(SAMPLE, folder / "pump.json")
        inputs = "".join(f'[[inputs]]\nname = "{name}"\nattributes = ["motorID"]\n' for name in INPUTS)
        (folder / "cloud.toml").write_text(
            f'models = ["pump.json"]\n[broker]\nurl = "mqtt://127.0.0.1:{self.broker_port}"\nclient = "{client}"\n'
            f'{inputs}[[rules]]\nfilter = "dt/+/data"\ninput = "IoTImlPumpData"\n'
        )
        self._companion: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = (self.folder / "log").open("ab")
        self._companion = subprocess.Popen(
            [
                *(sys.executable, "-m", "wheeltapper.cli", "cloud", "serve", "--port", str(self.port)),
                *("--data-dir", str(self.folder / "data"), "--config", str(self.folder / "cloud.toml")),
                *("--log-level", "WARNING"),
            ],
            stdout=log,
            stderr=log,
        )
        wait_for_port(self.port, 60)
        probe = RawClient(self.broker_port, "probe")
        while b"dt/probe/data" not in (self.folder / "log").read_bytes():
            probe.send(publish("dt/probe/data", b"?", 1))
            time.sleep(0.1)
        probe.close()

    def accepted(self) -> int:
        """Messages that are durable and applied."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        line = next(line for line in text.splitlines() if line.startswith("wheeltapper_messages_accepted_total"))
        return int(float(line.split()[1]))

    def memory_mb(self) -> float:
        assert self._companion is not None
        pages = int(Path(f"/proc/{self._companion.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6

    def cpu_s(self) -> float:
        """Processor time the companion has used."""
        assert self._companion is not None
        fields = Path(f"/proc/{self._companion.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        if self._companion is not None:
            self._companion.terminate()
            self._companion.wait(60)
        self._broker.close()
