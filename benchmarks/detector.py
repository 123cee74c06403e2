"""
What one message costs, in one run: decoding it, the engine, both, the interpreter, and two state machine libraries.

The model is the predictive maintenance model of AWS's accelerator (seed 004): BATCH, two timers, six states, keyed; most
messages clear a timer and set a variable. Before anything is timed, both libraries must decide as the engine does on random
messages of every input. Then all take turns, round by round, on the same messages, decoded up front; each figure is
processor time, the least of the rounds, so that a busy machine matters little.

    python benchmarks/detector.py                     # needs: pip install transitions python-statemachine
"""

import argparse
import gc
import json
import random
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.detector_peers import Fleet, statemachine_fleet, transitions_fleet
from wheeltapper.detector.runtime import Message, Shard

INPUT = "IoTImlPumpData"
BATCH = 500
# Messages per round, each of another pump, of what takes many microseconds for one.
SLOW = 2000
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


def check_peers(model: dict[str, Any], fleet: Fleet, steps: int = 2000) -> None:
    """Random messages of all inputs, timers and restarts included: engine and peer must be in the same state after each."""
    chance = random.Random(1)
    shard = Shard()
    shard.load(model)
    sent: Counter[str] = Counter()
    now = 1000.0
    for _ in range(steps):
        now += chance.choice((0.25, 1, 7, 40))
        message = random_message(chance)
        for outcome in shard.put(message, now):
            sent[outcome.key] += len(outcome.actions)
        fleet.put(message, now)
        key = message.payload["motorID"]
        state: Any = shard.export(model["detectorModelName"], key)
        engine = (state.state, state.variables["operation_minutes"], sent[key])
        peer = fleet.pumps[key][0]
        assert (peer.state, peer.operation_minutes, peer.sent) == engine, (message, engine)  # type: ignore[attr-defined]


def random_message(chance: random.Random) -> Message:
    """A message of one of four pumps, that leads to every state in the long run."""
    key, kind = {"motorID": f"motor-{chance.randrange(4)}"}, chance.random()
    if kind < 0.03:
        return Message("IoTImlPumpInference", {**key, "prediction": chance.randrange(2)})
    if kind < 0.06:
        return Message("IoTImlPumpAction", {**key, "service_complete": chance.randrange(2)})
    flow = chance.choice((150, 230.5, 230, 240, 250, 260, 270, 280))
    return Message("IoTImlPumpData", {**key, "TT01": 5 if chance.random() < 0.1 else 70.5, "FT01": flow})


def time_decode(payloads: Sequence[bytes]) -> float:
    """Seconds for decoding every payload."""
    began = time.process_time()
    for payload in payloads:
        _decode(payload)
    return time.process_time() - began


def time_put(put: Callable[[Message, float], object], messages: Sequence[Message], now: float) -> float:
    """Seconds for giving every message to an engine or a fleet."""
    began = time.process_time()
    for message in messages:
        put(message, now)
    return time.process_time() - began


def time_batches(shard: Shard, payloads: Sequence[bytes], now: float) -> float:
    """Seconds in the engine where messages are decoded in batches of 500 on the way."""
    running = 0.0
    for start in range(0, len(payloads), BATCH):
        messages = [Message(INPUT, _decode(payload)) for payload in payloads[start : start + BATCH]]
        running += time_put(shard.put, messages, now)
    return running


def time_both(shard: Shard, payloads: Sequence[bytes], now: float) -> float:
    """Seconds for decoding and engine, message by message."""
    put = shard.put
    began = time.process_time()
    for payload in payloads:
        put(Message(INPUT, _decode(payload)), now)
    return time.process_time() - began


class Contest:
    """
    All that is timed, in turn.

    Args:
        model: the detector model.
        keys: pumps, each with two messages.
        slow: messages for what takes many microseconds each.
    """

    def __init__(self, model: dict[str, Any], keys: int, slow: int) -> None:
        self._payloads = make_payloads(keys, 2)
        self._messages = [Message(INPUT, _decode(payload)) for payload in self._payloads]
        self._few = self._messages[:slow]
        self._shard, self._interpreted = Shard(), Shard(interpreted=True)
        self._transitions, self._statemachine = transitions_fleet(), statemachine_fleet()
        for fleet in (transitions_fleet(), statemachine_fleet()):
            check_peers(model, fleet)
        for shard in (self._shard, self._interpreted):
            shard.load(model)
        for now in (1000.0, 1001.0):
            for put, messages in (
                (self._shard.put, self._messages[:keys]),
                (self._transitions.put, self._messages[:keys]),
                (self._interpreted.put, self._few),
                (self._statemachine.put, self._few),
            ):
                time_put(put, messages, now)
        states = {state.state for state in self._shard.detectors(model["detectorModelName"])}  # type: ignore[union-attr]
        assert states == {"motor_on"}, states
        self.size = len(self._payloads[0])

    def round(self, now: float) -> dict[str, float]:
        """Microseconds per message of everything; ``now`` moves on, not so far that a timer ends."""
        seconds = {
            "decode": time_decode(self._payloads),
            "engine": time_put(self._shard.put, self._messages, now),
            "transitions": time_put(self._transitions.put, self._messages, now),
            "batches": time_batches(self._shard, self._payloads, now),
            "both": time_both(self._shard, self._payloads, now),
        }
        few = {
            "interpreter": time_put(self._interpreted.put, self._few, now),
            "statemachine": time_put(self._statemachine.put, self._few, now),
        }
        return {name: taken / len(self._messages) * 1e6 for name, taken in seconds.items()} | {
            name: taken / len(self._few) * 1e6 for name, taken in few.items()
        }


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
            shard.put(Message(INPUT, _decode(payload)), now)
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
    contest = Contest(model, options.keys, min(options.keys, SLOW))
    rounds = [contest.round(1002.0 + number * 45 / options.rounds) for number in range(options.rounds)]
    least = {name: min(each[name] for each in rounds) for name in rounds[0]}
    decode, engine = least["decode"], least["engine"]
    peers = (least[name] / engine for name in ("transitions", "statemachine"))
    print(f"{options.keys} keys, {contest.size} bytes a message, least of {options.rounds} rounds; µs per message")
    print(f"decode alone           {decode:8.2f}")
    print(f"engine, decoded before {engine:8.2f}   {engine / decode:.2f} × decode (wanted: ≤ 1.0)")
    print(f"engine, batches        {least['batches']:8.2f}   {least['batches'] / decode:.2f} × decode")
    print(f"both, one by one       {least['both']:8.2f}")
    print(f"interpreter            {least['interpreter']:8.2f}   {least['interpreter'] / engine:.1f} × engine")
    print(f"transitions            {least['transitions']:8.2f}   {next(peers):.1f} × engine (wanted: ≥ 10)")
    print(f"python-statemachine    {least['statemachine']:8.2f}   {next(peers):.1f} × engine (wanted: ≥ 10)")
    size = memory_per_detector(model, options.detectors)
    print(f"memory                 {size:8.0f}   bytes per detector at {options.detectors} (wanted: ≤ 2000)")


if __name__ == "__main__":
    main()
