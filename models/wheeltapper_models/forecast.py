"""
The forecast kind: the next value of a column, from its own past, the other columns and the calendar.

What is learnt is the change since the last value. The last fifth of the training rows, held out, says how much each learner
is to be believed and whether they beat persistence, which expects no change; where they do not, the model is persistence and
its card says so.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray

from wheeltapper.errors import DataError, SettingsError
from wheeltapper_models.card import CLOCK_INPUTS, HOUR, WEEKDAY, YEARDAY, Card, ModelInput, StatePart
from wheeltapper_models.data import Table
from wheeltapper_models.export import Graph, seal
from wheeltapper_models.forecast_blend import Learners, Trial, add_blend, refit, try_blend
from wheeltapper_models.forecast_features import HOUR_MS, Layout, Singles, add_features, features
from wheeltapper_models.grades import grade_sensors
from wheeltapper_models.kinds import Options, Trained, settings_of
from wheeltapper_models.provenance import period_of, training_of
from wheeltapper_models.score import encode_rows
from wheeltapper_models.session import NEXT_STATES, ROWS, STATES
from wheeltapper_models.stretches import categories_of, varying_columns

HELD_OUT = 0.2
FEWEST = 100  # examples
MOST_CATEGORIES = 32
MOST_CODES = 12  # different whole numbers that are taken for categories
MANY_ZEROS = 0.005


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    Args:
        window: rows that a forecast is made from.
        zero_is_missing: the target was not measured where it is 0.
    """

    window: int = 24
    zero_is_missing: bool = False


class _Examples(NamedTuple):
    features: Singles
    change: NDArray[np.float64]


def fit(tables: Sequence[Table], options: Options) -> Trained:
    """
    Learn to forecast ``options.target``.

    Raises:
        DataError: the target is no column of numbers that varies, or there are too few rows.
        SettingsError: no target is named, or a setting is unknown or of the wrong type.
    """
    settings = settings_of(options, Settings)
    if not options.target:
        raise SettingsError("--kind forecast: name the column to forecast: --target C")
    tables[0].column(options.target)
    inputs, notes = _inputs(tables, options)
    card = Card(
        name=options.name,
        version=options.version,
        kind="forecast",
        inputs=inputs,
        training=training_of(tables),
        target=options.target,
        period_ms=period_of(tables),
        warmup_rows=settings.window,
    )
    stretches = [encode_rows(card, table) for table in tables]
    layout = _layout(card, stretches, settings)
    center = np.nan_to_num(np.nanmedian(np.concatenate(stretches)[:, : layout.sensors], axis=0)).astype(np.float64)
    examples = _examples(layout, card, stretches, center, settings)
    trial = try_blend(*examples, held_out=max(round(len(examples.change) * HELD_OUT), 1), seed=options.seed)
    learners = refit(trial, *examples, seed=options.seed)
    card = msgspec.structs.replace(
        card,
        state_size=1 + layout.window * layout.sensors,
        state=[
            StatePart("rows seen, up to the window's length", 1),
            StatePart("window, oldest row first", layout.window * layout.sensors),
        ],
        settings={**msgspec.to_builtins(settings), **_account(trial)},
        scores=_scores(trial),
        notes=notes + _remarks(trial, tables, options.target, settings),
    )
    test_rows = max(stretches, key=len)[: layout.window + 12]
    return seal(_graph(layout, card, learners, center, settings), card, test_rows)


def _inputs(tables: Sequence[Table], options: Options) -> tuple[list[ModelInput], list[str]]:
    """Columns of numbers, of categories, and of the clock, in this order."""
    names, notes = varying_columns(tables)
    if options.target not in names:
        raise DataError(f"{tables[0].source}: the target {options.target!r} never varies; there is nothing to forecast")
    inputs = grade_sensors([table.select(names) for table in tables], options.units)
    notes = [note for note in notes if not note.endswith("text, not used")]
    for name in tables[0].text:
        cells = categories_of(tables, name)
        if 2 <= len(cells) <= MOST_CATEGORIES:
            inputs.append(ModelInput(name, categories=cells))
        else:
            notes.append(f"{name}: text with {len(cells)} different values, not used")
    return inputs + [ModelInput(name) for name in _calendar(tables)], notes


def _calendar(tables: Sequence[Table]) -> tuple[str, ...]:
    """What of the calendar can tell rows apart, and was seen more than once."""
    period = period_of(tables)
    times = [table.time_ms for table in tables if table.time_ms is not None and len(table)]
    if not period or not times or len(times) < len(tables):
        return ()
    days = (max(int(time.max()) for time in times) - min(int(time.min()) for time in times)) / (24 * HOUR_MS)
    if period > 24 * HOUR_MS or days < 3:
        return ()
    return tuple(name for name, least in ((HOUR, 3), (WEEKDAY, 21), (YEARDAY, 366)) if days >= least)


def _layout(card: Card, stretches: Sequence[Singles], settings: Settings) -> Layout:
    sensors = [item for item in card.inputs if item.name not in CLOCK_INPUTS]
    if settings.window < 2:
        raise SettingsError(f"--set window={settings.window}: must be at least 2")
    target = card.sensors.index(card.target)
    codes: dict[int, list[float]] = {}
    for place, item in enumerate(sensors):
        values = np.unique(np.concatenate([rows[:, place] for rows in stretches]))
        values = values[~np.isnan(values)]
        whole = len(values) <= MOST_CODES and bool((values == np.round(values)).all())
        if item.categories or (whole and len(values) > 2 and place != target):
            codes[place] = values.tolist()
    calendar = tuple(name for name in CLOCK_INPUTS if name in card.sensors)
    return Layout(len(sensors), target, codes, settings.window, calendar, card.period_ms)


