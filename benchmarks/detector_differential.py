"""
The compiled engine against the interpreter over many random models: any difference ends the run.

    python benchmarks/detector_differential.py --steps 1000000
"""

import argparse
import random
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.detector.random_models import Maker
from wheeltapper.detector.runtime import Shard
from wheeltapper.detector.settings import DEFAULTS, STRICT

STEPS_PER_MODEL = 100


def play(seed: int, length: int, seen: Counter[str]) -> None:
    """One random model, both ways; counts what occurred, so that nobody takes an empty run for a proof."""
    maker = Maker(random.Random(seed))
    choice = STRICT if seed % 5 == 0 else DEFAULTS
    choice = msgspec.structs.replace(choice, minimum_timer_s=1)
    model = maker.model()
    compiled, interpreted = Shard(choice), Shard(choice, interpreted=True)
    compiled.load(model)
    interpreted.load(model)
    now = 1000.5
    for number in range(length):
        now += maker.delay()
        message = maker.message(number)
        outcomes = compiled.put(message, now)
        one, two = msgspec.json.encode(list(outcomes)), msgspec.json.encode(list(interpreted.put(message, now)))
        if one != two or compiled.snapshot() != interpreted.snapshot():
            print(msgspec.json.encode(model).decode())
            print(f"seed {seed}, step {number}, {message}:\ncompiled    {one!r}\ninterpreted {two!r}")
            print(f"compiled    {compiled.snapshot()!r}\ninterpreted {interpreted.snapshot()!r}")
            sys.exit("DIFFERENT")
        seen["steps"] += 1
        for outcome in outcomes:
            seen["transitions"] += bool(outcome.event)
            seen["actions"] += len(outcome.actions)
            seen["failures"] += len(outcome.failures)


def main() -> None:
    """Run for as many steps as asked."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    seen: Counter[str] = Counter()
    started = time.perf_counter()
    for seed in range(options.seed, options.seed + -(-options.steps // STEPS_PER_MODEL)):
        play(seed, STEPS_PER_MODEL, seen)
    seconds = time.perf_counter() - started
    print(", ".join(f"{count} {what}" for what, count in seen.items()) + f", no difference; {seconds:.0f} s")


if __name__ == "__main__":
    main()
