"""
The failure kind: the calibrated probability that a machine fails within a horizon, or that a row is one of a failure.

It learns from units that ran to their failure (``--unit-column`` and ``--horizon``; a unit's last row is its failure), or
from rows that are labelled (``--target``).
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray

from wheeltapper.errors import DataError, SettingsError
from wheeltapper_models.card import Card, ModelInput
from wheeltapper_models.data import Table
from wheeltapper_models.export import Graph, seal
from wheeltapper_models.failure_columns import columns_that_decide, counters, most_telling
from wheeltapper_models.failure_features import (
    Layout,
    Singles,
    add_history_features,
    add_row_features,
    history_features,
    row_features,
)
from wheeltapper_models.failure_learners import CrossValidation, Learners, add_explained, cross_validate, fit_all
from wheeltapper_models.grades import grade_sensors
from wheeltapper_models.kinds import Options, Trained, settings_of
from wheeltapper_models.provenance import period_of, training_of
from wheeltapper_models.score import encode_rows
from wheeltapper_models.session import NEXT_STATES, ROWS, STATES
from wheeltapper_models.stretches import categories_of, varying_columns

MOST_CATEGORIES = 32
FEWEST_EVENTS = 10
TEST_ROWS = 24


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    Args:
        short: rows of the short mean of a unit's history.
        long: rows of the long mean and of the spread.
        pairs: of columns that are multiplied, divided and subtracted where rows stand alone.
    """

    short: int = 10
    long: int = 40
    pairs: int = 8


class _Lesson(NamedTuple):
    """Rows in their order, what became of each, and which belong together."""

    rows: Singles
    event: NDArray[np.bool_]
    group: NDArray[np.int64]


def fit(tables: Sequence[Table], options: Options) -> Trained:
    """
    Learn the probability of failure.

    Raises:
        DataError: too few failures or units, no column that varies, or times that do not rise.
        SettingsError: it is not said what a failure is.
    """
    settings = settings_of(options, Settings)
    if not 1 <= settings.short <= settings.long or settings.long < 2:
        raise SettingsError("--set: short must be at least 1, and long at least 2 and no less than short")
    history = bool(options.unit_column) and not options.target
    if history and options.horizon is None:
        raise SettingsError("--kind failure: --unit-column needs --horizon, how long before its end a failure counts")
    if not history and not options.target:
        raise SettingsError("--kind failure: say what a failure is: --unit-column U --horizon H, or --target C")
    inputs, notes = _inputs(tables, options)
    card = Card(
        name=options.name,
        version=options.version,
        kind="failure",
        inputs=inputs,
        training=training_of(tables),
        period_ms=period_of(tables) if history else 0,
        horizon=options.horizon if history else None,
        target=options.target,
    )
    lesson = _lesson(card, tables, options)
    if not history:
        numbers = [item.name for item in inputs if not item.categories]
        notes += columns_that_decide(numbers, lesson.rows, lesson.event)
    layout = _layout(card, lesson, settings, history)
    features = _features(layout, lesson)
    found = cross_validate(features, lesson.event, lesson.group, options.seed)
    learners = fit_all(features, lesson.event, found, options.seed)
    card = msgspec.structs.replace(
        card,
        state_size=layout.state_size,
        state=layout.state,
        limit=found.best_limit(),
        limit_rule="the probability with the best F1 on units, or rows, left out of training",
        settings=_account(settings, options, found, history),
        scores=found.scores(),
        notes=notes,
    )
    healthy = np.median(features[~lesson.event], axis=0)
    return seal(_graph(layout, card, learners, healthy), card, _test_rows(lesson))


def _inputs(tables: Sequence[Table], options: Options) -> tuple[list[ModelInput], list[str]]:
    """Columns of numbers, then of categories; what only counts rows or names them is left out."""
    leave_out = [name for name in (options.unit_column, options.target) if name]
    names, notes = varying_columns(tables, leave_out)
    notes = [note for note in notes if not note.endswith("text, not used")]
    counting = counters(names, tables)
    notes += [f"{name}: counts the rows, not used" for name in counting]
    names = [name for name in names if name not in counting]
    inputs = grade_sensors([table.select(names) for table in tables], options.units)
    for name in tables[0].text:
        cells = categories_of(tables, name)
        if name in leave_out:
            continue
        if 2 <= len(cells) <= MOST_CATEGORIES:
            inputs.append(ModelInput(name, categories=cells))
        elif len(cells) > 1:
            notes.append(f"{name}: text with {len(cells)} different values, not used")
    if not inputs:
        raise DataError(f"{tables[0].source}: no column is left to learn from")
    return inputs, notes