def _examples(
    layout: Layout, card: Card, stretches: Sequence[Singles], center: NDArray[np.float64], settings: Settings
) -> _Examples:
    found, changes = [], []
    for encoded in stretches:
        if len(encoded) <= layout.window:
            continue
        rows = encoded[:, : layout.sensors].copy()
        if settings.zero_is_missing:
            rows[rows[:, layout.target] == 0.0, layout.target] = np.nan
        filled = _fill(rows, center)
        clock = np.zeros((len(rows), 3))
        for place, name in enumerate(CLOCK_INPUTS):
            if name in card.sensors:
                clock[:, place] = encoded[:, card.sensors.index(name)]
        change = rows[layout.window :, layout.target].astype(np.float64)
        change -= filled[layout.window - 1 : -1, layout.target]
        known = ~np.isnan(change)
        found.append(features(layout, filled, clock)[:-1][known])
        changes.append(change[known])
    count = sum(map(len, changes))
    if count < FEWEST:
        raise DataError(
            f"{card.training.sources[0] if card.training.sources else 'data'}: {count} rows have {layout.window} rows "
            f"before them and a target; a forecast needs {FEWEST}: give more rows, or a smaller --set window=12"
        )
    return _Examples(np.concatenate(found), np.concatenate(changes))


def _fill(rows: Singles, center: NDArray[np.float64]) -> Singles:
    """Missing values replaced by the last ones, and by ``center`` before any."""
    places = np.where(np.isnan(rows), -1, np.arange(len(rows))[:, None])
    np.maximum.accumulate(places, axis=0, out=places)
    filled = np.take_along_axis(rows, np.maximum(places, 0), axis=0)
    return np.where(places < 0, center.astype(np.float32), filled)


def _graph(
    layout: Layout, card: Card, learners: Learners, center: NDArray[np.float64], settings: Settings
) -> onnx.ModelProto:
    width, sensors = layout.window * layout.sensors, layout.sensors
    graph = Graph(len(card.inputs), 1 + width)
    seen, past = graph.add("Split", STATES, graph.constant([1, width], np.int64), outputs=2, axis=1)
    clock_width = len(card.inputs) - sensors
    clock: dict[str, str] = {}
    row = ROWS
    if clock_width:
        widths = graph.constant([sensors] + [1] * clock_width, np.int64)
        row, *columns = graph.add("Split", ROWS, widths, outputs=1 + clock_width, axis=1)
        clock = dict(zip(card.sensors[sensors:], columns, strict=True))
    missing = graph.missing(row)
    if settings.zero_is_missing:
        zero = graph.add("Equal", row, graph.constant(0.0))
        is_target = graph.constant(np.arange(sensors) == layout.target, np.bool_)
        missing = graph.add("Or", missing, graph.add("And", zero, is_target))
    bounds = [graph.constant([bound], np.int64) for bound in (width - sensors, width, 1)]
    cold = graph.add("Equal", seen, graph.constant(0.0))
    last = graph.add("Where", cold, graph.constant(center), graph.add("Slice", past, *bounds))
    filled = graph.add("Where", missing, last, row)
    bounds = [graph.constant([bound], np.int64) for bound in (sensors, width, 1)]
    window = graph.add("Concat", graph.add("Slice", past, *bounds), filled, axis=1)
    length = graph.constant(float(layout.window))
    seen = graph.add("Min", graph.add("Add", seen, graph.constant(1.0)), length)

    shaped = graph.add("Reshape", window, graph.constant([-1, layout.window, sensors], np.int64))
    change = add_blend(graph, learners, add_features(graph, layout, shaped, clock))
    bounds = [graph.constant([bound], np.int64) for bound in (layout.target, layout.target + 1, 1)]
    value = graph.add("Add", graph.add("Slice", filled, *bounds), change)
    ready = graph.add("GreaterOrEqual", seen, length)
    if HOUR in clock:
        ready = graph.add("And", ready, graph.add("Not", graph.add("IsNaN", clock[HOUR])))
    value = graph.add("Where", ready, value, graph.constant(np.nan))
    graph.output("prediction", graph.add("Squeeze", value, graph.constant([1], np.int64)))
    graph.output(NEXT_STATES, graph.add("Concat", seen, window, axis=1), 1 + width)
    return graph.build("forecast")


def _account(trial: Trial) -> dict[str, object]:
    weights = dict(zip(("trees_mean", "trees_median", "ridge"), trial.learners.weights, strict=True))
    return {"weights": weights, "rounds": list(trial.rounds), "ridge_alpha": trial.alpha}


def _scores(trial: Trial) -> dict[str, float]:
    return {
        "rmse": trial.errors.rmse,
        "mae": trial.errors.mae,
        "persistence_rmse": trial.persistence.rmse,
        "persistence_mae": trial.persistence.mae,
        "beats_persistence": float(trial.beats_persistence),
    }


def _remarks(trial: Trial, tables: Sequence[Table], target: str, settings: Settings) -> list[str]:
    share = f"the last {HELD_OUT:.0%} of the training rows, held out"
    better = 1.0 - trial.errors.rmse / trial.persistence.rmse if trial.persistence.rmse else 0.0
    if trial.beats_persistence:
        remarks = [f"beats persistence by {better:.1%} of RMSE on {share}"]
    else:
        remarks = [f"does NOT beat persistence on {share}: it forecasts the last value"]
    values = np.concatenate([table.column(target) for table in tables])
    zeros = float((values == 0.0).mean())
    if zeros > MANY_ZEROS and not settings.zero_is_missing and np.nanquantile(values, 0.05) >= 0.0:
        remarks.append(
            f"{target} is exactly 0 in {zeros:.1%} of the rows; if it was not measured there, "
            "train with --set zero_is_missing=true"
        )
    return remarks
