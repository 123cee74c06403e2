"""
What turns features into a margin: boosted trees, a logistic regression, or the mean of both, whichever tells unseen units
best; and the calibration that makes a probability of it, fitted on margins of rows that the learner had not seen.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wheeltapper.errors import DataError
from wheeltapper_models.calibration import Mask, Platt, brier_score, calibration_error, fit_platt, log_loss
from wheeltapper_models.export import Graph
from wheeltapper_models.failure_features import Singles
from wheeltapper_models.ranking import area_under_curve, average_precision
from wheeltapper_models.trees import add_trees, boost

Floats = NDArray[np.float64]

ROUNDS = 200
TREES: dict[str, Any] = {"num_leaves": 8, "learning_rate": 0.05, "min_data_in_leaf": 20}
FOLDS = 5
# Log-odds that no column accounts for, shared equally: where nothing speaks for a failure, nobody is blamed.
FAINT = 0.01
SHARES = (1.0, 0.5, 0.0)  # of the trees in the margin, the logistic regression having the rest


class Logistic(NamedTuple):
    """margin = features · slope + offset."""

    slope: Floats
    offset: float

    def margin(self, features: Singles) -> Floats:
        result: Floats = features.astype(np.float64) @ self.slope + self.offset
        return result


class Learners(NamedTuple):
    """What is fitted on all rows; the share of the trees in the margin is in [0, 1]."""

    booster: Any
    logistic: Logistic
    share: float
    platt: Platt


class CrossValidation(NamedTuple):
    """What is known of each row from learners that had not seen its unit."""

    share: float
    platt: Platt
    probability: Floats
    event: Mask

    def scores(self) -> dict[str, float]:
        """AUC, average precision, Brier score and calibration error; cross-validated."""
        found = {
            "auc": area_under_curve(self.event, self.probability),
            "average_precision": average_precision(self.event, self.probability),
            "brier": brier_score(self.probability, self.event),
            "calibration_error": calibration_error(self.probability, self.event),
            "events": float(self.event.sum()),
        }
        return {name: value for name, value in found.items() if value is not None}

    def best_limit(self) -> float:
        """The probability above which alarms have the best F1."""
        order = np.argsort(-self.probability, kind="stable")
        ranked, hits = self.probability[order], np.cumsum(self.event[order])
        f1 = 2.0 * hits / (np.arange(1, len(hits) + 1) + hits[-1])
        f1[:-1][ranked[:-1] == ranked[1:]] = 0.0
        best = int(f1.argmax())
        below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
        return float((ranked[best] + below) / 2.0)


def cross_validate(features: Singles, event: Mask, groups: NDArray[np.int64], seed: int) -> CrossValidation:
    """
    Learn on four fifths of the groups, judge the others, five times.

    Args:
        features: shape (n, F).
        event: what is to be foreseen, shape (n,).
        groups: rows of one group are never parted, shape (n,).
        seed: of the folds and the trees.

    Raises:
        DataError: events or their absence are in too few groups.
    """
    trees, logistic = np.zeros(len(event)), np.zeros(len(event))
    for test in folds_of(event, groups, seed):
        train = ~test
        if not event[train].any() or event[train].all():
            raise DataError("failures, or healthy rows, are in one unit alone; give data of more units")
        trees[test] = _boost(features[train], event[train], seed).predict(features[test], raw_score=True)
        logistic[test] = fit_logistic(features[train], event[train]).margin(features[test])
    tried = []
    for share in SHARES:
        margin = share * trees + (1.0 - share) * logistic
        platt = fit_platt(margin, event)
        tried.append((log_loss(platt.slope * margin + platt.offset, event), share, platt, platt.probability(margin)))
    _, share, platt, probability = min(tried, key=lambda item: item[0])
    return CrossValidation(share, platt, probability, event)


def fit_all(features: Singles, event: Mask, found: CrossValidation, seed: int) -> Learners:
    """Learn from all rows what cross-validation has chosen."""
    booster = _boost(features, event, seed) if found.share else None
    return Learners(booster, fit_logistic(features, event), found.share, found.platt)


def fit_logistic(features: Singles, event: Mask) -> Logistic:
    """Logistic regression on standardised features, with a ridge penalty of 1."""
    from sklearn.linear_model import LogisticRegression

    center, scale = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 0.0, scale, 1.0)
    fitted = LogisticRegression(C=1.0, max_iter=500).fit((features - center) / scale, event)
    slope = fitted.coef_[0] / scale
    return Logistic(slope, float(fitted.intercept_[0] - center @ slope))


def add_explained(
    graph: Graph, learners: Learners, features: str, readers: NDArray[np.bool_], healthy: Singles
) -> tuple[str, str]:
    """
    The calibrated probability and each column's contribution as nodes, shapes (N, 1) and (N, S).

    A column contributes by how much the log-odds fall when all that reads it is as in a typical healthy row.

    Args:
        readers: which features read each column, shape (S, F).
        healthy: the features of a typical healthy row, shape (F,).
    """
    columns, width = readers.shape
    replaced = np.concatenate([np.zeros((1, width), dtype=bool), readers])
    one = graph.constant([1], np.int64)
    variants = graph.add(
        "Where", graph.constant(replaced, np.bool_), graph.constant(healthy), graph.add("Unsqueeze", features, one)
    )
    flat = graph.add("Reshape", variants, graph.constant([-1, width], np.int64))
    margins = graph.add("Reshape", _add_margin(graph, learners, flat), graph.constant([-1, 1 + columns], np.int64))
    margin, without = graph.add("Split", margins, graph.constant([1, columns], np.int64), outputs=2, axis=1)
    falls = graph.add("Relu", graph.add("Sub", margin, without))
    falls = graph.add("Add", falls, graph.constant(FAINT / columns))
    shares = graph.add("Div", falls, graph.add("ReduceSum", falls, one, keepdims=1))
    return str(graph.add("Sigmoid", margin)), str(shares)


def _add_margin(graph: Graph, learners: Learners, features: str) -> str:
    """The calibrated log-odds as a node, shape (N, 1)."""
    share, platt = learners.share, learners.platt
    margins = []
    if share:
        margins.append(add_trees(graph, features, [(learners.booster, share * platt.slope)]))
    if share < 1.0:
        weight = (1.0 - share) * platt.slope
        slope, offset = graph.constant(weight * learners.logistic.slope[:, None]), weight * learners.logistic.offset
        margins.append(graph.add("Add", graph.add("MatMul", features, slope), graph.constant(offset)))
    margin = margins[0] if len(margins) == 1 else graph.add("Add", *margins)
    return str(graph.add("Add", margin, graph.constant(platt.offset)))


def _boost(features: Singles, event: Mask, seed: int) -> Any:
    return boost(features, event.astype(np.float64), "binary", ROUNDS, seed=seed, **TREES)


def folds_of(event: Mask, groups: NDArray[np.int64], seed: int) -> Iterator[Mask]:
    """Masks of the rows to judge: groups dealt out so that each fold has its share of those with an event."""
    rng = np.random.default_rng(seed)
    names, group = np.unique(groups, return_inverse=True)
    eventful = np.zeros(len(names), dtype=bool)
    eventful[group[event]] = True
    shuffled = rng.permutation(len(names))
    dealt = shuffled[np.argsort(~eventful[shuffled], kind="stable")]
    fold_of = np.empty(len(names), dtype=np.int64)
    fold_of[dealt] = np.arange(len(names)) % FOLDS
    for fold in range(min(FOLDS, len(names))):
        yield fold_of[group] == fold
