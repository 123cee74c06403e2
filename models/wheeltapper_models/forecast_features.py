"""
What a forecast is made from: the last rows of all columns, how they have moved, and the calendar of the row to come.

The same features twice: in numpy for training, from many windows at once, and as ONNX nodes for the edge, from the state.
"""

from typing import Any

import msgspec
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from wheeltapper_models.card import HOUR, WEEKDAY, YEARDAY
from wheeltapper_models.export import Graph

Singles = NDArray[np.float32]

LAGS = (1, 2, 3, 6, 12, 23)  # rows before the last that are looked at one by one
SPANS = (3, 6, 12, 24)  # rows over which the last is compared with the mean
HOUR_MS = 3_600_000
_DAY_HOURS, _WEEK_DAYS, _YEAR_DAYS = 24.0, 7.0, 366.0


class Layout(msgspec.Struct, frozen=True):
    """
    Which columns there are and how they become features.

    Args:
        sensors: columns of a row without the clock's, S.
        target: the place of the one to forecast.
        codes: place of a column of categories → the values that are one feature each.
        window: rows looked at.
        calendar: of hour, weekday and yearday those that speak, in that order.
        period_ms: from a row to the next.
    """

    sensors: int
    target: int
    codes: dict[int, list[float]]
    window: int
    calendar: tuple[str, ...] = ()
    period_ms: int = 0

    @property
    def lags(self) -> tuple[int, ...]:
        return tuple(lag for lag in LAGS if lag < self.window)

    @property
    def spans(self) -> tuple[int, ...]:
        return tuple(span for span in SPANS if span <= self.window)

    def next_clock(self, clock: NDArray[np.float64]) -> NDArray[np.float64]:
        """Hour, weekday and yearday one period later, shape (n, 3)."""
        hour, weekday, yearday = clock.T
        total = hour + self.period_ms / HOUR_MS
        days = np.floor(total / _DAY_HOURS)
        yearday = yearday + days
        yearday = np.where(yearday > _YEAR_DAYS, yearday - _YEAR_DAYS, yearday)
        return np.stack([total - days * _DAY_HOURS, (weekday + days) % _WEEK_DAYS, yearday], axis=1)


def expand(layout: Layout, rows: Singles) -> Singles:
    """Rows with a column of 0 and 1 for each category, shape (n, S + categories)."""
    flags = [rows[:, [place]] == np.array(values, dtype=np.float32) for place, values in layout.codes.items()]
    return np.concatenate([rows, *flags], axis=1, dtype=np.float32)


def features(layout: Layout, rows: Singles, clock: NDArray[np.float64]) -> Singles:
    """
    The features after each full window.

    Args:
        layout: of the columns.
        rows: one stretch, filled, shape (n, S), n ≥ window.
        clock: hour, weekday and yearday of these rows, shape (n, 3).

    Returns:
        Shape (n - window + 1, F).
    """
    wide = expand(layout, rows)
    windows = sliding_window_view(wide, layout.window, axis=0)  # (windows, column, row)
    last = windows[:, :, -1]
    parts = [last] + [windows[:, :, -1 - lag] for lag in layout.lags]
    parts += [last - windows[:, :, -span:].mean(axis=2) for span in layout.spans]
    target = windows[:, [layout.target], :]
    parts += [target[:, :, -1] - target[:, :, -1 - lag] for lag in layout.lags]
    parts.append(_calendar_features(layout, layout.next_clock(clock[layout.window - 1 :])))
    return np.concatenate(parts, axis=1, dtype=np.float32)


def _calendar_features(layout: Layout, clock: NDArray[np.float64]) -> Singles:
    parts = []
    for place, name, cycle in ((0, HOUR, _DAY_HOURS), (1, WEEKDAY, _WEEK_DAYS), (2, YEARDAY, _YEAR_DAYS)):
        if name in layout.calendar:
            angle = clock[:, place] * (2.0 * np.pi / cycle)
            parts += [clock[:, place], np.sin(angle), np.cos(angle)]
    return np.stack(parts, axis=1).astype(np.float32) if parts else np.empty((len(clock), 0), dtype=np.float32)


def add_features(graph: Graph, layout: Layout, window: str, clock: dict[str, str]) -> str:
    """
    The same, as nodes.

    Args:
        graph: to add to.
        layout: of the columns.
        window: name of the filled rows, oldest first, shape (N, window, S).
        clock: calendar input → name of its value in the last row, shape (N, 1).

    Returns:
        The name of the features, shape (N, F).
    """
    axis = graph.constant([1], np.int64)
    flags = []
    for place, values in layout.codes.items():
        column = _slice(graph, window, 2, place, place + 1)
        flags.append(graph.add("Cast", graph.add("Equal", column, graph.constant(values)), to=1))
    wide = graph.add("Concat", window, *flags, axis=2) if flags else window

    def row(value: str, lag: int) -> str:
        start = layout.window - 1 - lag
        return str(graph.add("Squeeze", _slice(graph, value, 1, start, start + 1), axis))

    last = row(wide, 0)
    parts = [last] + [row(wide, lag) for lag in layout.lags]
    for span in layout.spans:
        rows = _slice(graph, wide, 1, layout.window - span, layout.window)
        parts.append(graph.add("Sub", last, graph.add("ReduceMean", rows, axes=[1], keepdims=0)))
    target = _slice(graph, window, 2, layout.target, layout.target + 1)
    newest = row(target, 0)
    parts += [graph.add("Sub", newest, row(target, lag)) for lag in layout.lags]
    parts += _add_calendar(graph, layout, clock)
    return str(graph.add("Concat", *parts, axis=1))


def _add_calendar(graph: Graph, layout: Layout, clock: dict[str, str]) -> list[str]:
    if not layout.calendar:
        return []

    def number(value: float) -> str:
        return graph.constant(value)

    total = graph.add("Add", clock[HOUR], number(layout.period_ms / HOUR_MS))
    days = graph.add("Floor", graph.add("Div", total, number(_DAY_HOURS)))
    later: dict[str, Any] = {HOUR: graph.add("Sub", total, graph.add("Mul", days, number(_DAY_HOURS)))}
    if WEEKDAY in layout.calendar:
        later[WEEKDAY] = graph.add("Mod", graph.add("Add", clock[WEEKDAY], days), number(_WEEK_DAYS), fmod=1)
    if YEARDAY in layout.calendar:
        day = graph.add("Add", clock[YEARDAY], days)
        over = graph.add("Greater", day, number(_YEAR_DAYS))
        later[YEARDAY] = graph.add("Where", over, graph.add("Sub", day, number(_YEAR_DAYS)), day)
    parts = []
    for name, cycle in ((HOUR, _DAY_HOURS), (WEEKDAY, _WEEK_DAYS), (YEARDAY, _YEAR_DAYS)):
        if name in layout.calendar:
            angle = graph.add("Mul", later[name], number(2.0 * np.pi / cycle))
            parts += [later[name], graph.add("Sin", angle), graph.add("Cos", angle)]
    return parts


def _slice(graph: Graph, value: str, axis: int, start: int, stop: int) -> str:
    return str(graph.add("Slice", value, *(graph.constant([bound], np.int64) for bound in (start, stop, axis))))
