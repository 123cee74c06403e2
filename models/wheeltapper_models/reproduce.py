"""
The shipped scenario models, trained again: the simulator's healthy machines of fixed seeds, by the command everybody has.

The simulator is another room, so it is run as its command; one file per seed, each one stretch of rows.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console

from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper_models.card import CARD_FILE, Card, read_card
from wheeltapper_models.data import read_table
from wheeltapper_models.export import write
from wheeltapper_models.kinds import Options, Trained
from wheeltapper_models.score import score_table
from wheeltapper_models.session import Session
from wheeltapper_models.shipped import SCENARIOS, shipped_path
from wheeltapper_models.show import table_of
from wheeltapper_models.train import Request, train

SEEDS = (1001, 1002, 1003, 1004)
SECONDS = 3600
TOLERANCE = 1e-5

UNITS = {
    "motor": {**{f"TT{number:02d}": "°C" for number in range(1, 11)}, "PT01": "bar", "FT01": "m³/h"},
    "robot": {
        f"J{joint}_{name}": unit for joint in range(1, 7) for name, unit in (("temperature", "°C"), ("current", "A"))
    },
    "evaporator": {
        "evaporator_temperature": "°C",
        "supply_air_temperature": "°C",
        "return_air_temperature": "°C",
        "suction_pressure": "bar",
        "air_flow": "m³/h",
        "fan_current": "A",
        "compressor_current": "A",
    },
}


class Reproduction(msgspec.Struct, frozen=True):
    """
    A shipped model beside the one trained here.

    ``identical`` compares bytes; ``equal`` also accepts scores that differ by less than 1e-5, as another processor's
    arithmetic may make them.
    """

    scenario: str
    identical: bool
    equal: bool
    shipped_sha256: str
    trained_sha256: str
    largest_difference: float | None


def reproduce_all(scenarios: Sequence[str], out: Path | None) -> list[Reproduction]:
    """
    Train scenarios' models again and compare.

    Args:
        scenarios: names; empty for all.
        out: where to write what was trained, one folder each; None for nowhere.

    Raises:
        SettingsError: there is no such scenario.
        UnavailableError: the simulator cannot be run.
    """
    if unknown := [name for name in scenarios if name not in SCENARIOS]:
        raise SettingsError(f"{', '.join(unknown)}: no such scenario; there are {', '.join(SCENARIOS)}")
    return [_reproduce(scenario, out) for scenario in scenarios or SCENARIOS]


def train_scenario(scenario: str, folder: Path) -> Trained:
    """Simulate healthy machines of the fixed seeds into ``folder`` and learn from them."""
    files = [_simulate(scenario, seed, folder) for seed in SEEDS]
    options = Options(name=scenario, version="1", units=UNITS[scenario])
    return train(Request(kind="anomaly", data=files, time_column="time", options=options))


def show_reproductions(found: Sequence[Reproduction]) -> None:
    """The comparison, for people."""
    rows = [
        (
            item.scenario,
            "identical" if item.identical else "equal" if item.equal else "DIFFERENT",
            item.trained_sha256[:12],
            "" if item.largest_difference is None else f"{item.largest_difference:.2g}",
        )
        for item in found
    ]
    Console().print(table_of("", ["scenario", "result", "sha256", "largest difference"], rows))


def _reproduce(scenario: str, out: Path | None) -> Reproduction:
    shipped = shipped_path(scenario)
    with tempfile.TemporaryDirectory() as folder:
        trained = train_scenario(scenario, Path(folder))
        found = Reproduction(scenario, False, False, "", trained.card.sha256, None)
        if shipped is not None:
            found = _compare(scenario, shipped, trained, Path(folder) / f"{scenario}-{SEEDS[0]}.csv")
    if out is not None:
        write(trained, out / scenario)
    return found


def _compare(scenario: str, shipped: Path, trained: Trained, data: Path) -> Reproduction:
    card = read_card(shipped / CARD_FILE)
    difference = _difference(Session.load(shipped), trained, data)
    identical = card.sha256 == trained.card.sha256
    close = difference is not None and difference <= TOLERANCE and _same_limit(card, trained.card)
    return Reproduction(scenario, identical, identical or close, card.sha256, trained.card.sha256, difference)


def _difference(shipped: Session, trained: Trained, data: Path) -> float | None:
    """The largest difference of the two models' scores of one healthy machine; None where their inputs differ."""
    if shipped.sensors != trained.card.sensors:
        return None
    table = read_table(data).rows(0, 300)
    ours = score_table(shipped, table).score
    theirs = score_table(Session(trained.card, trained.model), table).score
    return float(np.abs(ours - theirs).max())


def _same_limit(one: Card, other: Card) -> bool:
    return one.limit is not None and other.limit is not None and abs(one.limit - other.limit) <= TOLERANCE


def _simulate(scenario: str, seed: int, folder: Path) -> str:
    file = folder / f"{scenario}-{seed}.csv"
    command = [sys.executable, "-m", "wheeltapper.cli", "device", "simulate"]
    command += ["--scenario", scenario, "--seed", str(seed), "--duration", str(SECONDS)]
    command += ["--fault", "none", "--out", str(file)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        reason = (run.stderr.strip().splitlines() or [f"status {run.returncode}"])[-1]
        raise UnavailableError(f"wheeltapper device simulate: {reason}; is the device room installed?")
    return str(file)
