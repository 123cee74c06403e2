"""
What the probability of a failure is read from, in numpy for training and as ONNX nodes for the edge.

Where rows stand alone: their values, the product, difference and ratios of each pair of columns, and categories as 0 and 1.
Where a unit's rows are a history: each sensor's value, its means over a short and a long span, its offset from the unit's
first row and its spread over the long span; of a younger unit, over the rows there are.
"""

from itertools import combinations

import msgspec
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from wheeltapper_models.card import StatePart
from wheeltapper_models.export import FLOAT, Graph

Singles = NDArray[np.float32]

_FAR = 1e12  # ratios are cut there, so that a zero below the line is a large number


class Layout(msgspec.Struct, frozen=True):
    """
    Which columns there are and how they become features.

    Args:
        numbers: columns of numbers, the first of a row.
        codes: place of a column of categories → the values that are one feature each.
        center, scale: of the columns of numbers in training; ``scale`` > 0.
        paired: the columns of numbers that are paired.
        short, long: spans in rows; 0 where rows stand alone.
    """

    numbers: int
    codes: dict[int, list[float]]
    center: list[float]
    scale: list[float]
    paired: list[int] = []
    short: int = 0
    long: int = 0

    @property
    def pairs(self) -> tuple[list[int], list[int]]:
        chosen = list(combinations(self.paired, 2))
        return [first for first, _ in chosen], [second for _, second in chosen]

    @property
    def readers(self) -> NDArray[np.bool_]:
        """Which features read each column, shape (S, F)."""
        columns = self.numbers + len(self.codes)
        alone = [[place] for place in range(self.numbers)]
        pairs = [list(pair) for pair in zip(*self.pairs, strict=True)]
        reads = alone * 5 if self.long else alone + 4 * pairs
        reads += [[place] for place, values in self.codes.items() for _ in values]
        found = np.zeros((columns, len(reads)), dtype=bool)
        for feature, places in enumerate(reads):
            found[places, feature] = True
        return found

    @property
    def state_size(self) -> int:
        """Floats of state per unit; none where rows stand alone."""
        return sum(part.size for part in self.state)

    @property
    def state(self) -> list[StatePart]:
        """What is kept per unit; a pause is part of its history."""
        if not self.long:
            return []
        return [
            StatePart("rows seen, up to the long span", 1, kept=True),
            StatePart("first row", self.numbers, kept=True),
            StatePart("rows, oldest first", self.numbers * self.long, kept=True),
        ]


def row_features(layout: Layout, rows: Singles) -> Singles:
    """The features of rows that stand alone, shape (n, S) → (n, F); a missing number is the center."""
    numbers = rows[:, : layout.numbers]
    numbers = np.where(~np.isfinite(numbers), np.array(layout.center, dtype=np.float32), numbers)
    first, second = layout.pairs
    a, b = numbers[:, first], numbers[:, second]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.concatenate([a / b, b / a], axis=1)
    ratios = np.clip(np.where(np.isnan(ratios), 0.0, ratios), -_FAR, _FAR)
    return np.concatenate([numbers, a * b, a - b, ratios, *_flags(layout, rows)], axis=1, dtype=np.float32)


def history_features(layout: Layout, rows: Singles) -> Singles:
    """The features of all rows of one unit, in time order from its first, shape (n, S) → (n, F)."""
    center, scale = np.array(layout.center, dtype=np.float32), np.array(layout.scale, dtype=np.float32)
    standard = (rows[:, : layout.numbers] - center) / scale
    places = np.where(~np.isfinite(standard), -1, np.arange(len(standard))[:, None])
    np.maximum.accumulate(places, axis=0, out=places)
    standard = np.where(places < 0, 0.0, np.take_along_axis(standard, np.maximum(places, 0), axis=0))
    standard = standard.astype(np.float32)
    padding = np.zeros((layout.long - 1, layout.numbers), dtype=np.float32)
    windows = sliding_window_view(np.concatenate([padding, standard]), layout.long, axis=0)  # (row, column, time)
    seen = np.minimum(np.arange(1, len(rows) + 1), layout.long).astype(np.float32)[:, None]
    mean_short = windows[:, :, -layout.short :].sum(axis=2) / np.minimum(seen, layout.short)
    mean_long = windows.sum(axis=2) / seen
    known = np.arange(layout.long)[None, None, :] >= (layout.long - seen)[:, :, None]
    squares = np.where(known, (windows - mean_long[:, :, None]) ** 2, 0.0)
    spread = np.sqrt(squares.sum(axis=2) / seen)
    parts = [standard, mean_short, mean_long, standard - standard[:1], spread]
    return np.concatenate([*parts, *_flags(layout, rows)], axis=1, dtype=np.float32)


