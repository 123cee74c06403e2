"""
Makes probabilities of a classifier's margins, and says how good probabilities are.

Source: Platt, "Probabilistic outputs for support vector machines", 1999; softened targets and line search as in Lin, Lin and
Weng, 2007.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Platt(NamedTuple):
    """probability = 1 ÷ (1 + exp(-(slope · margin + offset)))."""

    slope: float
    offset: float

    def probability(self, margin: Floats) -> Floats:
        """Shape of ``margin``, in (0, 1)."""
        return sigmoid(self.slope * margin + self.offset)


def sigmoid(margin: Floats) -> Floats:
    """The logistic function, without overflow."""
    result: Floats = 0.5 * (1.0 + np.tanh(0.5 * margin))
    return result


def fit_platt(margin: Floats, event: Mask, *, turns: int = 50) -> Platt:
    """
    The calibration that makes events most likely, by Newton's method on slightly softened targets.

    Args:
        margin: of rows that the classifier was not trained on, shape (n,).
        event: what happened, shape (n,), both kinds present.
        turns: iterations at most.

    >>> rng = np.random.default_rng(0)
    >>> margin = rng.normal(size=20_000)
    >>> event = rng.random(20_000) < sigmoid(2.0 * margin - 1.0)
    >>> slope, offset = fit_platt(margin, event)
    >>> 1.9 < slope < 2.1 and -1.1 < offset < -0.9
    True
    """
    yes = int(event.sum())
    no = len(event) - yes
    target = np.where(event, (yes + 1.0) / (yes + 2.0), 1.0 / (no + 2.0))
    values = np.stack([margin, np.ones_like(margin)], axis=1)
    weights = np.array([0.0, np.log((yes + 1.0) / (no + 1.0))])
    cost = _log_loss(values @ weights, target)
    for _ in range(turns):
        probability = sigmoid(values @ weights)
        slope = values.T @ (probability - target)
        curvature = (values * (probability * (1.0 - probability))[:, None]).T @ values + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        size = 1.0
        while size > 1e-6 and _log_loss(values @ (weights - size * step), target) > cost:
            size /= 2.0
        weights = weights - size * step
        before, cost = cost, _log_loss(values @ weights, target)
        if before - cost < 1e-9 * len(target):
            break
    return Platt(float(weights[0]), float(weights[1]))


def log_loss(margin: Floats, event: Mask) -> float:
    """The mean logarithmic loss of the probabilities that margins stand for."""
    return _log_loss(margin, event.astype(np.float64)) / len(margin)


def brier_score(probability: Floats, event: Mask) -> float:
    """The mean squared error of probabilities."""
    return float(np.mean((probability - event) ** 2))


def calibration_error(probability: Floats, event: Mask, bins: int = 10) -> float:
    """
    The expected calibration error: by how much the share of events misses the probability, over bins of equal width.

    >>> calibration_error(np.full(10, 0.3), np.arange(10) < 4)
    0.1
    """
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    miss = np.bincount(place, weights=probability - event, minlength=bins)
    return round(float(np.abs(miss).sum() / count.sum()), 9)


def _log_loss(margin: Floats, target: Floats) -> float:
    return float(np.sum(np.logaddexp(0.0, margin) - target * margin))
