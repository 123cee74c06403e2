"""Those beside whom the companion is measured: the bare broker, client libraries that do nothing, and peers at its job."""

import contextlib
import json
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.cloud_load import drained, quantiles, read_away, round_trips
from benchmarks.cloud_site import Site, payload
from benchmarks.mqtt_raw import RawClient, publish
from benchmarks.nodered import COUNT_EVERY, COUNTED, NodeRed, find_node_red

ECHOED = "echo"


def _echo(port: int, results: Any) -> None:
    client = RawClient(port, "echo")
    client.subscribe(f"{ECHOED}/+/data")
    results.put("ready")
    number = 0
    for messages in client.messages():
        for _topic, content in messages:
            number += 1
            client.send(publish(f"{ECHOED}/back", content, number))


def echoing(site: Site) -> contextlib.AbstractContextManager[None]:
    """A client in a process of its own sends back what is published under ``ECHOED``, and keeps nothing."""
    return _beside(site, _echo)


@contextlib.contextmanager
def _beside(site: Site, target: Any, *more: Any) -> Iterator[None]:
    """A client in a process of its own, ready when this begins and ended with it."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=target, args=(site.broker_port, results, *more))
    process.start()
    results.get()
    try:
        yield
    finally:
        process.terminate()
        process.join()


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
    threading.Thread(target=read_away, args=(probe,), daemon=True).start()
    deadline = time.monotonic() + 60
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError("the peer hears nothing")
        probe.send(b"".join(publish("dt/motor1/data", payload(n, 1, 50.0), n) for n in range(1, COUNT_EVERY // 4)))
        time.sleep(0.2)
    probe.close()


def measure_peers_latency(site: Site, seconds: float = 4.0, rate: int = 1000) -> dict[str, float]:
    """Milliseconds from publishing to hearing the state change from peers that keep everything in memory."""
    times = {}
    with _beside(site, _peer_subscriber, 1 << 60):
        times["paho_transitions"] = round_trips(site, "wt/+/state", seconds, rate)
    if (program := find_node_red()) is not None:
        with contextlib.closing(NodeRed(site.folder / "node-red-too", program, site.broker_port)):
            _drain_node_red(site, 2 * COUNT_EVERY)
            times["node_red"] = round_trips(site, "wt/+/state", seconds, rate)
    return quantiles(times)
