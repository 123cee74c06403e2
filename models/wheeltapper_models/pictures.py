"""Pictures of an evaluation, as PNG."""

import io
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wheeltapper_models.evaluate import Judged
from wheeltapper_models.ranges import ranges_of

MOST_POINTS = 4000
_SENSORS = 8
_BLUE, _RED, _SHADE = "#1f6feb", "#cf222e", "#f2c1c1"


def draw_pictures(judged: Judged) -> dict[str, bytes]:
    """Name → PNG: the score over time with limit and labels, contributions, or a forecast beside the truth."""
    if judged.actual is not None:
        return {"forecast": _draw_forecast(judged, judged.actual)}
    pictures = {"score": _draw_score(judged)}
    if judged.scores.contributions.any():
        pictures["contributions"] = _draw_contributions(judged)
    return pictures


def _draw_score(judged: Judged) -> bytes:
    scores = judged.scores
    figure, axes = _axes("score over time")
    places = _thin(scores.score)
    across = _across(judged)
    if judged.abnormal is not None:
        for number, (start, stop) in enumerate(ranges_of(judged.abnormal)):
            name = "_" if number else "labelled"  # a legend shows one, and none that begin with an underscore
            axes.axvspan(across[start], across[stop - 1], color=_SHADE, lw=0, label=name)
    axes.plot(across[places], scores.score[places], color=_BLUE, lw=0.8, label="score")
    alarm = places[scores.anomaly[places] > 0]
    axes.plot(across[alarm], scores.score[alarm], ".", color=_RED, ms=2, label="anomaly")
    if scores.card.limit is not None:
        axes.axhline(scores.card.limit, color=_RED, lw=0.8, ls="--", label="limit")
        if scores.card.kind != "failure" and np.nanmax(scores.score) > 10 * scores.card.limit:
            axes.set_yscale("symlog", linthresh=scores.card.limit)
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    return _png(figure)


def _draw_contributions(judged: Judged) -> bytes:
    scores = judged.scores
    figure, axes = _axes("contribution of each sensor")
    weight = scores.contributions[scores.anomaly > 0] if scores.anomaly.any() else scores.contributions
    order = np.argsort(-weight.mean(axis=0))[:_SENSORS]
    edges = np.linspace(0, len(scores.rows), min(len(scores.rows), 400) + 1).astype(int)[:-1]
    means = np.add.reduceat(scores.contributions[:, order], edges, axis=0) / np.diff(
        np.append(edges, len(scores.rows))
    ).reshape(-1, 1)
    axes.stackplot(_across(judged)[edges], means.T, labels=[scores.card.sensors[place] for place in order], lw=0)
    axes.set_ylim(0, 1)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    return _png(figure)


def _draw_forecast(judged: Judged, actual: NDArray[np.float64]) -> bytes:
    figure, axes = _axes(f"forecast of {judged.scores.card.target}")
    across = _across(judged)
    last = slice(max(len(actual) - 1000, 0), None)
    axes.plot(across[last], actual[last], color="#57606a", lw=0.8, label="measured")
    axes.plot(across[last], judged.scores.score[last], color=_BLUE, lw=0.8, label="forecast")
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    return _png(figure)


def _across(judged: Judged) -> NDArray[Any]:
    if judged.times_ms is None:
        return judged.scores.rows
    return judged.times_ms.astype("datetime64[ms]")


def _thin(score: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Places of at most so many points, the highest of each stretch, so that no peak is lost."""
    if len(score) <= MOST_POINTS:
        return np.arange(len(score))
    edges = np.linspace(0, len(score), MOST_POINTS + 1).astype(int)
    filled = np.nan_to_num(score, nan=-np.inf)
    return np.array([start + int(filled[start:stop].argmax()) for start, stop in pairwise(edges)])


def _axes(title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(11, 3.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.margins(x=0)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
