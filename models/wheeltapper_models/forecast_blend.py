"""
What turns features into the target's next change: boosted trees for the mean and for the median, a ridge regression, and how
much each of them is believed, persistence (no change) getting the rest.
"""

from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wheeltapper_models.export import Graph
from wheeltapper_models.forecast_features import Singles
from wheeltapper_models.trees import add_trees, boost

Floats = NDArray[np.float64]

ROUNDS = 200
STEP = 0.1  # between the weights that are tried
MARGIN = 0.005  # a blend must better persistence by this share
_ALPHAS = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
_LOSSES = ("l2", "l1")


class Errors(NamedTuple):
    """Root mean square and mean absolute error."""

    rmse: float
    mae: float

    @classmethod
    def of(cls, error: Floats) -> "Errors":
        return cls(float(np.sqrt(np.mean(error**2))), float(np.mean(np.abs(error))))


class Ridge(NamedTuple):
    """change = features · slope + offset."""

    slope: Floats
    offset: float

    def predict(self, features: Singles) -> Floats:
        predicted: Floats = features.astype(np.float64) @ self.slope + self.offset
        return predicted


class Learners(NamedTuple):
    """One of each, and the weights by which they are believed, in [0, 1], summing to at most 1."""

    boosters: tuple[Any, ...]
    ridge: Ridge
    weights: tuple[float, ...]


class Trial(NamedTuple):
    """How a blend did on the held-out last part of the training rows."""

    learners: Learners
    rounds: tuple[int, ...]
    alpha: float
    errors: Errors
    persistence: Errors

    @property
    def beats_persistence(self) -> bool:
        return any(self.learners.weights)


def fit_ridge(features: Singles, change: Floats, alpha: float) -> Ridge:
    """Ridge regression on standardised features; ``alpha`` is in rows."""
    center, scale = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 0.0, scale, 1.0)
    standard = (features - center) / scale
    gram = standard.T @ standard + alpha * np.eye(standard.shape[1])
    slope = np.linalg.solve(gram, standard.T @ (change - change.mean())) / scale
    return Ridge(slope, float(change.mean() - center @ slope))


def try_blend(features: Singles, change: Floats, held_out: int, seed: int) -> Trial:
    """
    Fit on all but the last ``held_out`` examples, and find on those the rounds, the alpha and the weights.

    Args:
        features: shape (n, F), in time order.
        change: of the target at the next row, shape (n,).
        held_out: at least 1.
        seed: of the trees' draws.
    """
    train, test = slice(None, -held_out), slice(-held_out, None)
    validation = (features[test], change[test])
    boosters = [
        boost(features[train], change[train], loss, ROUNDS, seed=seed, validation=validation) for loss in _LOSSES
    ]
    ridges = [(fit_ridge(features[train], change[train], alpha), alpha) for alpha in _ALPHAS]
    ridge, alpha = min(ridges, key=lambda pair: Errors.of(pair[0].predict(features[test]) - change[test]).rmse)
    predicted = [*(booster.predict(features[test]) for booster in boosters), ridge.predict(features[test])]
    persistence = Errors.of(change[test])
    weights = _choose_weights(np.stack(predicted), change[test], persistence)
    errors = Errors.of(np.tensordot(weights, predicted, axes=1) - change[test])
    rounds = tuple(max(booster.best_iteration, 1) for booster in boosters)
    return Trial(Learners(tuple(boosters), ridge, weights), rounds, alpha, errors, persistence)


def refit(trial: Trial, features: Singles, change: Floats, seed: int) -> Learners:
    """The blend that a trial found, fitted on all examples; what weighs nothing is not fitted."""
    weights = trial.learners.weights
    boosters = tuple(
        boost(features, change, loss, rounds, seed=seed) if weight else None
        for loss, rounds, weight in zip(_LOSSES, trial.rounds, weights, strict=False)
    )
    return Learners(boosters, fit_ridge(features, change, trial.alpha), weights)


def add_blend(graph: Graph, learners: Learners, features: str) -> str:
    """The predicted change as a node, shape (N, 1)."""
    *tree_weights, ridge_weight = learners.weights
    weighted = [(booster, weight) for booster, weight in zip(learners.boosters, tree_weights, strict=True) if weight]
    change = add_trees(graph, features, weighted)
    if not ridge_weight:
        return change
    slope = graph.constant(ridge_weight * learners.ridge.slope[:, None])
    offset = graph.constant(ridge_weight * learners.ridge.offset)
    return str(graph.add("Add", change, graph.add("Add", graph.add("MatMul", features, slope), offset)))


def _choose_weights(predicted: Floats, change: Floats, persistence: Errors) -> tuple[float, ...]:
    """The weights that lower RMSE and MAE most, each relative to persistence's; all zero where none lowers them enough."""
    if persistence.rmse == 0.0 or persistence.mae == 0.0:
        return (0.0,) * len(predicted)
    steps = round(1.0 / STEP)
    best, lowest = (0.0,) * len(predicted), 2.0 * (1.0 - MARGIN)
    for counts in product(range(steps + 1), repeat=len(predicted)):
        if not 0 < sum(counts) <= steps:
            continue
        weights = tuple(count / steps for count in counts)
        errors = Errors.of(np.tensordot(weights, predicted, axes=1) - change)
        cost = errors.rmse / persistence.rmse + errors.mae / persistence.mae
        if cost < lowest:
            best, lowest = weights, cost
    return best
