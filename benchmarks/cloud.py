"""
The cloud companion through mosquitto, QoS 1, durable, with the pump model of AWS's sample, beside the bare broker and peers.

    python benchmarks/cloud.py [--messages 60000] [--detectors 100000] [--only drain,latency,http,restart]

All figures of one run come from one machine at one time; compare only those.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cloud_http import measure_http
from benchmarks.cloud_load import drained, quantiles, round_trips
from benchmarks.cloud_peers import ECHOED, echoing, measure_others, measure_peers_latency
from benchmarks.cloud_restart import measure_restart
from benchmarks.cloud_site import SAMPLE, Site


def measure_drain(site: Site, count: int) -> dict[str, float]:
    """Messages a second through the companion, and the processor time that each costs."""
    before, cpu_s = site.accepted(), site.cpu_s()
    rate = drained(site, count, 4 * 10**7, lambda: site.accepted() - before >= count)
    return {"companion": rate, "companion_cpu_us_per_message": (site.cpu_s() - cpu_s) / count * 1e6}


def measure_latency(site: Site, seconds: float = 20.0, rate: int = 1000, rounds: int = 5) -> dict[str, float]:
    """
    Milliseconds from publishing to hearing.

    The state change that a message causes; the same message sent back by a client that does nothing else, which crosses
    the broker twice as that does; the message itself, which crosses it once; and how long a write takes to sync. They take
    turns, so that what else this machine does meets them alike.
    """
    share = seconds / rounds / 2
    times: dict[str, list[float]] = {"delivery": [], "echo": [], "action": [], "disk": []}
    with echoing(site):
        for _ in range(rounds):
            for name, said, heard in (
                ("delivery", "bare", "bare/+/data"),
                ("echo", ECHOED, f"{ECHOED}/back"),
                ("action", "dt", "wt/+/state"),
            ):
                trips = round_trips(site, heard, share, rate, said)
                times[name] += trips[len(trips) // 10 :]
            times["disk"] += _syncs(site.folder / "floor", 500, rate)
    found = quantiles(times)
    for floor in ("echo", "delivery"):
        found[f"action_p50_to_{floor}"] = found["action_p50_ms"] / found[f"{floor}_p50_ms"]
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


def _measure_companion(site: Site, wanted: list[str], messages: int) -> dict[str, float]:
    site.start()
    found: dict[str, float] = {}
    if "drain" in wanted:
        found |= measure_drain(site, messages)
    if "latency" in wanted:
        found |= measure_latency(site)
    if "http" in wanted:
        found |= measure_http(site)
    return {**found, "companion_memory_mb": site.memory_mb()}


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
                found |= _measure_companion(site, wanted, options.messages)
        finally:
            site.close()
        if "restart" in wanted:
            found |= measure_restart(folder / "many", options.detectors)
    print(json.dumps({name: round(value, 3 if value < 100 else 0) for name, value in found.items()}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