def _lesson(card: Card, tables: Sequence[Table], options: Options) -> _Lesson:
    lessons = []
    groups = 0
    for table in tables:
        rows = encode_rows(card, table)
        group = _units(table, options.unit_column) if options.unit_column else np.arange(len(table))
        if options.target:
            event = _labels(table, options.target)
        else:
            rows, event, group = _run_to_failure(table, rows, group, options.horizon or 0.0)
        lessons.append(_Lesson(rows, event, group + groups))
        groups = int(lessons[-1].group.max()) + 1
    lesson = _Lesson(*(np.concatenate(parts) for parts in zip(*lessons, strict=True)))
    events = int(lesson.event.sum())
    if min(events, len(lesson.event) - events) < FEWEST_EVENTS:
        raise DataError(
            f"{tables[0].source}: {events} of {len(lesson.event)} rows are failures; "
            f"to learn takes {FEWEST_EVENTS} of either"
        )
    if len(np.unique(lesson.group)) < 5:
        raise DataError(f"{tables[0].source}: {len(np.unique(lesson.group))} units are too few; to learn takes 5")
    return lesson


def _units(table: Table, column: str) -> NDArray[np.int64]:
    cells = np.array(table.text[column]) if column in table.text else table.column(column)
    _, unit = np.unique(cells, return_inverse=True)
    return unit.astype(np.int64)


def _labels(table: Table, target: str) -> NDArray[np.bool_]:
    values = table.column(target)
    if np.isnan(values).any() or len(np.unique(values)) != 2:
        raise DataError(f"{table.source}: the target {target!r} must hold two different values, such as 0 and 1")
    return np.asarray(values == values.max())


def _run_to_failure(
    table: Table, rows: Singles, unit: NDArray[np.int64], horizon: float
) -> tuple[Singles, NDArray[np.bool_], NDArray[np.int64]]:
    """The rows by unit and time, and whether each is at most a horizon before its unit's last."""
    if table.time_ms is None:
        raise DataError(f"{table.source}: run-to-failure data need times or cycles: --time-column T")
    order = np.lexsort((table.time_ms, unit))
    unit, time = unit[order], table.time_ms[order]
    last = np.maximum.reduceat(time, np.flatnonzero(np.diff(unit, prepend=-1)))
    _, place = np.unique(unit, return_inverse=True)
    return rows[order], (last[place] - time) <= horizon * 1000.0, unit


def _layout(card: Card, lesson: _Lesson, settings: Settings, history: bool) -> Layout:
    numbers = sum(not item.categories for item in card.inputs)
    codes = {
        place: [float(code) for code in range(len(item.categories))]
        for place, item in enumerate(card.inputs)
        if item.categories
    }
    values = lesson.rows[:, :numbers].astype(np.float64)
    center, scale = np.nanmean(values, axis=0).tolist(), np.nanstd(values, axis=0).tolist()
    if history:
        return Layout(numbers, codes, center, scale, short=settings.short, long=settings.long)
    paired = most_telling(values, lesson.event, settings.pairs)
    return Layout(numbers, codes, center, scale, paired=paired)


def _features(layout: Layout, lesson: _Lesson) -> Singles:
    if not layout.long:
        return row_features(layout, lesson.rows)
    starts = np.flatnonzero(np.diff(lesson.group, prepend=-1))
    return np.concatenate([history_features(layout, rows) for rows in np.split(lesson.rows, starts[1:])])


def _graph(layout: Layout, card: Card, learners: Learners, healthy: Singles) -> onnx.ModelProto:
    graph = Graph(len(card.inputs), layout.state_size)
    if layout.long:
        features, states = add_history_features(graph, layout, ROWS, STATES)
        graph.output(NEXT_STATES, states, layout.state_size)
    else:
        features = add_row_features(graph, layout, ROWS)
    probability, shares = add_explained(graph, learners, features, layout.readers, healthy)
    graph.output("probability", graph.add("Squeeze", probability, graph.constant([1], np.int64)))
    graph.output("contributions", shares, len(card.inputs))
    return graph.build("failure")


def _account(settings: Settings, options: Options, found: CrossValidation, history: bool) -> dict[str, object]:
    account: dict[str, object] = {"share_of_trees": found.share, "slope": found.platt.slope, "seed": options.seed}
    if history:
        account |= {"unit_column": options.unit_column, "short": settings.short, "long": settings.long}
    else:
        account |= {"pairs": settings.pairs}
    return account


def _test_rows(lesson: _Lesson) -> Singles:
    """The first rows of a unit, its last among them where it is short."""
    first = lesson.rows[lesson.group == lesson.group[0]]
    return first[:TEST_ROWS] if len(first) > 1 else lesson.rows[:TEST_ROWS]
