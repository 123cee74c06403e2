"""Scores a table with a forest that goes on learning as it scores, from where its training stopped."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wheeltapper_models.card import Card
from wheeltapper_models.forest_watch import STREAM_FILE, ForestWatch
from wheeltapper_models.session import Floats

Ints = NDArray[np.int64]


def read_stream(card: Card, model: Path) -> bytes | None:
    """The learning state beside a model that was named by its folder; None for a bare .onnx file, which stands still."""
    path = model / STREAM_FILE
    return path.read_bytes() if card.kind == "forest" and path.is_file() else None


def stream_judge(
    stream: bytes, rows: Floats, units: Sequence[Ints], starts: Collection[int] = ()
) -> tuple[Floats, Ints, Floats]:
    """
    Judge each row by the rows before it; every unit has a forest of its own.

    Args:
        stream: what ``read_stream`` gave.
        rows: shape (T, S), NaN where missing.
        units: the places of each unit's rows.
        starts: rows that begin a new window.

    Returns:
        Score, anomaly and contributions of the rows, shapes (T,), (T,) and (T, S).
    """
    score = np.full(len(rows), np.nan, dtype=np.float32)
    anomaly = np.zeros(len(rows), dtype=np.int64)
    shares = np.zeros(rows.shape, dtype=np.float32)
    for unit in units:
        watch = ForestWatch.from_bytes(stream)
        watch.new_stretch()
        for place in unit.tolist():
            if place in starts:
                watch.new_stretch()
            verdict = watch.step(rows[place])
            score[place], anomaly[place], shares[place] = verdict.score, verdict.anomaly, verdict.contributions
    return score, anomaly, shares


def alerts_of(anomaly: Ints, units: Sequence[Ints], run: int) -> Ints:
    """1 where a row is at least the ``run``-th anomaly in a row of its unit."""
    alert = np.zeros_like(anomaly)
    for unit in units:
        streak = 0
        for place in unit.tolist():
            streak = streak + 1 if anomaly[place] else 0
            alert[place] = int(streak >= run)
    return alert
