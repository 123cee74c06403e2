"""
Gradient-boosted trees of LightGBM as one ONNX node.

LightGBM compares in double precision, ONNX in single: a threshold is rounded down to the nearest float32, so that
``x ≤ threshold`` stays exact for every float32 x.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wheeltapper.errors import ModelError
from wheeltapper_models.export import Graph


def add_trees(graph: Graph, features: str, boosters: Sequence[tuple[Any, float]]) -> str:
    """
    Add the weighted sum of boosters to a graph.

    Args:
        graph: grows by one node.
        features: name of a float32 value, shape (N, F), without NaN.
        boosters: ``lightgbm.Booster`` objects trained without categorical features, each with its weight.

    Returns:
        The name of the sum of raw scores, shape (N, 1).
    """
    nodes = _Nodes()
    for booster, weight in boosters:
        for tree in booster.dump_model()["tree_info"]:
            nodes.add_tree(tree["tree_structure"], weight)
    return str(graph.add("TreeEnsembleRegressor", features, domain="ai.onnx.ml", n_targets=1, **nodes.attributes()))


def round_down(value: float) -> np.float32:
    """
    The largest float32 not above a number.

    >>> float(round_down(0.1)) <= 0.1 < float(np.nextafter(round_down(0.1), np.float32(1)))
    True
    """
    rounded = np.float32(value)
    return np.nextafter(rounded, np.float32(-np.inf)) if float(rounded) > value else rounded


_WORTH_THREADS = 1_000_000  # cells; below, threads cost more than they bring


class _Nodes:
    """The columns of the node table that TreeEnsembleRegressor wants."""

    def __init__(self) -> None:
        self.trees = 0
        self._node: dict[str, list[Any]] = {
            name: [] for name in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")
        }
        self._target: dict[str, list[Any]] = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}

    def add_tree(self, root: dict[str, Any], weight: float) -> None:
        """Number the nodes of one tree in the order in which they are met, and append them."""
        nodes = [root]
        for place, node in enumerate(nodes):
            if "split_feature" not in node:
                self._append(place, 0, np.float32(0.0), "LEAF", 0, 0)
                leaf = (self.trees, place, 0, float(node["leaf_value"]) * weight)
                for column, value in zip(self._target.values(), leaf, strict=True):
                    column.append(value)
                continue
            if node["decision_type"] != "<=":
                raise ModelError(f"a tree splits by {node['decision_type']!r}; only <= can be exported")
            children = len(nodes)
            threshold = round_down(node["threshold"])
            self._append(place, node["split_feature"], threshold, "BRANCH_LEQ", children, children + 1)
            nodes += [node["left_child"], node["right_child"]]
        self.trees += 1

    def _append(self, place: int, feature: int, value: np.float32, mode: str, yes: int, no: int) -> None:
        row = (self.trees, place, feature, float(value), mode, yes, no)
        for column, cell in zip(self._node.values(), row, strict=True):
            column.append(cell)

    def attributes(self) -> dict[str, Any]:
        """The node's attributes; a sum of no trees is zero."""
        if not self.trees:
            self.add_tree({"leaf_value": 0.0}, 0.0)
        node = {f"nodes_{name}": column for name, column in self._node.items()}
        return {**node, **{f"target_{name}": column for name, column in self._target.items()}}


def boost(
    features: NDArray[np.float32],
    target: NDArray[np.float64],
    objective: str,
    rounds: int,
    *,
    seed: int = 0,
    validation: tuple[NDArray[np.float32], NDArray[np.float64]] | None = None,
    **parameters: Any,
) -> Any:
    """
    Train a ``lightgbm.Booster``; equal data and seed give equal trees.

    Args:
        features: shape (n, F), without NaN.
        target: shape (n,).
        objective: LightGBM's name of the loss.
        rounds: trees, at most.
        seed: of the draws.
        validation: features and target that end training when 30 more trees do not help.
        parameters: LightGBM's own.
    """
    import lightgbm

    settings = {
        "objective": objective,
        "num_leaves": 15,
        "learning_rate": 0.08,
        "feature_fraction": 0.5,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "min_data_in_leaf": int(np.clip(len(target) // 100, 5, 40)),
        "use_missing": False,
        "deterministic": True,
        "num_threads": 1 if features.size < _WORTH_THREADS else 0,
        "force_col_wise": True,
        "seed": seed,
        "verbosity": -1,
        **parameters,
    }
    data = lightgbm.Dataset(features, target)
    if validation is None:
        return lightgbm.train(settings, data, rounds)
    held_out = lightgbm.Dataset(*validation, reference=data)
    stop = lightgbm.early_stopping(30, verbose=False)
    return lightgbm.train(settings, data, rounds, valid_sets=[held_out], callbacks=[stop])
