"""
Throws odd requests and, through mosquitto, odd messages at a cloud companion, and sees that it never answers 500, never
hangs and restarts with what it held.

    python benchmarks/cloud_fuzz.py --requests 100000 --messages 100000 --seed 1
"""

import argparse
import contextlib
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.companion import Served, serving
from tests.fuzzing import RULES, throw, throw_at_rules
from tests.mosquitto import Mosquitto
from wheeltapper.transport.settings import BrokerSettings, open_transport
from wheeltapper_cloud.settings import CloudSettings, LimitSettings

Found = dict[str, Any]
Held = dict[str, list[str]]


def run(folder: Path, requests: int, messages: int, seed: int) -> tuple[Found, Held, Held]:
    """What was answered, and what the companion held before and after a restart."""
    with contextlib.closing(Mosquitto(folder)) as broker:
        settings = CloudSettings(limits=LimitSettings(detector_models=0), rules=RULES)
        transport = open_transport(BrokerSettings(url=f"mqtt://127.0.0.1:{broker.port}", client="bulk"))
        with serving(folder / "data", settings, transport=transport) as cloud:
            began = time.monotonic()
            statuses = throw(cloud.port, requests, seed)
            answered = time.monotonic()
            ingest = cloud.companion._ingest
            assert ingest is not None
            throw_at_rules(broker.port, messages, seed, lambda: ingest.received)
            taken = time.monotonic()
            held = _held(cloud)
        with serving(folder / "data", CloudSettings(limits=LimitSettings(detector_models=0))) as cloud:
            again = _held(cloud)
    found = {
        "requests": requests,
        "seed": seed,
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "requests_per_s": round(requests / (answered - began)),
        "messages": messages,
        "messages_malformed": ingest.malformed,
        "messages_per_s": round(messages / (taken - answered)),
        "held": {name: len(items) for name, items in held.items()},
        "same_after_restart": again == held,
    }
    return found, held, again


def main() -> int:
    """Run and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # a line for each message that is dropped would be all there is to see
    with tempfile.TemporaryDirectory() as folder:
        found, held, again = run(Path(folder), options.requests, options.messages, options.seed)
    print(json.dumps(found))
    names = sorted([*held["detector models"], *held["alarm models"]])
    agree = names == sorted(name.split()[0] for name in held["in force"])
    return 0 if again == held and agree else 1


def _held(cloud: Served) -> Held:
    """What the account and the judge hold."""
    inputs = cloud.call("GET", "/inputs")[1]["inputSummaries"]
    models = cloud.call("GET", "/detector-models")[1]["detectorModelSummaries"]
    alarms = cloud.call("GET", "/alarm-models")[1]["alarmModelSummaries"]
    in_force = [f"{held.name} {held.version}" for held in cloud.companion.judge.deployments()]
    return {
        "inputs": [one["inputName"] for one in inputs],
        "detector models": [one["detectorModelName"] for one in models],
        "alarm models": [one["alarmModelName"] for one in alarms],
        "in force": sorted(in_force),
    }


if __name__ == "__main__":
    sys.exit(main())
