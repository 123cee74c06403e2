"""What stands between a machine's rows and a forest's points: scaling, filling gaps, and joining the last rows."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class Shingle:
    """
    The last ``length`` rows of a machine, scaled, oldest first, as one point; a missing value is the one before it.

    All arithmetic is in single precision, as in the exported model.

    Args:
        center: subtracted from each sensor, shape (sensors,), in its unit.
        scale: divides it, shape (sensors,), > 0.
        length: rows in a point.
        seen: rows taken so far, counted up to ``length``.
        window: shape (length × sensors,); zeros, the center, before the first rows.

    >>> shingle = Shingle(np.array([10.0]), np.array([2.0]), length=2)
    >>> shingle.push(np.array([12.0])), shingle.push(np.array([np.nan]))
    (None, array([1., 1.], dtype=float32))
    """

    center: NDArray[np.floating]
    scale: NDArray[np.floating]
    length: int
    seen: int = 0
    window: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, dtype=np.float32))

    def __post_init__(self) -> None:
        self.center = np.asarray(self.center, dtype=np.float32)
        self.scale = np.asarray(self.scale, dtype=np.float32)
        if not self.window.size:
            self.window = np.zeros(self.length * self.sensors, dtype=np.float32)

    @property
    def sensors(self) -> int:
        return len(self.center)

    def push(self, row: NDArray[np.floating]) -> NDArray[np.float32] | None:
        """Take a row, shape (sensors,); the point that ends with it, or None while there are too few rows."""
        scaled = (np.asarray(row, dtype=np.float32) - self.center) / self.scale
        filled = np.where(~np.isfinite(scaled), self.window[-self.sensors :], scaled)
        self.window = np.concatenate((self.window[self.sensors :], filled))
        self.seen = min(self.seen + 1, self.length)
        return self.window if self.seen == self.length else None
