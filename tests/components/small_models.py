"""Small models for tests of the gateway: the score is the smoothed sum of what the sensors say."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wheeltapper_models.card import Card, ModelInput, Training
from wheeltapper_models.export import INT64, Graph, seal, write
from wheeltapper_models.kinds import Trained
from wheeltapper_models.session import NEXT_STATES, ROWS, STATES

SENSORS = ("TT01", "TT02")


def small_model(
    version: str = "1.0.0",
    *,
    name: str = "motor",
    sensors: Sequence[str] = SENSORS,
    limit: float = 100.0,
    gain: float = 1.0,
    warmup_rows: int = 1,
    period_ms: int = 0,
    rate: str = "",
) -> Trained:
    """
    A model that remembers: smooth ← smooth + (|x| − smooth) / 2, score = gain × sum of smooth.

    It speaks from row ``warmup_rows + 1`` on; a missing value counts as 0.
    """
    width = len(sensors)
    graph = Graph(width, width + 1)
    count, smooth = graph.add("Split", STATES, graph.constant([1, width], np.int64), outputs=2, axis=1)
    zero, half, one = (graph.constant(value) for value in (0.0, 0.5, 1.0))
    value = graph.add("Where", graph.add("IsNaN", ROWS), zero, graph.add("Abs", ROWS))
    change = graph.add("Mul", graph.add("Sub", value, smooth), half)
    smooth = graph.add("Add", smooth, change)
    axes = graph.constant([1], np.int64)
    total = graph.add("ReduceSum", smooth, axes, keepdims=1)
    ready = graph.add("GreaterOrEqual", count, graph.constant(float(warmup_rows)))
    spoken = graph.add("Where", ready, graph.add("Mul", total, graph.constant(gain)), graph.constant(np.nan))
    score = graph.add("Squeeze", spoken, axes)
    graph.output("score", score)
    over = graph.add("Greater", score, graph.constant(limit))
    graph.output("anomaly", graph.add("Cast", over, to=INT64), type_=INT64)
    graph.output("contributions", graph.add("Div", smooth, graph.add("Max", total, graph.constant(1e-9))), width)
    graph.output(NEXT_STATES, graph.add("Concat", graph.add("Add", count, one), smooth, axis=1), width + 1)
    card = Card(
        name=name,
        version=version,
        kind="anomaly",
        inputs=[ModelInput(sensor) for sensor in sensors],
        training=Training(0, ""),
        state_size=width + 1,
        warmup_rows=warmup_rows,
        period_ms=period_ms,
        limit=limit,
        settings={"rate": rate} if rate else {},
    )
    rows = np.arange(4.0 * width).reshape(4, width)
    return seal(graph.build(name), card, rows)


def write_small_model(folder: Path, version: str = "1.0.0", **settings: Any) -> Path:
    """Write a small model and return its folder."""
    write(small_model(version, **settings), folder)
    return folder
