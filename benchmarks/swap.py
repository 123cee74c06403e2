"""
Swaps a gateway's model a hundred times under load: nothing unscored, nothing scored twice, no pause, no memory kept.

    python -m benchmarks.swap [--swaps 100] [--rate 500] [--things 50] [--folder DIR]

The gateway runs as it does in production (threads, outbox, watcher); only the broker is in memory, and the data folder
should be too (--folder, /dev/shm where there is one), since a disk that others keep busy stalls any commit for longer than
a swap takes. Prints the figures, and the same without any swap, for comparison; a gap in the process's CPU time is what
remains where other processes keep the machine busy.
"""

import argparse
import gc
import itertools
import json
import tempfile
import threading
import time
from array import array
from collections.abc import Sequence
from pathlib import Path

from tests.components.memory_gateway import memory_links
from tests.components.small_models import write_small_model
from wheeltapper.clock import SystemClock
from wheeltapper.messages import Reading, encode
from wheeltapper.transport import Delivery
from wheeltapper.transport.memory import MemoryBroker
from wheeltapper_components.inference import Inference
from wheeltapper_components.settings import GatewaySettings, ModelSettings, OrderSettings, WatchSettings
from wheeltapper_components.threads import hand_over_quickly

SENSORS = [f"TT{number:02d}" for number in range(1, 11)] + ["PT01", "FT01"]


def resident_bytes() -> int:
    """Memory of this process."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


class Run:
    """A gateway under a steady load."""

    def __init__(self, folder: Path, rate: int, things: int) -> None:
        self.folder = folder
        self.rate = rate
        self.things = things
        self.models = folder / "models"
        write_small_model(self.models / "1.0.0", "1.0.0", sensors=SENSORS)
        self.settings = GatewaySettings(
            data_dir=folder / "data",
            models=[ModelSettings(things=["*"], folder=self.models)],
            watch=WatchSettings(period_s=0.05),
            order=OrderSettings(remember=2_000),
        )
        clock = SystemClock()
        self.broker = MemoryBroker()
        self.device, gateway, self.ear = (self.broker.transport() for _ in range(3))
        self.sent_at = array("d")
        self.heard_at = array("d")
        self.heard_cpu = array("d")
        self.heard = array("l")
        self.ear.subscribe("wt/+/prediction", self._hear)
        self.links = memory_links(self.settings, clock, gateway, MemoryBroker().transport(), folder)
        self.inference = Inference(self.settings, self.links, clock)
        self.inference.open()
        for transport in (self.device, gateway, self.ear):
            transport.start()
        for link in self.links.all:
            link.sender.start()
        self.stop = threading.Event()
        self._pump = threading.Thread(target=self._send, daemon=True)

    def start(self) -> None:
        """Begin to score and to send."""
        self.inference.start()
        threading.Thread(target=self._carry, daemon=True).start()
        self._pump.start()

    def _hear(self, delivery: Delivery) -> None:
        prediction = json.loads(delivery.payload)
        self.heard_at.append(time.perf_counter())
        self.heard_cpu.append(time.process_time())
        self.heard.append(int(prediction["reading_id"][1:]))
        delivery.acknowledge()

    def _carry(self) -> None:
        while True:
            if not self.broker.deliver():
                time.sleep(0.0005)
            self.broker.published.clear()

    def _send(self) -> None:
        number, start = 0, time.perf_counter()
        while not self.stop.is_set():
            due = start + number / self.rate
            time.sleep(max(0.0, due - time.perf_counter()))
            reading = Reading(f"m{number}", f"motor-{number % self.things}", number * 10, dict.fromkeys(SENSORS, 1.5))
            self.sent_at.append(time.perf_counter())
            self.device.publish(f"wt/{reading.thing}/reading", encode(reading))
            number += 1

    def serving(self) -> str:
        slot = self.inference.shelf.seats[0].slot
        return slot.card.version if slot is not None else ""

    def stage(self, version: str) -> None:
        """Make a version, out of the gateway's sight."""
        write_small_model(self.folder / "staged" / version, version, sensors=SENSORS)

    def swap(self, version: str) -> None:
        """Deploy a staged version and wait until it serves."""
        (self.folder / "staged" / version).rename(self.models / version)
        while self.serving() != version:
            time.sleep(0.005)

    def settle(self) -> None:
        """Stop sending and wait until every reading is scored."""
        self.stop.set()
        self._pump.join()
        deadline = time.perf_counter() + 30
        while len(self.heard) < len(self.sent_at) - self.things and time.perf_counter() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)

    def close(self) -> None:
        self.inference.close()
        self.links.close(0.0)


def main() -> None:
    """Run with swaps, then without, and print what was measured."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--swaps", type=int, default=100)
    options.add_argument("--rate", type=int, default=500)
    options.add_argument("--things", type=int, default=50)
    options.add_argument("--folder", type=Path, default=Path("/dev/shm") if Path("/dev/shm").is_dir() else None)
    given = options.parse_args()
    hand_over_quickly()
    for swaps in (given.swaps, 0):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            measure(Run(Path(folder), given.rate, given.things), swaps)


def measure(run: Run, swaps: int) -> None:
    """Swap, and print the figures."""
    warm_up = [f"1.0.{number}" for number in range(1, 21)] if swaps else []
    versions = [f"1.1.{number}" for number in range(1, swaps + 1)]
    for version in [*warm_up, *versions]:
        run.stage(version)
    run.start()
    time.sleep(8.0)
    for version in warm_up:  # what the first loads keep for good is no leak
        run.swap(version)
    time.sleep(1.0)
    before, start = resident_bytes(), time.perf_counter()
    for version in versions:
        run.swap(version)
        time.sleep(0.1)
    if not swaps:
        time.sleep(20.0)
    elapsed, after = time.perf_counter() - start, resident_bytes()
    run.settle()
    pairs = [
        (stamp, stamp - run.sent_at[number])
        for stamp, number in zip(run.heard_at, run.heard, strict=True)
        if stamp >= start
    ]
    waits = sorted(wait for _, wait in pairs)
    gap = max(second - first for (first, _), (second, _) in itertools.pairwise(pairs))
    work = max(second - first for first, second in itertools.pairwise(run.heard_cpu[-len(pairs) :]))
    scored = set(run.heard)
    unscored = len(run.sent_at) - len(scored) - run.inference.counts.warming
    print(f"swaps {swaps} in {elapsed:.1f} s, readings {len(run.sent_at)}, things {run.things}")
    print(f"  unscored {unscored}, scored twice {len(run.heard) - len(scored)}")
    print(f"  longest gap between predictions {gap * 1e3:.1f} ms, in this process's CPU time {work * 1e3:.1f} ms")
    print(f"  reading to prediction, ms: p50 {at(waits, 0.5)}, p99 {at(waits, 0.99)}, longest {at(waits, 1.0)}")
    print(f"  memory {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB after ({(after / before - 1):+.1%})")
    run.close()


def at(waits: Sequence[float], share: float) -> str:
    """A quantile in milliseconds."""
    return f"{waits[min(int(len(waits) * share), len(waits) - 1)] * 1e3:.1f}"


if __name__ == "__main__":
    main()
