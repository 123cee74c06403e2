"""
How long a reading takes to become an alarm, beside a bare broker echo in the same run; cold start; memory.

    .venv/bin/python benchmarks/journey.py

A mosquitto, a gateway and a cloud companion run as processes. The shipped motor model scores every reading, a detector
judges every prediction and rings with each twentieth: published → scored and kept → journaled → judged → alarm received is
timed for those. The echo crosses the same broker twice with nothing in between and nothing kept.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.loopback import free_port
from tests.mosquitto import Mosquitto
from wheeltapper.messages import Reading, encode_reading
from wheeltapper_device.machines import Simulation

THINGS = 10
EVERY = 20


def client(port: int) -> paho.Client:
    """A connected client that does not delay small packets."""
    made = paho.Client(CallbackAPIVersion.VERSION2)
    made.on_socket_open = lambda _c, _d, opened: opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # type: ignore[attr-defined]
    made.max_inflight_messages_set(20_000)
    made.connect("127.0.0.1", port)
    made.loop_start()
    return made


def detector_model() -> dict[str, Any]:
    """Rings with every ``EVERY``-th prediction of a thing, and is quiet again with the next."""

    def set_count(value: str) -> dict[str, Any]:
        return {"setVariable": {"variableName": "count", "value": value}}

    counting = {
        "stateName": "Counting",
        "onEnter": {"events": [{"eventName": "begin", "actions": [set_count("0")]}]},
        "onInput": {
            "events": [
                {
                    "eventName": "count",
                    "condition": "$input.Prediction.score >= 0",
                    "actions": [set_count("$variable.count + 1")],
                }
            ],
            "transitionEvents": [
                {"eventName": "ring", "condition": f"$variable.count >= {EVERY - 2}", "nextState": "Ringing"}
            ],
        },
    }
    ringing = {
        "stateName": "Ringing",
        "onInput": {
            "transitionEvents": [
                {"eventName": "quiet", "condition": "$input.Prediction.score >= 0", "nextState": "Counting"}
            ]
        },
    }
    return {
        "detectorModelName": "EveryTwentieth",
        "roleArn": "arn:aws:iam::000000000000:role/wheeltapper",
        "key": "thing",
        "detectorModelDefinition": {"initialStateName": "Counting", "states": [counting, ringing]},
    }


def write_settings(folder: Path, broker_port: int, cloud_port: int) -> None:
    """Settings for a gateway and a cloud companion."""
    from wheeltapper.up import plan

    (folder / "every.json").write_text(json.dumps(detector_model()))
    broker = f"mqtt://127.0.0.1:{broker_port}"
    models = plan.shipped_models()
    (folder / "gateway.toml").write_text(
        f'data_dir = "gateway"\n[broker]\nurl = "{broker}"\nclient_id = "bench-gateway"\n'
        f'[[models]]\nthings = ["bench-*"]\nfolder = "{models / "motor"}"\nperiod_s = 0.0\n'
    )
    (folder / "cloud.toml").write_text(
        f'broker = "{broker}"\nmodels = ["every.json"]\n[server]\nport = {cloud_port}\n'
        '[judge]\nalarm_states = { EveryTwentieth = ["Ringing"] }\n'
        '[[inputs]]\nname = "Prediction"\nattributes = ["thing", "score"]\n'
        '[[rules]]\nfilter = "wt/+/prediction"\ninput = "Prediction"\n'
    )


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def send_at_rate(rate: float, seconds: float, send: Callable[[int], None]) -> int:
    """Call ``send`` with 0, 1, 2, … at a steady rate; returns how often."""
    start, count = time.perf_counter(), int(rate * seconds)
    for number in range(count):
        due = start + number / rate
        while (wait := due - time.perf_counter()) > 0:
            time.sleep(wait)
        send(number)
    return count


def wait_until(holds: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)


def measure_echo(port: int, rate: float, seconds: float) -> list[float]:
    """Milliseconds from publish to arrival through an echoing client."""
    echo, listener, speaker = client(port), client(port), client(port)
    sent: dict[int, float] = {}
    delays: list[float] = []
    echo.on_message = lambda c, _d, message: c.publish("bench/out", message.payload, qos=1)
    listener.on_message = lambda _c, _d, message: delays.append(
        (time.perf_counter() - sent[int(message.payload[:12])]) * 1000
    )
    echo.subscribe("bench/in", qos=1)
    listener.subscribe("bench/out", qos=1)
    time.sleep(0.5)

    def send(number: int) -> None:
        sent[number] = time.perf_counter()
        speaker.publish("bench/in", f"{number:012d}".encode() + b"x" * 250, qos=1)

    count = send_at_rate(rate, seconds, send)
    wait_until(lambda: len(delays) == count, 20)
    for each in (echo, listener, speaker):
        each.loop_stop()
        each.disconnect()
    return delays


def measure_journey(port: int, rate: float, seconds: float, run: int) -> tuple[int, list[float]]:
    """Readings sent, and milliseconds from each one's publish to its alarm's arrival."""
    simulation = Simulation("motor", seed=1, fault="none")
    values = [simulation.next().values for _ in range(500)]
    listener, speaker = client(port), client(port)
    sent: dict[tuple[str, int], float] = {}
    delays: list[float] = []
    decode = msgspec.json.Decoder().decode

    def take(_client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        arrived = time.perf_counter()
        alarm = decode(message.payload)
        left = sent.pop((alarm["thing"], alarm["reading_time_ms"]), None)
        if left is not None:
            delays.append((arrived - left) * 1000)

    listener.on_message = take
    listener.subscribe("wt/+/alarm", qos=1)
    time.sleep(0.5)
    base_ms = time.time_ns() // 1_000_000
    step_ms = 1000.0 * THINGS / rate

    def send(number: int) -> None:
        thing = f"bench-{run}-{number % THINGS}"
        time_ms = base_ms + int(number // THINGS * step_ms)
        reading = Reading(f"{run}-{number}", thing, time_ms, dict(values[number % len(values)]))
        sent[thing, time_ms] = time.perf_counter()
        speaker.publish(f"wt/{thing}/reading", encode_reading(reading), qos=1)

    count = send_at_rate(rate, seconds, send)
    wait_until(lambda: len(delays) >= count // EVERY - 2 * THINGS, 30)
    time.sleep(1.0)
    for each in (listener, speaker):
        each.loop_stop()
        each.disconnect()
    return count, delays


def resident_mb(pid: int) -> float:
    """Resident memory of a process and its children, in MB."""
    total = 0.0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            total = int(line.split()[1]) / 1024
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return total + sum(resident_mb(int(child)) for child in children)


def measure_cold_start() -> None:
    """Time from the command to its first alarm, and each process's memory then."""
    command = [sys.executable, "-m", "wheeltapper.cli", "up", "--json", "--duration", "60", "--port", str(free_port())]
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        process = subprocess.Popen(
            [*command, "--data-dir", f"{folder}/run"], stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        pids, first = {"up": process.pid}, dict[str, float]()
        for line in process.stdout:
            event = json.loads(line)
            if str(event.get("detail", "")).startswith("pid "):
                pids[event["process"]] = int(event["detail"][4:])
            name = "fault" if event.get("process") == "machine" else event["kind"]
            first.setdefault(name, time.monotonic() - start)
            if "alarm" in first:
                break
        print("\ncold start of `wheeltapper up`, seconds after the command:")
        for name in ("reading", "prediction", "fault", "alarm"):
            print(f"  first {name:<11} {first.get(name, float('nan')):6.1f} s")
        print("resident memory at the first alarm:")
        for name, pid in pids.items():
            own = resident_mb(pid) if name != "up" else _own_mb(pid)
            print(f"  {name:<11} {own:6.1f} MB")
        process.terminate()
        process.communicate()


def _own_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[100.0, 1000.0])
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--skip-cold-start", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        broker = Mosquitto(folder)
        port = broker.port
        write_settings(folder, port, free_port())
        ready: set[str] = set()
        processes = [broker.process]
        try:
            ear = client(port)
            ear.on_message = lambda _c, _d, m: ready.add(str(json.loads(m.payload)["thing"]))
            ear.subscribe("wt/+/health", qos=1)
            log = (folder / "log").open("w")
            for words in (
                ("cloud", "serve", "--config", "cloud.toml", "--data-dir", "cloud"),
                ("gateway", "run", "--config", "gateway.toml"),
            ):
                command = [sys.executable, "-m", "wheeltapper.cli", *words]
                processes.append(subprocess.Popen(command, cwd=folder, stdout=log, stderr=log))
            wait_until(lambda: {"cloud", "gateway"} <= ready, 30)
            if not {"cloud", "gateway"} <= ready:
                raise SystemExit((folder / "log").read_text())
            measure_echo(port, 200, 1)
            measure_journey(port, 200, 2, 0)
            report(port, options.rates, options.seconds)
            print(
                "resident memory: "
                + ", ".join(
                    f"{name} {resident_mb(process.pid):.0f} MB"
                    for name, process in zip(("mosquitto", "cloud", "gateway"), processes, strict=True)
                )
            )
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait(20)
    if not options.skip_cold_start:
        measure_cold_start()
    return 0


def report(port: int, rates: list[float], seconds: float) -> None:
    """Measure each rate and print a row."""
    print(
        f"{'readings/s':>10} {'sent':>7} {'alarms':>7} {'p50':>9} {'p99':>9} {'echo p50':>9} {'echo p99':>9} {'ratio':>6}"
    )
    for run, rate in enumerate(rates, start=1):
        echo = measure_echo(port, rate, min(seconds, 5))
        count, delays = measure_journey(port, rate, seconds, run)
        if not delays:
            raise SystemExit(f"no alarm came at {rate:g} readings/s")
        p50, p99 = statistics.median(delays), percentile(delays, 0.99)
        echo50, echo99 = statistics.median(echo), percentile(echo, 0.99)
        print(
            f"{rate:>10.0f} {count:>7} {len(delays):>7} {p50:>6.1f} ms {p99:>6.1f} ms {echo50:>6.2f} ms {echo99:>6.2f} ms "
            f"{p50 / echo50:>6.1f}",
            flush=True,
        )


if __name__ == "__main__":
    threading.current_thread().name = "benchmark"
    sys.exit(main())
