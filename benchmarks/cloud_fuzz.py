"""
Throws odd requests at a cloud companion and sees that it never answers 500, never hangs and restarts with what it held.

    python benchmarks/cloud_fuzz.py --requests 100000 --seed 1
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.companion import Served, serving
from tests.fuzzing import throw
from wheeltapper_cloud.settings import CloudSettings, LimitSettings


def main() -> int:
    """Run and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    settings = CloudSettings(limits=LimitSettings(detector_models=0))
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        with serving(Path(folder), settings) as cloud:
            statuses = throw(cloud.port, options.requests, options.seed)
            seconds = time.monotonic() - began
            held = _held(cloud)
        with serving(Path(folder), settings) as cloud:
            again = _held(cloud)
    found = {
        "requests": options.requests,
        "seed": options.seed,
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "requests_per_s": round(options.requests / seconds),
        "held": {name: len(items) for name, items in held.items()},
        "same_after_restart": again == held,
    }
    print(json.dumps(found))
    names = sorted([*held["detector models"], *held["alarm models"]])
    agree = names == sorted(name.split()[0] for name in held["in force"])
    return 0 if again == held and agree else 1


def _held(cloud: Served) -> dict[str, list[str]]:
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
