"""
Rows on a regular grid: the mean of each interval's values, and the last one where an interval has none.

A grid time names the interval that ends there, ``(time − period, time]``, so that a row holds nothing from its future.
``window.Window`` does the same to a stream.
"""

import numpy as np
from numpy.typing import NDArray

from wheeltapper.errors import DataError
from wheeltapper_models.data import Floats, Table, forward_fill
from wheeltapper_models.times import iso_of, read_duration_ms

MOST_ROWS = 20_000_000


def resample(table: Table, rate: str) -> tuple[Table, NDArray[np.int64]]:
    """
    A table at one row per interval, from its first to its last.

    Args:
        table: rows in any order, with times.
        rate: an ISO 8601 duration such as ``PT5M``.

    Returns:
        The table, and for each of its rows the place of the last row of ``table`` up to then.

    Raises:
        DataError: there are no times, or the grid would be absurdly long.
    """
    period = read_duration_ms(rate)
    if table.time_ms is None:
        raise DataError(f"{table.source}: has no time column, so it cannot be resampled to {rate}")
    order = np.argsort(table.time_ms, kind="stable")
    slots = -(-table.time_ms[order] // period)
    rows = int(slots[-1] - slots[0]) + 1
    if rows > MOST_ROWS:
        raise DataError(f"{table.source}: {rows} rows at {rate} are too many; choose a longer rate")
    place = slots - slots[0]
    means = np.stack([_means(table.values[order, column], place, rows) for column in range(len(table.names))], axis=1)
    last = np.maximum.accumulate(_last(place, rows))
    labelled = None if table.labelled is None else np.bincount(place, table.labelled[order], rows) > 0
    times = (np.arange(rows, dtype=np.int64) + int(slots[0])) * period
    resampled = Table(
        source=table.source,
        names=table.names,
        values=forward_fill(means),
        text={name: [cells[order[at]] for at in last] for name, cells in table.text.items()},
        time_ms=times,
        time_text=[iso_of(int(time)) for time in times],
        time_column=table.time_column,
        sha256=table.sha256,
        labelled=labelled,
        bad_cells=table.bad_cells,
    )
    return resampled, order[last]


def _means(values: Floats, place: NDArray[np.int64], rows: int) -> Floats:
    present = ~np.isnan(values)
    number = np.bincount(place[present], minlength=rows)
    total = np.bincount(place[present], values[present], minlength=rows)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _last(place: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """For each slot the last row in it, 0 where it has none."""
    last = np.zeros(rows, dtype=np.int64)
    last[place] = np.arange(len(place))
    return last
