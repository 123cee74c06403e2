"""
Rows at a model's pace from the rows of a table: what ``window.Window`` does to a stream, by the same ``pace.Beat``.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wheeltapper.delimited import MISSING
from wheeltapper.errors import DataError
from wheeltapper_models.data import Floats, Table, forward_fill
from wheeltapper_models.pace import BITS, Beat, Pace
from wheeltapper_models.times import iso_of

Ints = NDArray[np.int64]
NOWHERE = -1


class Laid(NamedTuple):
    """
    Which readings make which rows.

    Args:
        row_of: each reading's row, ``NOWHERE`` where it is in none.
        places: the reading that completed each row, ``NOWHERE`` for rows of silent periods.
        starts: the rows that begin a new window.
        slow: readings of a machine that was too slow for the pace.
    """

    row_of: Ints
    places: Ints
    starts: list[int]
    slow: int

    def stretches(self) -> list[Ints]:
        """The rows of each window, in order."""
        rows = np.arange(len(self.places), dtype=np.int64)
        return [stretch for stretch in np.split(rows, self.starts) if len(stretch)]


def lay(times_ms: Ints, present: NDArray[np.bool_], pace: Pace) -> Laid:
    """
    Lay one machine's readings into rows.

    Args:
        times_ms: shape (T,).
        present: which sensors have a value, shape (T, S).
    """
    shared = np.stack([present[:, bit::BITS].any(axis=1) for bit in range(max(1, min(BITS, present.shape[1])))], axis=1)
    spoke = [int.from_bytes(bits.tobytes(), "big") for bits in np.packbits(shared, axis=1)]
    row_of = np.full(len(times_ms), NOWHERE, dtype=np.int64)
    places: list[int] = []
    starts: list[int] = []
    waiting: list[int] = []
    slow = 0
    beat = Beat(pace)
    for place, (time_ms, bits) in enumerate(zip(times_ms.tolist(), spoke, strict=True)):
        taken = beat.take(time_ms, bits)
        slow += taken.slow
        if taken.fresh or taken.slow:
            waiting.clear()
        if taken.fresh:
            starts.append(len(places))
        if taken.silent and pace.mean:
            row_of[waiting] = len(places)
            waiting.clear()
            places += [NOWHERE] * taken.silent
        if not taken.late and not taken.slow:
            waiting.append(place)
        if taken.row:
            row_of[waiting] = len(places)
            waiting.clear()
            places.append(place)
    if pace.mean and waiting:  # as if the file's end completed it
        row_of[waiting] = len(places)
        places.append(waiting[-1])
    return Laid(row_of, np.array(places, dtype=np.int64), starts, slow)


def gather(values: Floats, laid: Laid, pace: Pace, *, as_last: NDArray[np.bool_]) -> Floats:
    """
    The rows' values, shape (rows, S).

    Args:
        values: of the readings, shape (T, S), NaN where missing.
        as_last: columns of which there is no mean, shape (S,).
    """
    rows = np.full((len(laid.places), values.shape[1]), np.nan)
    for column in range(values.shape[1]):
        known = (laid.row_of >= 0) & ~np.isnan(values[:, column])
        row, cells = laid.row_of[known], values[known, column]
        if as_last[column] or not pace.mean:
            rows[row, column] = cells  # of several the last
            continue
        number = np.bincount(row, minlength=len(rows))
        total = np.bincount(row, cells, minlength=len(rows))
        rows[:, column] = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    if pace.mean:
        for stretch in laid.stretches():
            rows[stretch] = forward_fill(rows[stretch])
    return rows


def resample(table: Table, pace: Pace) -> list[Table]:
    """
    The windows of a table, one row per period, at regular times.

    Args:
        table: rows in order of time.

    Raises:
        DataError: there are no times.
    """
    if table.time_ms is None:
        raise DataError(f"{table.source}: has no time column, so it cannot be resampled; name it: --time-column")
    texts = [[cell.strip().lower() not in MISSING for cell in cells] for cells in table.text.values()]
    spoken = np.array(texts, dtype=bool).reshape(-1, len(table)).T
    laid = lay(table.time_ms, np.concatenate([~np.isnan(table.values), spoken], axis=1), pace)
    said = np.where(spoken, np.arange(len(table))[:, None], np.nan)  # text by the place where it stands
    columns = np.concatenate([table.values, said], axis=1)
    rows = gather(columns, laid, pace, as_last=np.arange(columns.shape[1]) >= len(table.names))
    labelled = None
    if table.labelled is not None:
        known = laid.row_of >= 0
        labelled = np.bincount(laid.row_of[known], table.labelled[known], len(rows)) > 0
    return [_window(table, table.time_ms, stretch, laid, rows, labelled, pace) for stretch in laid.stretches()]


def _window(
    table: Table,
    times_ms: Ints,
    stretch: Ints,
    laid: Laid,
    rows: Floats,
    labelled: NDArray[np.bool_] | None,
    pace: Pace,
) -> Table:
    width = len(table.names)
    first_ms = int(times_ms[laid.places[stretch[0]]])
    times = first_ms + np.arange(len(stretch), dtype=np.int64) * pace.period_ms
    places = rows[stretch, width:]
    text = {
        name: ["" if np.isnan(place) else cells[int(place)] for place in places[:, column]]
        for column, (name, cells) in enumerate(table.text.items())
    }
    return replace(
        table,
        values=rows[stretch, :width],
        text=text,
        time_ms=times,
        time_text=[iso_of(int(time)) for time in times],
        labelled=None if labelled is None else labelled[stretch],
        first_row=0,
    )
