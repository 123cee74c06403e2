"""
The cloud companion through mosquitto, QoS 1, durable, with the pump model of AWS's sample, beside the bare broker and peers.

    python benchmarks/cloud.py [--messages 60000] [--detectors 100000] [--only drain,latency,http,restart]

All figures of one run come from one machine at one time; compare only those.
"""

import argparse
import base64
import contextlib
import http.client
import itertools
import json
import multiprocessing
import os
import queue
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cloud_crash import own_port
from benchmarks.mqtt_raw import RawClient, publish
from benchmarks.nodered import COUNT_EVERY, COUNTED, NodeRed, find_node_red
from tests.loopback import wait_for_port

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
        self.broker_port, self.port = own_port(), own_port()
        (folder / "mosquitto.conf").write_text(
            f"listener {self.broker_port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
            "max_queued_messages 0\nmax_inflight_messages 0\n"
        )
        path = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        self._broker = subprocess.Popen(
            [path, "-c", str(folder / "mosquitto.conf")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_port(self.broker_port)
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
        for process in (self._companion, self._broker):
            if process is not None:
                process.terminate()
                process.wait(60)


def flood(port: int, count: int, first: int) -> None:
    """Publish as quickly as the broker takes it; at most 20,000 unacknowledged."""
    client = RawClient(port, f"flood{first}")
    data = [publish(f"dt/motor{n % MOTORS}/data", payload(first + n, n % MOTORS, 50.0), n) for n in range(count)]
    acknowledged = 0
    packets = client.packets()
    for start in range(0, count, 500):
        client.send(b"".join(data[start : start + 500]))
        while start + 500 - acknowledged > 20_000:
            next(packets)
            acknowledged += 1
    while acknowledged < count:
        next(packets)
        acknowledged += 1
    client.close()


def drained(site: Site, count: int, first: int, done: Callable[[], bool]) -> float:
    """Messages a second from the first publish until everything is done with."""
    process = multiprocessing.get_context("spawn").Process(target=flood, args=(site.broker_port, count, first))
    process.start()
    while not _begun(site):
        time.sleep(0.001)
    began = time.perf_counter()
    while not done():
        time.sleep(0.1)
    took = time.perf_counter() - began
    process.join()
    return count / took


_seen: dict[int, int] = {}


def _begun(site: Site) -> bool:
    """Whether the broker has taken anything new; the sentinel hears the first message of every flood."""
    if site.broker_port not in _seen:
        _seen[site.broker_port] = 0
        threading.Thread(target=_listen, args=(site.broker_port,), daemon=True).start()
        time.sleep(0.3)
    if _seen[site.broker_port]:
        _seen[site.broker_port] = 0
        return True
    return False


def _listen(port: int) -> None:
    client = RawClient(port, "sentinel")
    client.subscribe("dt/motor0/data")
    for _messages in client.messages():
        _seen[port] = 1


def _raw_subscriber(port: int, results: Any, count: int) -> None:
    client = RawClient(port, "bare")
    client.subscribe("dt/+/data")
    results.put("ready")
    received = 0
    for messages in client.messages():
        received += len(messages)
        if received >= count:
            break
    results.put(received)


def _library_subscriber(port: int, results: Any, count: int, library: str) -> None:
    from wheeltapper.transport.settings import BrokerSettings, open_transport

    transport = open_transport(BrokerSettings(url=f"mqtt://127.0.0.1:{port}", client=library))  # type: ignore[arg-type]
    received = 0
    finished = threading.Event()

    def handle(delivery: Any) -> None:
        nonlocal received
        delivery.acknowledge()
        received += 1
        if received >= count:
            finished.set()

    transport.subscribe("dt/+/data", handle)
    transport.start()
    time.sleep(0.5)
    results.put("ready")
    finished.wait()
    results.put(received)


def _peer_subscriber(port: int, results: Any, count: int) -> None:
    """What many write by hand: paho, json, and one machine of ``transitions`` per motor; nothing is durable."""
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion
    from transitions import Machine

    class Motor:
        reading: dict[str, Any]
        state: str

        def tell(self, event: Any) -> None:
            name, before = self.reading["motorID"], event.transition.source
            change = {"detector": "Pump", "key": name, "from_state": before, "state": self.state, "event": before,
                      "time_ms": self.reading["time_ms"]}  # fmt: skip
            client.publish(f"wt/{name}/state", json.dumps(change), 1)

        def runs(self, _event: Any = None) -> bool:
            return self.reading["TT01"] > 10

        def stands(self, _event: Any = None) -> bool:
            return self.reading["TT01"] <= 10

    states = ["initialize", "motor_off", "motor_on"]
    moves = [
        {"trigger": "judge", "source": "initialize", "dest": "motor_off"},
        {"trigger": "judge", "source": "motor_off", "dest": "motor_on", "conditions": "runs"},
        {"trigger": "judge", "source": "motor_on", "dest": "motor_off", "conditions": "stands"},
    ]
    machine = Machine(
        None, states=states, transitions=moves, initial="initialize", auto_transitions=False, send_event=True,
        after_state_change="tell",
    )  # fmt: skip
    motors: dict[str, Motor] = {}
    received = 0
    finished = threading.Event()

    def handle(_client: Any, _data: Any, message: Any) -> None:
        nonlocal received
        reading = json.loads(message.payload)
        motor = motors.get(reading["motorID"])
        if motor is None:
            motor = motors[reading["motorID"]] = Motor()
            machine.add_model(motor)
        motor.reading = reading
        if motor.state == "initialize" or motor.runs() != (motor.state == "motor_on"):
            motor.judge()  # type: ignore[attr-defined]
        received += 1
        if received >= count:
            finished.set()

    client = paho.Client(CallbackAPIVersion.VERSION2, "peer")
    client.on_message = handle
    client.connect("127.0.0.1", port)
    client.subscribe("dt/+/data", 1)
    client.loop_start()
    time.sleep(0.5)
    results.put("ready")
    finished.wait()
    results.put(received)


def drain_beside(site: Site, count: int, first: int, target: Any, *more: Any) -> float:
    """The rate of a subscriber that runs in a process of its own."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=target, args=(site.broker_port, results, count, *more))
    process.start()
    results.get()

    def done() -> bool:
        try:
            results.get_nowait()
            return True
        except queue.Empty:
            return False

    rate = drained(site, count, first, done)
    process.join()
    return rate


def measure_others(site: Site, count: int) -> dict[str, float]:
    """Messages a second: the broker alone, with clients that do nothing, with peers."""
    found = {"bare_broker_raw": drain_beside(site, count, 10**7, _raw_subscriber)}
    for library in ("awscrt", "bulk", "paho"):
        found[f"bare_broker_{library}"] = drain_beside(site, count, 2 * 10**7, _library_subscriber, library)
    found["paho_transitions"] = drain_beside(site, count, 3 * 10**7, _peer_subscriber)
    if (program := find_node_red()) is not None:
        with contextlib.closing(NodeRed(site.folder / "node-red", program, site.broker_port)):
            found["node_red"] = _drain_node_red(site, count)
    return found


def measure_drain(site: Site, count: int) -> dict[str, float]:
    """Messages a second through the companion, and the processor time that each costs."""
    before, cpu_s = site.accepted(), site.cpu_s()
    rate = drained(site, count, 4 * 10**7, lambda: site.accepted() - before >= count)
    return {"companion": rate, "companion_cpu_us_per_message": (site.cpu_s() - cpu_s) / count * 1e6}


def _drain_node_red(site: Site, count: int) -> float:
    counted = RawClient(site.broker_port, "counted")
    counted.subscribe(COUNTED)
    heard = 0

    def listen() -> None:
        nonlocal heard
        with contextlib.suppress(OSError):
            for messages in counted.messages():
                heard = max(heard, *(int(content) for _topic, content in messages))

    threading.Thread(target=listen, daemon=True).start()
    _await(site, lambda: heard > 0)
    before = heard
    rate = drained(site, count, 5 * 10**7, lambda: heard >= before + count - COUNT_EVERY)
    counted.close()
    return rate


def _await(site: Site, ready: Callable[[], bool]) -> None:
    """Publish a little until somebody hears it."""
    probe = RawClient(site.broker_port, "waker")
    threading.Thread(target=_read_away, args=(probe,), daemon=True).start()
    deadline = time.monotonic() + 60
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError("the peer hears nothing")
        probe.send(b"".join(publish("dt/motor1/data", payload(n, 1, 50.0), n) for n in range(1, COUNT_EVERY // 4)))
        time.sleep(0.2)
    probe.close()


def _read_away(client: RawClient) -> None:
    with contextlib.suppress(OSError):
        for _packet in client.packets():
            pass


def measure_peers_latency(site: Site, seconds: float = 4.0, rate: int = 1000) -> dict[str, float]:
    """Milliseconds from publishing to hearing the state change from peers that keep everything in memory."""
    times = {}
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    peer = context.Process(target=_peer_subscriber, args=(site.broker_port, results, 1 << 60))
    peer.start()
    results.get()
    times["paho_transitions"] = _round_trips(site, "wt/+/state", seconds, rate)
    peer.terminate()
    peer.join()
    if (program := find_node_red()) is not None:
        with contextlib.closing(NodeRed(site.folder / "node-red-too", program, site.broker_port)):
            _drain_node_red(site, 2 * COUNT_EVERY)
            times["node_red"] = _round_trips(site, "wt/+/state", seconds, rate)
    return _quantiles(times)


def _quantiles(times: dict[str, list[float]]) -> dict[str, float]:
    found = {}
    for name, taken in times.items():
        taken = sorted(taken)
        found[f"{name}_p50_ms"] = taken[len(taken) // 2] * 1e3
        found[f"{name}_p99_ms"] = taken[int(len(taken) * 0.99)] * 1e3
    return found


def measure_latency(site: Site, seconds: float = 20.0, rate: int = 1000, rounds: int = 5) -> dict[str, float]:
    """
    Milliseconds from publishing to hearing: the message itself, and the state change that it causes; and to sync a write.

    They take turns, so that what else this machine does meets them alike.
    """
    share = seconds / rounds / 2
    times: dict[str, list[float]] = {"echo": [], "action": [], "disk": []}
    for _ in range(rounds):
        for name, heard_filter in (("echo", "dt/+/data"), ("action", "wt/+/state")):
            trips = _round_trips(site, heard_filter, share, rate)
            times[name] += trips[len(trips) // 10 :]
        times["disk"] += _syncs(site.folder / "floor", 500, rate)
    found = _quantiles(times)
    found["action_p50_to_echo"] = found["action_p50_ms"] / found["echo_p50_ms"]
    return found


def _syncs(path: Path, count: int, rate: int) -> list[float]:
    """How long the disk takes to make one page durable, which is the least that any durable judge has to wait for."""
    times = []
    with path.open("w+b", buffering=0) as file:
        file.write(bytes(count * 4096))
        os.fsync(file.fileno())
        file.seek(0)
        for _ in range(count):
            time.sleep(1 / rate)
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return times


def _round_trips(site: Site, heard_filter: str, seconds: float, rate: int) -> list[float]:
    """Every message starts or stops a motor of its own turn, so that each causes one change of state."""
    sent: dict[int, float] = {}
    times: list[float] = []
    listener = RawClient(site.broker_port, "listener")
    listener.subscribe(heard_filter)
    base = int(time.time() * 1000) * 10

    def listen() -> None:
        for messages in listener.messages():
            now = time.perf_counter()
            for _topic, content in messages:
                told = json.loads(content)
                if told.get("event") == "init_complete" or told.get("from_state") == "":
                    continue
                began = sent.pop(int(told["time_ms"]), None)
                if began is not None:
                    times.append(now - began)

    def listen_until_closed() -> None:
        with contextlib.suppress(OSError):
            listen()

    threading.Thread(target=listen_until_closed, daemon=True).start()
    sender = RawClient(site.broker_port, "sender")
    threading.Thread(target=_read_away, args=(sender,), daemon=True).start()
    start = time.perf_counter()
    for n in range(int(seconds * rate)):
        due = start + n / rate
        while time.perf_counter() < due:
            time.sleep(max(due - time.perf_counter(), 0) * 0.8)
        motor = n % MOTORS
        content = json.loads(payload(base + n, motor, 5.0 if n // MOTORS % 2 else 50.0))
        content["time_ms"] = base + n
        sent[base + n] = time.perf_counter()
        sender.send(publish(f"dt/motor{motor}/data", json.dumps(content).encode(), n))
    time.sleep(1.0)
    listener.close()
    sender.close()
    return times


def measure_http(site: Site, seconds: float = 5.0, connections: int = 32) -> dict[str, float]:
    """BatchPutMessage calls a second, of one message and of ten."""
    return {f"batch_put_{size}_requests_per_s": _http_rate(site, seconds, connections, size) for size in (1, 10)}


def _http_rate(site: Site, seconds: float, connections: int, size: int) -> float:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    calling = context.Process(target=_call, args=(site.port, seconds, connections, size, results))
    calling.start()
    rate: float = results.get()
    calling.join()
    return rate


def _call(port: int, seconds: float, connections: int, size: int, results: Any) -> None:
    """Keep every connection waiting for an answer; each is checked, and the next request sent at once."""
    numbers = itertools.count()
    poll, sockets = select.poll(), {}
    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[connection.fileno()] = connection
        poll.register(connection, select.POLLIN)
        connection.sendall(_request(numbers, size))
    answers: dict[int, bytes] = {}
    answered, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        for number, _event in poll.poll(1000):
            answers[number] = answer = answers.get(number, b"") + sockets[number].recv(65_536)
            if answer.endswith(b"}"):
                assert answer.startswith(b"HTTP/1.1 200"), answer
                assert answer.endswith(b'{"BatchPutMessageErrorEntries":[]}'), answer
                answers[number] = b""
                answered += 1
                sockets[number].sendall(_request(numbers, size))
    results.put(answered / took)


def _request(numbers: Iterator[int], size: int) -> bytes:
    entries = []
    for number in itertools.islice(numbers, size):
        content = base64.b64encode(payload(number, number % MOTORS, 50.0)).decode()
        entries.append({"messageId": f"{size}-{number}", "inputName": INPUTS[0], "payload": content})
    body = json.dumps({"messages": entries}).encode()
    head = f"POST /inputs/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Content-Type: application/json\r\n\r\n" + body


def measure_restart(folder: Path, detectors: int) -> dict[str, float]:
    """Seconds until a judge with many detectors stands again: after a clean stop, and after SIGKILL under load."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    filling = context.Process(target=_fill, args=(folder, detectors, results))
    filling.start()
    found = {"filled_memory_mb": results.get()}
    os.kill(filling.pid or 0, signal.SIGKILL)
    filling.join()
    for name in ("killed", "clean"):
        results = context.Queue()  # the killed process may have taken the other one's lock with it
        starting = context.Process(target=_restart, args=(folder, detectors, results))
        starting.start()
        found[f"restart_{name}_s"], found["memory_mb"] = results.get()
        starting.join()
    return found


def _judge(folder: Path) -> Any:
    from wheeltapper.clock import SystemClock
    from wheeltapper.judge import Judge, JudgeSettings

    return Judge(folder, SystemClock(), JudgeSettings(publish_states=False, publish_alarms=False))


def _fill(folder: Path, detectors: int, results: Any) -> None:
    import msgspec

    from wheeltapper.judge import Deployment, Message

    judge = _judge(folder)
    judge.start()
    judge.declare_inputs({name: [] for name in INPUTS})
    body = json.loads(SAMPLE.read_text())["detectorModel"]
    definition = {"detectorModelName": "Pump", "key": "motorID", "roleArn": "r", **body}
    raw = msgspec.Raw(json.dumps(definition).encode())
    judge.deploy(Deployment(name="Pump", version="1", kind="detector", body=raw))
    for turn in range(2):
        for start in range(0, detectors, 1000):
            judge.put([Message(INPUTS[0], payload(turn, motor, 50.0)) for motor in range(start, start + 1000)])
    for start in range(0, 20_000, 1000):  # what a restart has to replay
        judge.put([Message(INPUTS[0], payload(start, motor, 60.0)) for motor in range(start, start + 1000)])
    results.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    time.sleep(60)


def _restart(folder: Path, detectors: int, results: Any) -> None:
    judge = _judge(folder)
    began = time.perf_counter()
    judge.start()
    took = time.perf_counter() - began
    assert judge.statistics().detectors == detectors
    results.put((took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3))
    judge.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--messages", type=int, default=60_000)
    parser.add_argument("--detectors", type=int, default=100_000)
    parser.add_argument(
        "--client", choices=("awscrt", "bulk", "paho"), default="bulk", help="the companion's MQTT client"
    )
    parser.add_argument("--only", default="drain,latency,http,restart")
    options = parser.parse_args()
    if not SAMPLE.is_file():
        print(f"{SAMPLE}: is not there", file=sys.stderr)
        return 1
    wanted = options.only.split(",")
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        site = Site(folder, options.client)
        try:
            if "drain" in wanted:
                found |= measure_others(site, options.messages)
            if "latency" in wanted:
                found |= measure_peers_latency(site)
            if set(wanted) & {"drain", "latency", "http"}:
                site.start()
            if "drain" in wanted:
                found |= measure_drain(site, options.messages)
            if "latency" in wanted:
                found |= measure_latency(site)
            if "http" in wanted:
                found |= measure_http(site)
            if site._companion is not None:
                found["companion_memory_mb"] = site.memory_mb()
        finally:
            site.close()
        if "restart" in wanted:
            found |= measure_restart(folder / "many", options.detectors)
    print(json.dumps({name: round(value, 3 if value < 100 else 0) for name, value in found.items()}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
