"""The simulated machines, for people and for programs."""

import json
import sys

import msgspec
from rich.console import Console
from rich.table import Table

from wheeltapper_device.machines import MACHINES, Machine


def print_scenarios(*, as_json: bool) -> None:
    """Every scenario with its sensors (unit, range) and faults (sensors they touch)."""
    if as_json:
        json.dump([_described(machine) for machine in MACHINES.values()], sys.stdout, ensure_ascii=False)
        sys.stdout.write("\n")
        return
    console = Console()
    for machine in MACHINES.values():
        table = Table("fault", "what happens", "sensors touched", title=f"{machine.name}: {machine.explanation}")
        for fault in machine.faults:
            table.add_row(fault.name, fault.explanation, ", ".join(fault.sensors))
        console.print(table)


def _described(machine: type[Machine]) -> dict[str, object]:
    return {
        "scenario": machine.name,
        "explanation": machine.explanation,
        "period_s": machine.period_s,
        "sensors": msgspec.to_builtins(machine.sensors),
        "faults": msgspec.to_builtins(machine.faults),
    }
