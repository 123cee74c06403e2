"""
The arithmetic of the anomaly model, once in numpy (the reference) and once as an ONNX graph.

Per row: standardise; fill what is missing with the sensor's last value, or its training mean if it never spoke; predict each
sensor from the others now and from all sensors' last ``lags`` rows; divide the residual by its scale. Its square, damped
beyond ``KNEE`` scales and smoothed, is a sensor's strangeness; the score is the mean over the sensors that count.

A fault of one sensor disturbs the predictions of those tied to it, sometimes more than its own. So blame is told by
pattern: what a sudden and a lasting fault of a sensor would do to all residuals follows from the weights, and the sensor's
contribution is how much of the residuals the better of its two patterns explains, as a share. Rows weigh in the smoothed
share as much as they are strange, damped likewise.

A machine's state is ``lags + 3`` blocks of S floats: how often a sensor has spoken (up to ``lags``), the last rows (newest
first, standardised and filled), strangeness, and blame. Zeros are a machine that has sent nothing.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray

from wheeltapper_models.card import StatePart
from wheeltapper_models.conditions import Condition
from wheeltapper_models.export import FLOAT, INT64, Graph
from wheeltapper_models.session import NEXT_STATES, ROWS, STATES, Floats, Scored

Doubles = NDArray[np.float64]

KNEE = 5.0  # scales; beyond, a residual's square grows as its logarithm, so that one mad value is soon forgotten
SENSIBLE = 1e30  # larger values and infinities are missing ones
NOTHING = 1e-30  # instead of dividing by zero
DOUBLE = onnx.TensorProto.DOUBLE


class Varx(msgspec.Struct, frozen=True, kw_only=True):
    """
    What training finds, for S sensors.

    Args:
        lags: how many past rows speak, at least 1.
        span: of the moving average, in rows.
        centre, spread: of each sensor in training, shape (S,), in its unit.
        weights: standardised residual ÷ its scale = [now, 1 row ago, …, lags rows ago] · weights + bias;
            shape ((lags + 1) · S, S); columns of sensors that do not count are zero.
        bias: shape (S,).
        counts: which sensors count towards the score, shape (S,).
        limit: a score above it is an anomaly.
        off: while one of these holds, the machine is off: no score, and it starts cold afterwards.
    """

    lags: int
    span: float
    centre: Doubles
    spread: Doubles
    weights: Doubles
    bias: Doubles
    counts: NDArray[np.bool_]
    limit: float
    off: Sequence[tuple[int, Condition]] = ()

    @property
    def smoothing(self) -> float:
        """The weight of the newest row in the moving average."""
        return 2.0 / (self.span + 1.0)

    @property
    def state(self) -> list[StatePart]:
        """What is kept per machine."""
        sensors = len(self.centre)
        return [
            StatePart("rows heard, by sensor", sensors),
            StatePart("rows, newest first", self.lags * sensors),
            StatePart("strangeness, by sensor", sensors, kept=True),
            StatePart("blame, by sensor", sensors, kept=True),
        ]

    @property
    def state_size(self) -> int:
        """Floats of state per machine."""
        return sum(part.size for part in self.state)

    @property
    def patterns(self) -> Doubles:
        """
        What a fault of each sensor does to all residuals, at unit length, shape (S, 2 · S).

        Columns are the sensors' sudden faults, then their lasting ones; zeros for sensors that do not count.
        """
        blocks = self.weights.reshape(self.lags + 1, len(self.centre), len(self.centre))
        effects = np.stack([blocks[0], blocks.sum(axis=0)]) * self.counts[:, None]
        length = np.linalg.norm(effects, axis=2, keepdims=True)
        patterns = np.where(length > 0, effects / np.where(length > 0, length, 1.0), 0.0)
        short: Doubles = np.concatenate(list(patterns)).T.astype(np.float32).astype(np.float64)
        return short


class _Parts(NamedTuple):
    """A state, taken apart."""

    heard: Doubles
    lagged: Doubles
    smooth: Doubles  # strangeness, then blame


def damp(square: Doubles) -> Doubles:
    """
    The square of a residual up to that of KNEE, growing as its logarithm beyond, without a jump in value or slope.

    >>> damp(np.array([2.0, -5.0, 5000.0]) ** 2).round(1)
    array([  4. ,  25. , 370.4])
    """
    square = square / KNEE**2
    damped: Doubles = KNEE**2 * (np.minimum(square, 1.0) + np.log(np.maximum(square, 1.0)))
    return damped


def step(model: Varx, rows: Floats, states: Floats) -> Scored:
    """
    The reference: one row of each of N machines, in float64 between float32 inputs, states and outputs.

    Args:
        rows: raw values, shape (N, S), NaN where missing.
        states: shape (N, ``model.state_size``).
    """
    sensors = len(model.centre)
    state = _take_apart(states.astype(np.float64), sensors)
    values = rows.astype(np.float64)
    seen = np.abs(values) < SENSIBLE
    last = state.lagged[:, :sensors]
    filled = np.where(seen, (values - model.centre) / model.spread, last)
    features = np.concatenate([filled, state.lagged], axis=1)
    heard = seen & (state.heard >= model.lags)
    residual = np.where(heard, features @ model.weights + model.bias, 0.0)
    explained = (residual @ model.patterns) ** 2
    blame = np.maximum(explained[:, :sensors], explained[:, sensors:])
    whole = blame.sum(axis=1, keepdims=True)
    blame = blame * (damp(whole) / np.maximum(whole, NOTHING))
    change = np.concatenate([damp(residual**2), blame], axis=1) - state.smooth
    smooth = state.smooth + np.where(np.tile(heard, 2), model.smoothing * change, 0.0)
    count = np.minimum(state.heard + seen, model.lags)
    for place, condition in model.off:
        off = condition.holds((filled * model.spread + model.centre)[:, place])[:, None]
        smooth, count = np.where(off, 0.0, smooth), np.where(off, 0.0, count)
    score = (smooth[:, :sensors].sum(axis=1) / model.counts.sum()).astype(np.float32)
    total = smooth[:, sensors:].sum(axis=1, keepdims=True)
    equal = model.counts / model.counts.sum()
    shares = np.where(total > 0, smooth[:, sensors:] / np.where(total > 0, total, 1.0), equal)
    next_states = np.concatenate([count, filled, state.lagged[:, :-sensors], smooth], axis=1)
    anomaly = (score > np.float32(model.limit)).astype(np.int64)
    return Scored(score, anomaly, shares.astype(np.float32), next_states.astype(np.float32))


def _take_apart(states: Doubles, sensors: int) -> _Parts:
    return _Parts(states[:, :sensors], states[:, sensors : -2 * sensors], states[:, -2 * sensors :])


def to_onnx(model: Varx, name: str) -> onnx.ModelProto:
    """The same arithmetic as a graph of standard operators; equal to ``step`` within 1e-5."""
    sensors = len(model.centre)
    graph = Graph(sensors, model.state_size)
    pieces = graph.add(
        "Split",
        graph.add("Cast", STATES, to=DOUBLE),
        graph.constant([sensors] * (model.lags + 1) + [2 * sensors], np.int64),
        outputs=model.lags + 2,
        axis=1,
    )
    count, lagged, smooth = pieces[0], pieces[1:-1], pieces[-1]
    values = graph.add("Cast", ROWS, to=DOUBLE)
    seen = graph.add("Less", graph.add("Abs", values), _double(graph, SENSIBLE))
    spread, centre = _double(graph, model.spread), _double(graph, model.centre)
    standard = graph.add("Div", graph.add("Sub", values, centre), spread)
    filled = graph.add("Where", seen, standard, lagged[0])
    smooth, count = _remember(graph, model, seen, [filled, *lagged], smooth, count)
    if model.off:
        raw = graph.add("Add", graph.add("Mul", filled, spread), centre)
        off, nothing = _off(graph, model, raw), _double(graph, 0.0)
        smooth, count = graph.add("Where", off, nothing, smooth), graph.add("Where", off, nothing, count)
    _speak(graph, model, smooth)
    parts = graph.add("Concat", count, filled, *lagged[:-1], smooth, axis=1)
    graph.output(NEXT_STATES, graph.add("Cast", parts, to=FLOAT), model.state_size)
    return graph.build(name)


def _double(graph: Graph, values: Any) -> str:
    return graph.constant(values, np.float64)


def _remember(graph: Graph, model: Varx, seen: str, features: list[str], smooth: str, count: str) -> tuple[str, str]:
    """The smoothed squares and the counts after this row."""
    row = graph.add("Concat", *features, axis=1)
    lags, zero = _double(graph, float(model.lags)), _double(graph, 0.0)
    heard = graph.add("And", seen, graph.add("GreaterOrEqual", count, lags))
    residual = graph.add("Gemm", row, _double(graph, model.weights / KNEE), _double(graph, model.bias / KNEE))
    residual = graph.add("Where", heard, residual, zero)
    explained = graph.add("MatMul", residual, _double(graph, model.patterns))
    halves = graph.constant([len(model.centre)] * 2, np.int64)
    sudden, lasting = graph.add("Split", graph.add("Mul", explained, explained), halves, outputs=2, axis=1)
    blame = graph.add("Max", sudden, lasting)
    whole = graph.add("ReduceSum", blame, graph.constant([1], np.int64), keepdims=1)
    square, one = graph.add("Concat", graph.add("Mul", residual, residual), whole, axis=1), _double(graph, 1.0)
    damped = graph.add("Add", graph.add("Min", square, one), graph.add("Log", graph.add("Max", square, one)))
    pieces = graph.constant([len(model.centre), 1], np.int64)
    strange, weight = graph.add("Split", damped, pieces, outputs=2, axis=1)
    weight = graph.add("Div", weight, graph.add("Max", whole, _double(graph, NOTHING)))
    now = graph.add("Concat", strange, graph.add("Mul", blame, weight), axis=1)
    kept = graph.add("Mul", smooth, _double(graph, 1.0 - model.smoothing))
    fresh = graph.add("Mul", now, _double(graph, model.smoothing * KNEE**2))
    both = graph.add("Concat", heard, heard, axis=1)
    smoothed = graph.add("Where", both, graph.add("Add", kept, fresh), smooth)
    counted = graph.add("Min", graph.add("Add", count, graph.add("Cast", seen, to=DOUBLE)), lags)
    return smoothed, counted


def _off(graph: Graph, model: Varx, raw: str) -> str:
    """Whether the machine is off, shape (N, 1)."""
    places = graph.constant([place for place, _ in model.off], np.int64)
    signs = np.array([-1.0 if condition.below else 1.0 for _, condition in model.off])
    limits = np.array([condition.value for _, condition in model.off]) * signs
    signed = graph.add("Mul", graph.add("Gather", raw, places, axis=1), _double(graph, signs))
    held = graph.add("Cast", graph.add("Greater", signed, _double(graph, limits)), to=FLOAT)
    return str(graph.add("Cast", graph.add("ReduceMax", held, axes=[1], keepdims=1), to=onnx.TensorProto.BOOL))


def _speak(graph: Graph, model: Varx, smooth: str) -> None:
    """Score, yes or no, and contributions."""
    counting, sensors, along = int(model.counts.sum()), len(model.counts), graph.constant([1], np.int64)
    strange, blame = graph.add("Split", smooth, graph.constant([sensors] * 2, np.int64), outputs=2, axis=1)
    total = graph.add("ReduceSum", blame, along, keepdims=1)
    some = graph.add("Greater", total, _double(graph, 0.0))
    shares = graph.add("Where", some, graph.add("Div", blame, total), _double(graph, model.counts / counting))
    whole = graph.add("ReduceSum", strange, along, keepdims=0)
    mean = graph.add("Mul", whole, _double(graph, 1.0 / counting))
    score = graph.add("Cast", mean, to=FLOAT)
    graph.output("score", score)
    above = graph.add("Greater", score, graph.constant(np.float32(model.limit)))
    graph.output("anomaly", graph.add("Cast", above, to=INT64), type_=INT64)
    graph.output("contributions", graph.add("Cast", shares, to=FLOAT), len(model.counts))
