"""One period of a machine's rows in bounded memory: its scores as moments, its values as rows evenly spread over it."""

import math
from array import array
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_ROWS = 1024  # of a period that are kept


class PeriodState(msgspec.Struct, array_like=True, frozen=True):
    """All that a period remembers."""

    start_ms: int
    rows: int
    scores: tuple[int, float, float]
    stride: int
    values: bytes
    blocks: tuple[int, float, float]


class Moments:
    """How many numbers, their mean and their spread, without the numbers."""

    def __init__(self, count: int = 0, mean: float = 0.0, squares: float = 0.0) -> None:
        self.count, self.mean, self.squares = count, mean, squares

    def add(self, value: float) -> None:
        """Take a number in."""
        self.count += 1
        step = value - self.mean
        self.mean += step / self.count
        self.squares += step * (value - self.mean)

    @property
    def sigma(self) -> float:
        """The standard deviation."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0

    def state(self) -> tuple[int, float, float]:
        """All that it remembers."""
        return self.count, self.mean, self.squares


class Period:
    """
    One period: its scores as moments, and every n-th of its rows, n doubling whenever they become too many.

    Args:
        start_ms: its beginning.
        sensors: values in a row.
    """

    def __init__(self, start_ms: int, sensors: int) -> None:
        self.start_ms = start_ms
        self.rows = 0
        self.scores = Moments()
        self.blocks = Moments()
        self._sensors = sensors
        self._stride = 1
        self._values = array("d")

    def add(self, values: Sequence[float]) -> None:
        """Take a row in."""
        if self.rows % self._stride == 0:
            self._values.extend(values)
            if len(self._values) > MOST_ROWS * self._sensors:
                self._values = array("d", self.table()[::2].tobytes())
                self._stride *= 2
        self.rows += 1

    def table(self) -> Floats:
        """The rows that are kept, shape (n, sensors)."""
        return np.array(self._values).reshape(-1, self._sensors) if self._sensors else np.empty((self.rows, 0))

    def cutoff(self, k: float) -> float:
        """The scores' mean + k σ."""
        return self.scores.mean + k * self.scores.sigma

    def state(self) -> PeriodState:
        """All that it remembers."""
        values = self._values.tobytes()
        return PeriodState(self.start_ms, self.rows, self.scores.state(), self._stride, values, self.blocks.state())

    @classmethod
    def restored(cls, state: PeriodState, sensors: int) -> "Period":
        """
        Go on where another one stopped.

        Raises:
            ValueError: its values are not whole rows.
        """
        period = cls(state.start_ms, sensors)
        period.rows, period._stride = state.rows, state.stride
        period.scores, period.blocks = Moments(*state.scores), Moments(*state.blocks)
        period._values = array("d", state.values)
        return period
