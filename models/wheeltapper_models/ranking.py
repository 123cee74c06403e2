"""How well scores rank abnormal rows above normal ones, whatever the limit."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def area_under_curve(abnormal: Mask, score: NDArray[np.floating[Any]]) -> float | None:
    """
    The chance that an abnormal row scores above a normal one; None where either is missing.

    >>> area_under_curve(np.array([False, True]), np.array([0.1, 0.9]))
    1.0
    """
    positive, negative = int(abnormal.sum()), int((~abnormal).sum())
    if not positive or not negative:
        return None
    _, rank, count = np.unique(score, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count - 1) / 2
    total = float(middle[rank][abnormal].sum())
    return (total - positive * (positive + 1) / 2) / (positive * negative)


def average_precision(abnormal: Mask, score: NDArray[np.floating[Any]]) -> float | None:
    """The mean precision at each abnormal row, going down the scores; None without abnormal rows."""
    if not abnormal.any():
        return None
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(abnormal[order])
    last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)  # equal scores are one step
    recall = hits[last] / hits[-1]
    precision = hits[last] / (last + 1)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))
