"""Which columns and rows of a table can be learnt from."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wheeltapper.delimited import MISSING
from wheeltapper.errors import DataError
from wheeltapper_models.data import Table
from wheeltapper_models.grades import is_constant

Floats = NDArray[np.float64]


def varying_columns(tables: Sequence[Table], leave_out: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """
    The columns of numbers that all tables share and that vary.

    Returns:
        Their names, and a note for each that was left out.

    Raises:
        DataError: there is none.
    """
    first = tables[0]
    shared = [name for name in first.names if all(name in table.names for table in tables) and name not in leave_out]
    notes = [f"{name}: text, not used" for name in first.text if name not in leave_out]
    names = []
    for name in shared:
        column = np.concatenate([table.column(name) for table in tables])
        if is_constant(column):
            notes.append(f"{name}: {'has no values' if np.isnan(column).all() else 'never varies'}, not used")
        else:
            names.append(name)
    if not names:
        raise DataError(f"{first.source}: no column of numbers varies; {'; '.join(notes) or 'there is none'}")
    return names, notes


def categories_of(tables: Sequence[Table], name: str) -> list[str]:
    """The different cells of a text column, in order, without those that stand for a missing value."""
    cells = {cell.strip() for table in tables for cell in table.text.get(name, [])}
    return sorted(cell for cell in cells if cell.lower() not in MISSING)


def stretches_of(tables: Sequence[Table], names: Sequence[str]) -> list[Floats]:
    """The rows of each table, shape (rows, S), cut where rows labelled abnormal were taken out."""
    found: list[Floats] = []
    for table in tables:
        values = table.select(names).values
        if table.labelled is None or not table.labelled.any():
            found.append(values)
            continue
        edges = np.flatnonzero(np.diff(table.labelled.astype(np.int8), prepend=1, append=1))
        found += [values[start:stop] for start, stop in zip(edges[::2], edges[1::2], strict=True)]
    return [rows for rows in found if len(rows)]
