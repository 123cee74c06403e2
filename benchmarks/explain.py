"""
Does the anomaly model blame the right sensor? Seeded faults of the simulated machines, judged by the shipped models.

For each of so many runs: scenario, fault and seed in turn; the machine is healthy until its onset. Counted are alarms before
the onset, faults that raised one, the delay, and whether the sensor with the largest share, at the first alarm and over all
anomalous rows, is one that the fault touches. Then the same for single sensors that go wrong (offset, drift, noise, spikes).

    python benchmarks/explain.py --runs 200

Last, a failure model: AI4I's milling machines, taught the first 4,000 rows. Of the failures in the other 3,000 that it
raises, counted is whether the column with the largest share is one by which the data's authors define that cause.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table as RichTable

from wheeltapper_device.machines import Simulation
from wheeltapper_models.session import Session
from wheeltapper_models.shipped import SCENARIOS, shipped_path

ROWS = 900
FIRST_SEED = 10_000
DISTURBED_FROM = 400
DISTURBANCES = ("offset", "drift", "noise", "spikes")

MILLS = Path(__file__).resolve().parents[2] / "shared" / "data" / "ai4i" / "ai4i2020-first-7000.csv"
CAUSES = {
    "TWF": {"Tool wear"},
    "HDF": {"Air temperature", "Process temperature", "Rotational speed"},
    "PWF": {"Torque", "Rotational speed"},
    "OSF": {"Tool wear", "Torque"},
}

Floats = NDArray[np.float64]


class Run(NamedTuple):
    """One machine: its rows, which row is the first sick one, and the sensors that may be blamed."""

    what: str
    rows: Floats
    onset: int
    sensors: frozenset[str]


class Verdict(NamedTuple):
    """What the model said of a run; None where it raised no alarm after the onset."""

    false_rows: int
    delay: int | None
    first_right: bool | None
    mean_right: bool | None


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="seeded runs of simulated faults (default 200)")
    options = parser.parse_args()
    share = {scenario: (options.runs + place) // len(SCENARIOS) for place, scenario in enumerate(SCENARIOS)}
    show("simulated faults", {name: judge(name, list(faults(name, count))) for name, count in share.items()})
    show("single sensors", {name: judge(name, list(disturbances(name))) for name in SCENARIOS})
    if MILLS.exists():
        show_causes()


def show_causes() -> None:
    """One line per cause of the milling machines' failures."""
    from wheeltapper_models import failure
    from wheeltapper_models.data import read_table
    from wheeltapper_models.kinds import Options
    from wheeltapper_models.score import score_table

    table = read_table(MILLS)
    sensors = table.without(["UDI", "Product ID", "RNF", *CAUSES])
    trained = failure.fit([sensors.rows(0, 4_000)], Options(target="Machine failure"))
    found = score_table(Session(trained.card, trained.model), sensors).since(4_000)
    shown = RichTable(title="causes of milling failures", title_justify="left")
    for column in ("cause", "columns", "failures", "raised", "top right"):
        shown.add_column(column, justify="left" if column in ("cause", "columns") else "right")
    for cause, names in CAUSES.items():
        failed = table.column(cause)[found.rows] > 0
        raised = failed & (found.anomaly == 1)
        right = [trained.card.sensors[place] in names for place in found.contributions[raised].argmax(axis=1)]
        shown.add_row(cause, ", ".join(sorted(names)), f"{failed.sum()}", f"{raised.sum()}", f"{np.mean(right):.1%}")
    Console(width=120).print(shown)


def faults(scenario: str, runs: int) -> Iterator[Run]:
    """Runs of the scenario's faults in turn, each with its own seed."""
    for number in range(runs):
        known = Simulation(scenario, 0, fault="none").machine.faults
        fault = known[number % len(known)]
        simulation = Simulation(scenario, FIRST_SEED + number, fault=fault.name)
        onset = simulation.onset_s(fault.name) or 0.0
        rows = samples(simulation)
        yield Run(fault.name, rows, int(np.ceil(onset / simulation.period_s)), frozenset(fault.sensors))


