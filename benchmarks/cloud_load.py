"""Loads a broker and times what comes of it: as fast as it goes, or at a steady rate."""

import contextlib
import json
import multiprocessing
import threading
import time
from collections.abc import Callable

from benchmarks.cloud_site import MOTORS, Site, payload
from benchmarks.mqtt_raw import RawClient, publish


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


def round_trips(site: Site, heard_filter: str, seconds: float, rate: int, said: str = "dt") -> list[float]:
    """
    Seconds from publishing each message under ``said`` to hearing what has its time.

    Every message starts or stops a motor of its own turn, so that each causes one change of state.
    """
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
    threading.Thread(target=read_away, args=(sender,), daemon=True).start()
    start = time.perf_counter()
    for n in range(int(seconds * rate)):
        due = start + n / rate
        while time.perf_counter() < due:
            time.sleep(max(due - time.perf_counter(), 0) * 0.8)
        motor = n % MOTORS
        content = json.loads(payload(base + n, motor, 5.0 if n // MOTORS % 2 else 50.0))
        content["time_ms"] = base + n
        sent[base + n] = time.perf_counter()
        sender.send(publish(f"{said}/motor{motor}/data", json.dumps(content).encode(), n))
    time.sleep(1.0)
    listener.close()
    sender.close()
    return times


def quantiles(times: dict[str, list[float]]) -> dict[str, float]:
    found = {}
    for name, taken in times.items():
        taken = sorted(taken)
        found[f"{name}_p50_ms"] = taken[len(taken) // 2] * 1e3
        found[f"{name}_p99_ms"] = taken[int(len(taken) * 0.99)] * 1e3
    return found


def read_away(client: RawClient) -> None:
    with contextlib.suppress(OSError):
        for _packet in client.packets():
            pass
