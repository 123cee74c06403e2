"""
The whole of Wheeltapper on simulated faults: does the alarm come, not before the fault, and does it name the right sensor?

    .venv/bin/python benchmarks/scenarios.py --seeds 10

runs ``wheeltapper up --json`` for each scenario and seed, each with its own processes and data, and prints a table and the
totals that the README quotes.
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

SCENARIOS = ("motor", "robot", "evaporator")


class Verdict(NamedTuple):
    """What one run showed; times are machine seconds since the fault."""

    scenario: str
    seed: int
    fault: str
    early_alarms: int
    alarms: int
    delay_s: float | None
    top_sensor: str
    right: bool

    @property
    def good(self) -> bool:
        """An alarm after the fault began, none before, and a top contribution that the fault touches."""
        return self.alarms > 0 and self.early_alarms == 0 and self.right


def judge(scenario: str, seed: int, events: list[dict[str, Any]], speed: float) -> Verdict:
    """Read the events of one run."""
    faults = [event for event in events if event.get("process") == "machine"]
    alarms = [event for event in events if event["kind"] == "alarm"]
    if not faults:
        return Verdict(scenario, seed, "none seen", len(alarms), 0, None, "", False)
    fault = faults[0]
    early = [alarm for alarm in alarms if alarm["reading_time_ms"] < fault["time_ms"]]
    late = [alarm for alarm in alarms if alarm["reading_time_ms"] >= fault["time_ms"]]
    if not late:
        return Verdict(scenario, seed, fault["fault"], len(early), 0, None, "", False)
    top = max(late[0]["contributions"], key=lambda entry: entry["share"])["sensor"]
    delay_s = (late[0]["reading_time_ms"] - fault["time_ms"]) / 1000.0 * speed
    return Verdict(scenario, seed, fault["fault"], len(early), len(late), delay_s, top, top in fault["sensors"])


def run(scenario: str, seed: int, duration_s: float, speed: float) -> list[dict[str, Any]]:
    """The events of one ``wheeltapper up``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "wheeltapper.cli", "up", "--json", "--scenario", scenario, "--seed", str(seed)]
        command += ["--duration", str(duration_s), "--speed", str(speed), "--port", str(port)]
        command += ["--data-dir", str(Path(folder) / "run")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: ended with {done.returncode}: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> int:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--scenario", choices=SCENARIOS, action="append")
    parser.add_argument("--duration", type=float, default=60.0)
    parser.add_argument("--speed", type=float, default=12.0, help="machine seconds in a second")
    options = parser.parse_args()
    verdicts = []
    print(
        f"{'scenario':<11} {'seed':>4} {'fault':<26} {'early':>5} {'alarms':>6} {'delay':>7} {'top sensor':<22} verdict"
    )
    for scenario in options.scenario or SCENARIOS:
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            verdict = judge(scenario, seed, run(scenario, seed, options.duration, options.speed), options.speed)
            verdicts.append(verdict)
            delay = "–" if verdict.delay_s is None else f"{verdict.delay_s:.0f} s"
            print(
                f"{scenario:<11} {seed:>4} {verdict.fault:<26} {verdict.early_alarms:>5} {verdict.alarms:>6} {delay:>7} "
                f"{verdict.top_sensor:<22} {'good' if verdict.good else 'BAD'}",
                flush=True,
            )
    for scenario in options.scenario or SCENARIOS:
        mine = [verdict for verdict in verdicts if verdict.scenario == scenario]
        good = sum(verdict.good for verdict in mine)
        print(f"{scenario}: {good} of {len(mine)} runs: alarm after the fault, none before, top sensor touched by it")
    return 0 if all(verdict.good for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
