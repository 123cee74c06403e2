"""Off-conditions: ``sensor < value`` or ``sensor > value``, by the latest value that was received."""

import re
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltapper.errors import DataError

_CONDITION = re.compile(r"\s*(?P<sensor>.+?)\s*(?P<sign>[<>])\s*(?P<value>[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?)\s*")


class Condition(msgspec.Struct, frozen=True):
    """
    A machine is off while ``sensor`` is below (or above) ``value``.

    >>> parse_condition("Speed < 10")
    Condition(sensor='Speed', below=True, value=10.0)
    """

    sensor: str
    below: bool
    value: float

    def __str__(self) -> str:
        return f"{self.sensor} {'<' if self.below else '>'} {self.value:g}"

    def holds(self, values: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
        """Where it holds; never where a value is missing."""
        return values < self.value if self.below else values > self.value


def parse_condition(text: str) -> Condition:
    """
    Read a condition.

    Raises:
        DataError: it is neither ``sensor < value`` nor ``sensor > value``.
    """
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise DataError(f"off-condition {text!r}: write it as 'sensor < value' or 'sensor > value'")
    return Condition(match["sensor"], match["sign"] == "<", float(match["value"]))
