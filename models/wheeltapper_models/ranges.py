"""Runs of rows where something holds."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def ranges_of(mask: NDArray[Any], *, join: int = 0) -> list[tuple[int, int]]:
    """
    The runs of True, as (first, past the last).

    Args:
        mask: shape (rows,).
        join: runs with at most this many rows between them are one.

    >>> ranges_of(np.array([0, 1, 1, 0, 1], dtype=bool)), ranges_of(np.array([0, 1, 1, 0, 1], dtype=bool), join=1)
    ([(1, 3), (4, 5)], [(1, 5)])
    """
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0)).tolist()
    found: list[tuple[int, int]] = []
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if found and start - found[-1][1] <= join:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
    return found
