"""The device's commands: run, simulate, scenarios, health."""

import argparse
from pathlib import Path

from wheeltapper.cli import Commands


def register(commands: Commands) -> None:
    """Add this room's commands."""
    group = commands.group("device", "measure, keep, send")
    _add_simulate(group)
    _add_scenarios(group)


def _add_simulate(group: Commands) -> None:
    parser = group.add(
        "simulate",
        _simulate,
        help="write a simulated machine's readings to a CSV file, in virtual time",
        example="wheeltapper device simulate --scenario motor --seed 7 --duration 900 --fault none --out healthy.csv\n"
        "wheeltapper device simulate --scenario robot --fault wear --onset 300 --duration 900 --labels --out worn.csv",
    )
    add_simulation_arguments(parser)
    parser.add_argument("--duration", type=float, default=900.0, metavar="S", help="machine seconds (default 900)")
    parser.add_argument(
        "--start", default="2026-01-01T00:00:00Z", metavar="ISO", help="time of the first row (default 2026-01-01)"
    )
    parser.add_argument("--labels", action="store_true", help="add the columns fault and severity")
    parser.add_argument(
        "--out", type=Path, default=Path("-"), metavar="FILE", help="CSV file (default standard output)"
    )


def add_simulation_arguments(parser: argparse.ArgumentParser) -> None:
    """What chooses a simulated machine; None where the settings file may speak."""
    parser.add_argument("--scenario", metavar="NAME", help="motor, robot, evaporator or air-quality")
    parser.add_argument("--seed", type=int, metavar="N", help="decides noise, duty cycle, fault and onset (default 0)")
    parser.add_argument("--fault", metavar="NAME", help="a fault's name, or none (default: the seed chooses)")
    parser.add_argument("--onset", type=float, metavar="S", help="machine seconds until the fault begins")
    parser.add_argument("--growth", type=float, metavar="S", help="machine seconds from there to its full effect")
    parser.add_argument(
        "--rate", type=float, metavar="HZ", help="readings per machine second (default 1; air-quality 1/3600)"
    )


def _add_scenarios(group: Commands) -> None:
    parser = group.add(
        "scenarios",
        _scenarios,
        help="list the simulated machines, their sensors and their faults",
        example="wheeltapper device scenarios\nwheeltapper device scenarios --json",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _simulate(options: argparse.Namespace) -> int:
    from wheeltapper_device.recording import simulate_to_csv

    simulate_to_csv(options)
    return 0


def _scenarios(options: argparse.Namespace) -> int:
    from wheeltapper_device.listing import print_scenarios

    print_scenarios(as_json=options.json)
    return 0
