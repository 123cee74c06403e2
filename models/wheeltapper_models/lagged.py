"""Training rows with their past beside them, filled and standardised by the rules that the model follows when it serves."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wheeltapper_models.conditions import Condition
from wheeltapper_models.data import Table, forward_fill

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Rows(NamedTuple):
    """
    Training rows, standardised and filled, with their past beside them.

    ``features`` is [now, 1 row ago, …], shape (T, (lags + 1) · S); ``heard`` says where a sensor's residual counts, shape
    (T, S); ``normal`` where a row may be learnt from, shape (T,).
    """

    features: Doubles
    heard: Mask
    normal: Mask
    labelled: Mask


def usable_rows(table: Table, off: Sequence[tuple[int, Condition]]) -> Mask:
    """Rows that are neither off nor labelled abnormal; off-times are judged by the latest value."""
    usable = np.ones(len(table), dtype=bool) if table.labelled is None else ~table.labelled
    for place, condition in off:
        usable &= ~condition.holds(forward_fill(table.values[:, place : place + 1])[:, 0])
    return usable


def standard(tables: Sequence[Table], usable: Sequence[Mask]) -> tuple[Doubles, Doubles]:
    """Mean and standard deviation of each sensor over usable rows; 0 and 1 where there are none."""
    values = np.concatenate([table.values[mask] for table, mask in zip(tables, usable, strict=True)])
    present = ~np.isnan(values)
    number = np.maximum(present.sum(axis=0), 1)
    centre = np.where(present, values, 0.0).sum(axis=0) / number
    variance = np.where(present, (values - centre) ** 2, 0.0).sum(axis=0) / number
    return short(centre), short(np.where(variance > 0, np.sqrt(variance), 1.0))


def short(values: Doubles) -> Doubles:
    """As float32 holds them: what differs between machines' arithmetic in the last digits gives the same file."""
    return values.astype(np.float32).astype(np.float64)


def lagged_rows(tables: Sequence[Table], usable: Sequence[Mask], centre: Doubles, spread: Doubles, lags: int) -> Rows:
    """Rows with their past, by the rules that the model follows when it serves."""
    parts = [_stretch(table, mask, centre, spread, lags) for table, mask in zip(tables, usable, strict=True)]
    return Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _stretch(table: Table, usable: Mask, centre: Doubles, spread: Doubles, lags: int) -> Rows:
    seen = ~np.isnan(table.values)
    filled = forward_fill((table.values - centre) / spread, start=0.0)
    rows = len(filled)
    past = [np.concatenate([np.zeros((min(lag, rows), filled.shape[1])), filled])[:rows] for lag in range(1, lags + 1)]
    spoken = np.cumsum(seen, axis=0)
    near = np.ones(rows, dtype=bool)
    for lag in range(lags + 1):  # a row is learnt from where it and its past are usable
        near[lag:] &= usable[: rows - lag]
    near[: min(lags, rows)] = False
    labelled = np.zeros(rows, dtype=bool) if table.labelled is None else table.labelled
    return Rows(np.concatenate([filled, *past], axis=1), seen & (spoken > lags), near, labelled)
