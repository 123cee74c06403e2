"""
A stream of readings brought to a regular grid: what ``resample.resample`` does to a table, one reading at a time.

A row ends its interval ``(time − period, time]``: the mean of each sensor's values in it, or its last mean where there were
none. A row is given out by the first reading after its interval; a reading that comes later than that is late and left out.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

LONGEST_FILL = 10  # intervals without any reading that are still filled; a longer silence is a gap


class GridRow(NamedTuple):
    """One interval's values, by sensor; a sensor that never spoke is absent."""

    time_ms: int
    values: dict[str, float]


class Window:
    """
    One machine's readings on a grid.

    Args:
        sensors: which values to keep.
        period_ms: the length of an interval.

    >>> window = Window(["flow"], 1000)
    >>> window.add(400, {"flow": 1.0}), window.add(900, {"flow": 3.0})
    ([], [])
    >>> window.add(1500, {"flow": 9.0})
    [GridRow(time_ms=1000, values={'flow': 2.0})]
    """

    def __init__(self, sensors: Sequence[str], period_ms: int) -> None:
        self._sensors = tuple(sensors)
        self._period_ms = period_ms
        self._slot: int | None = None
        self._sums: dict[str, tuple[float, int]] = {}
        self._last: dict[str, float] = {}
        self.late = 0

    def add(self, time_ms: int, values: Mapping[str, Any]) -> list[GridRow]:
        """Take a reading; the rows of the intervals that it closes, oldest first."""
        slot = -(-time_ms // self._period_ms)
        if self._slot is None:
            self._slot = slot
        if slot < self._slot:
            self.late += 1
            return []
        closed = self._close(slot)
        for sensor in self._sensors:
            value = values.get(sensor)
            if isinstance(value, int | float) and math.isfinite(value):
                total, number = self._sums.get(sensor, (0.0, 0))
                self._sums[sensor] = (total + value, number + 1)
        return closed

    def flush(self) -> list[GridRow]:
        """Close the current interval, as at the end of a file; later readings in it are late."""
        return [] if self._slot is None else self._close(self._slot + 1)

    def _close(self, slot: int) -> list[GridRow]:
        """The rows of all intervals before ``slot``, which becomes the current one."""
        if self._slot is None or slot == self._slot:
            return []
        self._last.update({sensor: total / number for sensor, (total, number) in self._sums.items()})
        self._sums.clear()
        silent = slot - self._slot - 1
        filled = silent if silent <= LONGEST_FILL else 0
        rows = [GridRow((self._slot + step) * self._period_ms, dict(self._last)) for step in range(filled + 1)]
        self._slot = slot
        return rows
