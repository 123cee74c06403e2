"""
What one message costs, in one run: decoding it, the engine, both, the interpreter, and two state machine libraries.

The model is the predictive maintenance model of AWS's accelerator (seed 004): BATCH, two timers, five states, keyed; most
messages clear a timer and set a variable. Engine and decoding are timed in turn over batches of 500 messages, as a host
meets them; each figure is processor time, the median of the rounds.

    python benchmarks/detector.py                     # needs: pip install transitions python-statemachine
"""

import argparse
import gc
import json
import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wheeltapper.detector.runtime import Message, Shard

BATCH = 500
MODEL = Path(__file__).resolve().parents[2] / "shared" / "examples" / "detector-models" / "repo-iml-detector-model.json"
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def load_model(path: Path) -> dict[str, Any]:
    """The body of a console export."""
    found = json.loads(path.read_text())["detectorModel"]
    return {**found["detectorModelConfiguration"], "detectorModelDefinition": found["detectorModelDefinition"]}


def make_payloads(keys: int, rounds: int) -> list[bytes]:
    """Healthy pumps, one message per key and round."""
    source = random.Random(4)
    payloads = []
    for _ in range(rounds):
        for key in range(keys):
            sensors = {f"TT{place:02d}": round(source.uniform(60, 90), 2) for place in range(1, 11)}
            flow = {"PT01": round(source.uniform(100, 120), 2), "FT01": round(source.uniform(150, 190), 2)}
            payloads.append(
                json.dumps({"motorType": "Fulton", "motorID": f"motor-{key:05d}", **sensors, **flow}).encode()
            )
    return payloads


def running_shard(model: dict[str, Any], payloads: list[bytes], keys: int, *, interpreted: bool = False) -> Shard:
    """A shard whose pumps all run: two messages each have been given."""
    shard = Shard(interpreted=interpreted)
    shard.load(model)
    for now in (1000.0, 1001.0):
        for payload in payloads[:keys]:
            shard.put(Message("IoTImlPumpData", _decode(payload)), now)
    states = {state.state for state in shard.detectors(model["detectorModelName"])}  # type: ignore[union-attr]
    assert states == {"motor_on"}, states
    return shard


def time_shard(shard: Shard, payloads: list[bytes], now: float) -> tuple[float, float]:
    """Seconds spent decoding and in the engine, batch by batch."""
    put = shard.put
    decoding = running = 0.0
    for start in range(0, len(payloads), BATCH):
        began = time.process_time()
        decoded = [_decode(payload) for payload in payloads[start : start + BATCH]]
        between = time.process_time()
        messages = [Message("IoTImlPumpData", payload) for payload in decoded]
        made = time.process_time()
        for message in messages:
            put(message, now)
        running += time.process_time() - made
        decoding += between - began
    return decoding, running


def time_both(shard: Shard, payloads: list[bytes], now: float) -> float:
    """Seconds for decoding and engine, message by message."""
    put = shard.put
    began = time.process_time()
    for payload in payloads:
        put(Message("IoTImlPumpData", _decode(payload)), now)
    return time.process_time() - began


def time_transitions(payloads: list[dict[str, Any]]) -> float:
    """Seconds per message of ``transitions``."""
    from benchmarks.detector_peers import Pump, transitions_machine

    pumps = {payload["motorID"]: Pump() for payload in payloads}
    transitions_machine(list(pumps.values()))
    return _time_peer(payloads, lambda payload: pumps[payload["motorID"]], lambda pump: pump.message())


def time_statemachine(payloads: list[dict[str, Any]]) -> float:
    """Seconds per message of ``python-statemachine``."""
    from benchmarks.detector_peers import Pump, PumpMachine

    machines = {payload["motorID"]: PumpMachine(Pump()) for payload in payloads}
    return _time_peer(
        payloads,
        lambda payload: machines[payload["motorID"]].model,
        lambda pump: machines[pump.payload["motorID"]].message(),
    )


def _time_peer(payloads: list[dict[str, Any]], find: Callable[[Any], Any], send: Callable[[Any], object]) -> float:
    """The host's part that the engine does itself: find the instance, hand the payload over."""
    times = []
    for number in range(4):
        began = time.process_time()
        for payload in payloads:
            pump = find(payload)
            pump.payload, pump.now = payload, 1000.0 + number
            send(pump)
        times.append((time.process_time() - began) / len(payloads))
    return statistics.median(times[1:])


def memory_per_detector(model: dict[str, Any], count: int) -> float:
    """Bytes that one idle detector keeps, everything included: instance, key, values, timers, heap, dictionary."""
    payloads = make_payloads(count, 1)
    shard = Shard()
    shard.load(model)
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for now in (1000.0, 1001.0):
        for payload in payloads:
            shard.put(Message("IoTImlPumpData", _decode(payload)), now)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / count


def main() -> None:
    """Print every figure of one run."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--detectors", type=int, default=100_000)
    options = parser.parse_args()
    model = load_model(options.model)
    payloads = make_payloads(options.keys, 2)
    shard = running_shard(model, payloads, options.keys)
    rounds = []
    for number in range(options.rounds):
        decoding, running = time_shard(shard, payloads, 1002.0 + number)
        both = time_both(shard, payloads, 1002.5 + number)
        rounds.append((decoding, running, both, running / decoding))
    decoding, running, both, ratio = (statistics.median(column) for column in zip(*rounds, strict=True))
    each = 1e6 / len(payloads)
    interpreted = running_shard(model, payloads, options.keys, interpreted=True)
    plain = time_shard(interpreted, payloads, 1002.0)[1] * each
    decoded = [_decode(payload) for payload in payloads[: options.keys]]
    transitions, machine = time_transitions(decoded) * 1e6, time_statemachine(decoded) * 1e6
    engine = running * each
    print(f"{options.keys} keys, {len(payloads[0])} bytes a message, median of {options.rounds} rounds; µs per message")
    print(f"decode alone           {decoding * each:8.2f}")
    print(f"engine alone           {engine:8.2f}   {ratio:.2f} × decode (wanted: ≤ 1.0)")
    print(f"both, one by one       {both * each:8.2f}")
    print(f"interpreter            {plain:8.2f}   {plain / engine:.1f} × engine")
    print(f"transitions            {transitions:8.2f}   {transitions / engine:.1f} × engine (wanted: ≥ 10)")
    print(f"python-statemachine    {machine:8.2f}   {machine / engine:.1f} × engine (wanted: ≥ 10)")
    size = memory_per_detector(model, options.detectors)
    print(f"memory                 {size:8.0f}   bytes per detector at {options.detectors} (wanted: ≤ 2000)")


if __name__ == "__main__":
    main()