def _flags(layout: Layout, rows: Singles) -> list[NDArray[np.bool_]]:
    return [rows[:, [place]] == np.array(values, dtype=np.float32) for place, values in layout.codes.items()]


def add_row_features(graph: Graph, layout: Layout, rows: str) -> str:
    """``row_features`` as nodes; the name of the features."""
    numbers = _columns(graph, rows, 0, layout.numbers)
    numbers = graph.add("Where", graph.missing(numbers), graph.constant(layout.center), numbers)
    parts = [numbers]
    if layout.paired[1:]:
        a, b = (graph.add("Gather", numbers, graph.constant(side, np.int64), axis=1) for side in layout.pairs)
        ratios = graph.add("Concat", graph.add("Div", a, b), graph.add("Div", b, a), axis=1)
        ratios = graph.add("Where", graph.add("IsNaN", ratios), graph.constant(0.0), ratios)
        ratios = graph.add("Clip", ratios, graph.constant(-_FAR), graph.constant(_FAR))
        parts += [graph.add("Mul", a, b), graph.add("Sub", a, b), ratios]
    return str(graph.add("Concat", *parts, *_add_flags(graph, layout, rows), axis=1))


def add_history_features(graph: Graph, layout: Layout, rows: str, states: str) -> tuple[str, str]:
    """``history_features`` of one row as nodes; the names of the features and of the next states."""
    width, long = layout.numbers, layout.long
    sizes = graph.constant([1, width, width * long], np.int64)
    seen, first, past = graph.add("Split", states, sizes, outputs=3, axis=1)
    numbers = _columns(graph, rows, 0, width)
    standard = graph.add("Div", graph.add("Sub", numbers, graph.constant(layout.center)), graph.constant(layout.scale))
    last = _columns(graph, past, width * (long - 1), width * long)
    standard = graph.add("Where", graph.missing(standard), last, standard)
    first = graph.add("Where", graph.add("Equal", seen, graph.constant(0.0)), standard, first)
    past = graph.add("Concat", _columns(graph, past, width, width * long), standard, axis=1)
    seen = graph.add("Min", graph.add("Add", seen, graph.constant(1.0)), graph.constant(float(long)))

    window = graph.add("Reshape", past, graph.constant([-1, long, width], np.int64))
    time = graph.constant([1], np.int64)
    bounds = [graph.constant([bound], np.int64) for bound in (long - layout.short, long, 1)]
    short_sum = graph.add("ReduceSum", graph.add("Slice", window, *bounds), time, keepdims=0)
    mean_short = graph.add("Div", short_sum, graph.add("Min", seen, graph.constant(float(layout.short))))
    mean_long = graph.add("Div", graph.add("ReduceSum", window, time, keepdims=0), seen)
    off = graph.add("Sub", window, graph.add("Unsqueeze", mean_long, time))
    known = graph.add("GreaterOrEqual", graph.constant(np.arange(long)), graph.add("Sub", graph.constant(long), seen))
    known = graph.add("Unsqueeze", graph.add("Cast", known, to=FLOAT), graph.constant([2], np.int64))
    squares = graph.add("ReduceSum", graph.add("Mul", graph.add("Mul", off, off), known), time, keepdims=0)
    spread = graph.add("Sqrt", graph.add("Div", squares, seen))
    parts = [standard, mean_short, mean_long, graph.add("Sub", standard, first), spread]
    features = graph.add("Concat", *parts, *_add_flags(graph, layout, rows), axis=1)
    return str(features), str(graph.add("Concat", seen, first, past, axis=1))


def _add_flags(graph: Graph, layout: Layout, rows: str) -> list[str]:
    flags = []
    for place, values in layout.codes.items():
        equal = graph.add("Equal", _columns(graph, rows, place, place + 1), graph.constant(values))
        flags.append(graph.add("Cast", equal, to=FLOAT))
    return flags


def _columns(graph: Graph, value: str, start: int, stop: int) -> str:
    return str(graph.add("Slice", value, *(graph.constant([bound], np.int64) for bound in (start, stop, 1))))
