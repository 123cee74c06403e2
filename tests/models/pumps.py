"""A made-up machine for tests of this room: four sensors tied together by one load."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wheeltapper_models import varx
from wheeltapper_models.data import Table
from wheeltapper_models.kinds import Options, Trained

SENSORS = ("load", "current", "heat", "noise")


def pump_values(rows: int, seed: int = 0) -> NDArray[np.float64]:
    """Healthy rows, shape (rows, 4): current follows load, heat follows current slowly, noise is alone."""
    random = np.random.default_rng(seed)
    load = 50 + 10 * np.sin(np.arange(rows) / 15) + random.normal(0, 1, rows)
    current = 0.2 * load + random.normal(0, 0.2, rows)
    heat = np.empty(rows)
    level = 30.0
    for place in range(rows):
        level += 0.05 * (3 * current[place] - level)
        heat[place] = level + random.normal(0, 0.1)
    return np.stack([load, current, heat, random.normal(5, 1, rows)], axis=1)


def pump_table(rows: int = 400, seed: int = 0) -> Table:
    """The same as a table with a time a second."""
    times = 1_767_225_600_000 + 1000 * np.arange(rows, dtype=np.int64)
    return Table("pump.csv", SENSORS, pump_values(rows, seed), time_ms=times, time_column="time", sha256="ab" * 32)


def pump_model(**settings: str) -> Trained:
    """A model of the healthy pump."""
    return varx.fit([pump_table()], Options(name="pump", settings=settings))


def write_csv(path: Path, values: NDArray[np.float64], names: tuple[str, ...] = SENSORS) -> str:
    """Write rows with a time column, and give the path back as text."""
    lines = ["time," + ",".join(names)]
    for place, row in enumerate(values):
        cells = ",".join("" if np.isnan(cell) else f"{cell:.6f}" for cell in row)
        lines.append(f"2026-01-01T00:{place // 60 % 60:02d}:{place % 60:02d}Z,{cells}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)
