"""Simulated readings as a CSV file: what models are trained on, and what ``--replay`` reads back."""

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper_device.machines import Sample, Simulation


def simulate_to_csv(options: argparse.Namespace) -> None:
    """
    Write ``time``, the machine's sensors and, where asked for, ``fault`` and ``severity``.

    Raises:
        SettingsError: a name, number or time is not valid.
        UnavailableError: the file cannot be written.
    """
    simulation = Simulation(
        options.scenario or "motor",
        options.seed or 0,
        fault=options.fault or "",
        onset_s=options.onset,
        growth_s=options.growth,
        rate_hz=options.rate,
    )
    if not options.duration > 0.0:
        raise SettingsError(f"--duration {options.duration:g}: must be above zero")
    start = _parse_start(options.start)
    rows = max(1, round(options.duration / simulation.period_s))
    with _writing(options.out) as stream:
        write_samples(stream, simulation, rows, start, labels=options.labels)


def write_samples(stream: TextIO, simulation: Simulation, rows: int, start: datetime, *, labels: bool) -> None:
    """Write a header and so many samples; the first is at ``start``."""
    writer = csv.writer(stream, lineterminator="\n")
    sensors = [sensor.name for sensor in simulation.machine.sensors]
    writer.writerow(["time", *sensors, *(("fault", "severity") if labels else ())])
    for _ in range(rows):
        sample = simulation.next()
        when = (start + timedelta(seconds=sample.time_s)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        writer.writerow([when, *(sample.values[name] for name in sensors), *(_labels(simulation, sample, labels))])


def _labels(simulation: Simulation, sample: Sample, labels: bool) -> Sequence[str | float]:
    if not labels:
        return ()
    begun = [name for name in simulation.planned if (simulation.onset_s(name) or 0.0) <= sample.time_s]
    return ("+".join(begun), round(sample.severity, 4))


def _parse_start(text: str) -> datetime:
    try:
        start = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(f"--start {text!r}: not an ISO 8601 time, such as 2026-01-01T00:00:00Z") from error
    return start.astimezone(UTC) if start.tzinfo else start.replace(tzinfo=UTC)


@contextmanager
def _writing(path: Path) -> Iterator[TextIO]:
    if str(path) == "-":
        yield sys.stdout
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as stream:
            yield stream
    except OSError as error:
        raise UnavailableError(f"{path}: cannot be written: {error.strerror}") from error
