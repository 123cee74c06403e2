"""How fit each sensor is for learning: high, medium or low, and why."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wheeltapper_models.card import ModelInput
from wheeltapper_models.data import Table

HIGH, MEDIUM, LOW = "high", "medium", "low"

_OFTEN_MISSING = 0.2
_FEW_VALUES = 3
_FEWEST_PRESENT = 30
_FLOAT32 = float(np.finfo(np.float32).eps)


def is_constant(values: NDArray[np.float64]) -> bool:
    """Whether the values, some possibly NaN, do not differ by more than a float32 can tell."""
    present = values[~np.isnan(values)]
    if not len(present):
        return True
    return bool(np.ptp(present) <= 4 * _FLOAT32 * np.abs(present).max())


def grade_sensors(tables: Sequence[Table], units: dict[str, str]) -> list[ModelInput]:
    """
    The inputs of a model with range, grade and remarks; low are those that cannot be learnt from.

    Args:
        tables: stretches of rows with the same columns.
        units: column → unit.
    """
    values = np.concatenate([table.values for table in tables])
    bad = {name: sum(table.bad_cells.get(name, 0) for table in tables) for name in tables[0].names}
    return [
        _grade(name, values[:, place], units.get(name, ""), bad[name]) for place, name in enumerate(tables[0].names)
    ]


def _grade(name: str, values: NDArray[np.float64], unit: str, bad_cells: int) -> ModelInput:
    present = values[~np.isnan(values)]
    grade, remarks = HIGH, []
    if not len(present):
        return ModelInput(name, unit, grade=LOW, remarks=["no values"])
    missing = 1.0 - len(present) / len(values)
    if missing > _OFTEN_MISSING:
        grade, remarks = MEDIUM, [f"{missing:.0%} missing"]
    if bad_cells:
        grade, remarks = MEDIUM, [*remarks, f"{bad_cells} cells were no numbers"]
    if is_constant(values):
        grade, remarks = LOW, [*remarks, "constant"]
    elif len(present) < _FEWEST_PRESENT:
        grade, remarks = LOW, [*remarks, f"only {len(present)} values"]
    elif len(np.unique(present)) <= _FEW_VALUES:
        grade, remarks = MEDIUM, [*remarks, f"only {len(np.unique(present))} different values: a setting or a state?"]
    elif _is_counter(present):
        grade, remarks = MEDIUM, [*remarks, "only rises or only falls: a counter?"]
    return ModelInput(name, unit, _rounded(present.min()), _rounded(present.max()), grade=grade, remarks=remarks)


def _is_counter(values: NDArray[np.float64]) -> bool:
    steps = np.diff(values)
    return bool(len(steps) > 10 and (np.all(steps >= 0) or np.all(steps <= 0)) and np.mean(steps != 0) > 0.5)


def _rounded(value: Any) -> float:
    return float(f"{float(value):.9g}")
