"""Columns that a failure model should not trust, and those worth pairing."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wheeltapper_models.data import Table
from wheeltapper_models.ranking import area_under_curve

FEW_VALUES = 10
FEW_ROWS = 5
NEARLY_ALWAYS = 0.95
TOO_GOOD = 0.995  # an area under the curve that one honest column does not reach


def counters(names: Sequence[str], tables: Sequence[Table]) -> list[str]:
    """The columns that only number the rows: the same step from each row to the next."""
    found = []
    for name in names:
        steps = np.concatenate([np.diff(table.column(name)) for table in tables])
        if len(steps) > 2 and steps[0] != 0 and bool((steps == steps[0]).all()):
            found.append(name)
    return found


def columns_that_decide(names: Sequence[str], rows: NDArray[np.floating], event: NDArray[np.bool_]) -> list[str]:
    """A warning for each column that gives the label away, as one written down after the failure does."""
    warnings = []
    for place, name in enumerate(names):
        column = np.asarray(rows[:, place], dtype=np.float64)
        present = ~np.isnan(column)
        reason = _gives_away(column[present], event[present])
        if reason:
            warnings.append(
                f"WARNING {name}: {reason}; if it is known only after a failure, leave it out: --ignore {name!r}"
            )
    return warnings


def _gives_away(column: NDArray[np.float64], event: NDArray[np.bool_]) -> str:
    values = np.unique(column)
    if len(values) <= FEW_VALUES:
        for value in values.tolist():
            here = event[column == value]
            if len(here) >= FEW_ROWS and here.mean() >= NEARLY_ALWAYS and event.mean() < 0.5:
                return f"{here.mean():.0%} of the rows where it is {value:g} are failures"
        return ""
    area = area_under_curve(event, column)
    if area is not None and max(area, 1.0 - area) >= TOO_GOOD:
        return "it alone tells failures from the rest"
    return ""


def most_telling(values: NDArray[np.float64], event: NDArray[np.bool_], most: int) -> list[int]:
    """
    The columns worth pairing: all where they are few, else those whose ranks among failures differ most from the rest.

    Args:
        values: shape (n, S), NaN where missing.
        event: shape (n,).
        most: how many.
    """
    count = values.shape[1]
    if count <= most:
        return list(range(count)) if count > 1 else []
    telling = []
    for column in values.T:
        present = ~np.isnan(column)
        middle = np.median(column[present]) if present.any() else 0.0
        signs = [area_under_curve(event[present], part[present]) for part in (column, np.abs(column - middle))]
        telling.append(max((abs(area - 0.5) for area in signs if area is not None), default=0.0))
    return sorted(np.argsort(telling)[::-1][:most].tolist()) if most > 1 else []
