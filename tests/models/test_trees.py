"""Boosted trees as ONNX say what LightGBM says."""

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wheeltapper_models.card import Card, ModelInput, Training
from wheeltapper_models.export import Graph, seal
from wheeltapper_models.session import Session
from wheeltapper_models.trees import add_trees, boost, round_down


@given(st.floats(-(2.0**100), 2.0**100), st.floats(-(2.0**100), 2.0**100, width=32))
def test_a_rounded_threshold_parts_single_precision_as_the_exact_one_does(threshold: float, value: float) -> None:
    assert (np.float32(value) <= round_down(threshold)) == (value <= threshold)


@pytest.mark.parametrize("objective", ["l2", "l1", "binary"])
def test_the_weighted_sum_of_boosters_is_that_of_lightgbm(objective: str) -> None:
    rng = np.random.default_rng(0)
    features = np.round(rng.normal(size=(600, 4)), 1).astype(np.float32)
    target = features[:, 0] * features[:, 1] + rng.normal(0, 0.1, 600)
    target = (target > 0).astype(np.float64) if objective == "binary" else target
    boosters = [(boost(features, target, objective, 20, seed=seed), weight) for seed, weight in ((1, 0.7), (2, -0.2))]
    graph = Graph(4, 0)
    graph.output("probability", graph.add("Squeeze", add_trees(graph, "rows", boosters), graph.constant([1], np.int64)))
    inputs = [ModelInput(f"S{place}") for place in range(4)]
    card = Card(name="t", version="1", kind="failure", inputs=inputs, training=Training(1, ""))
    sealed = seal(graph.build("t"), card, features[:2])

    found, _ = Session(sealed.card, sealed.model).outputs(features, np.zeros((600, 0), dtype=np.float32))

    wanted = sum(weight * booster.predict(features, raw_score=True) for booster, weight in boosters)
    assert found["probability"] == pytest.approx(wanted, abs=1e-5)


def test_equal_seeds_give_equal_trees() -> None:
    features = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    target = features[:, 0].astype(np.float64)

    first, second = (boost(features, target, "l2", 10, seed=7) for _ in range(2))

    assert isinstance(first, lightgbm.Booster)
    assert first.model_to_string() == second.model_to_string()
