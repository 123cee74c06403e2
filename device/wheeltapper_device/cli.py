"""The device's commands: run, simulate, scenarios."""

import argparse
from pathlib import Path

from wheeltapper.cli import Commands


def register(commands: Commands) -> None:
    """Add this room's commands."""
    group = commands.group("device", "measure, keep, send")
    _add_run(group)
    _add_simulate(group)
    _add_scenarios(group)


def _add_run(group: Commands) -> None:
    parser = group.add(
        "run",
        _run,
        help="run the agent: simulate or replay a machine, keep its readings, send them",
        example="wheeltapper device run --config device/device.example.toml\n"
        "wheeltapper device run --scenario motor --thing motor-1 --time-scale 15 --broker mqtt://127.0.0.1:1883\n"
        "wheeltapper device run --replay valve.csv --rows 400: --ignore anomaly,changepoint --speed 20 --exit",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, TOML; see device/device.example.toml")
    parser.add_argument("--thing", metavar="NAME", help="the name that readings carry (default machine-1)")
    parser.add_argument("--broker", metavar="URL", help="mqtt://host:port or mqtts://host:port")
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="outbox and progress (default wheeltapper-data/device)"
    )
    add_simulation_arguments(parser)
    parser.add_argument(
        "--time-scale", type=float, metavar="X", help="machine seconds that pass in a second (default 1)"
    )
    replay = parser.add_argument_group("replay of a recorded file")
    replay.add_argument("--replay", type=Path, metavar="FILE", help="send this file's rows instead of a simulation")
    replay.add_argument("--speed", type=float, metavar="X", help="times faster than recorded (default: picked)")
    replay.add_argument("--rows", metavar="A:B", help="rows to send, from 0, B left out; 400: is from 400 to the end")
    replay.add_argument("--ignore", type=_names, metavar="COLS", help="columns not to send, such as labels, by comma")
    replay.add_argument("--delimiter", metavar="CHAR", help="between cells; or space, tab (default: detected)")
    replay.add_argument("--time-column", metavar="NAME", help="the column of times, or none (default: detected)")
    replay.add_argument(
        "--time-format", metavar="FORMAT", help="how times are written, for strptime (default: detected)"
    )
    replay.add_argument("--stamps", choices=("recorded", "now"), help="times that readings carry (default recorded)")
    replay.add_argument("--loop", action="store_true", default=None, help="begin again at the end")
    replay.add_argument("--exit", action="store_true", help="end when the last row is sent and acknowledged")


def _names(text: str) -> list[str]:
    return [name for name in (part.strip() for part in text.split(",")) if name]


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


def _run(options: argparse.Namespace) -> int:
    from wheeltapper_device.run import run

    return run(options)