def disturbances(scenario: str) -> Iterator[Run]:
    """Healthy runs with one sensor disturbed by some of its own standard deviations."""
    simulation = Simulation(scenario, FIRST_SEED, fault="none")
    names = [sensor.name for sensor in simulation.machine.sensors]
    healthy = samples(simulation)
    length = ROWS - DISTURBED_FROM
    for what in DISTURBANCES:
        for place, name in enumerate(names):
            rows, spread = healthy.copy(), healthy[:, place].std()
            shape = {
                "offset": np.full(length, 3.0),
                "drift": np.linspace(0.0, 6.0, length),
                "noise": np.random.default_rng(place).normal(0.0, 1.5, length),
                "spikes": 6.0 * (np.arange(length) % 20 == 0),
            }[what]
            rows[DISTURBED_FROM:, place] += spread * shape
            yield Run(what, rows, DISTURBED_FROM, frozenset([name]))


def samples(simulation: Simulation) -> Floats:
    """Rows of a simulation, shape (ROWS, S)."""
    names = [sensor.name for sensor in simulation.machine.sensors]
    return np.array([[sample[name] for name in names] for sample in (simulation.next().values for _ in range(ROWS))])


def judge(scenario: str, runs: list[Run]) -> list[tuple[Run, Verdict]]:
    """Score all runs at once, as machines of one batch."""
    path = shipped_path(scenario)
    assert path is not None
    session = Session.load(path)
    states = session.start(len(runs))
    stacked = np.stack([run.rows for run in runs]).astype(np.float32)
    anomaly, shares = [], []
    for place in range(ROWS):
        scored = session.step(stacked[:, place], states)
        states = scored.states
        anomaly.append(scored.anomaly)
        shares.append(scored.contributions)
    alarms, blame = np.stack(anomaly, axis=1), np.stack(shares, axis=1)
    return [(run, verdict(session.sensors, run, alarms[line], blame[line])) for line, run in enumerate(runs)]


def verdict(names: list[str], run: Run, alarm: NDArray[np.int64], shares: NDArray[np.float32]) -> Verdict:
    """Judge one run."""
    false_rows = int(alarm[: run.onset].sum())
    sick = np.flatnonzero(alarm[run.onset :]) + run.onset
    if not len(sick):
        return Verdict(false_rows, None, None, None)
    first = names[int(shares[sick[0]].argmax())] in run.sensors
    mean = names[int(shares[sick].mean(axis=0).argmax())] in run.sensors
    return Verdict(false_rows, int(sick[0]) - run.onset, first, mean)


def show(title: str, found: dict[str, list[tuple[Run, Verdict]]]) -> None:
    """One line per scenario and fault, and one for all."""
    table = RichTable(title=title, title_justify="left")
    columns = ("scenario", "what", "runs", "alarm before", "found", "median delay s", "top right at first", "top right")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < 2 else "right")
    for scenario, judged in found.items():
        for what in dict.fromkeys(run.what for run, _ in judged):
            table.add_row(scenario, what, *cells([verdict for run, verdict in judged if run.what == what]))
    table.add_section()
    table.add_row("all", "", *cells([verdict for judged in found.values() for _, verdict in judged]))
    Console(width=120).print(table)


def cells(verdicts: list[Verdict]) -> list[str]:
    """A line's figures."""
    heard = [verdict for verdict in verdicts if verdict.delay is not None]
    delays = [verdict.delay for verdict in heard if verdict.delay is not None]
    return [
        str(len(verdicts)),
        str(sum(verdict.false_rows > 0 for verdict in verdicts)),
        f"{len(heard) / len(verdicts):.1%}",
        f"{np.median(delays):.0f}" if delays else "",
        f"{np.mean([verdict.first_right for verdict in heard]):.1%}" if heard else "",
        f"{np.mean([verdict.mean_right for verdict in heard]):.1%}" if heard else "",
    ]


if __name__ == "__main__":
    main()
