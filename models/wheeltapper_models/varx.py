"""
Anomaly: what each sensor should read, given the others now and all of them a moment ago.

Ridge regression per sensor, drawn towards "as it was one row ago"; how strongly is chosen per sensor by the error on
held-out blocks of the training rows. The scale of each residual and the limit of the score come from held-out rows too,
so that a model that fits its few training rows too well does not trust itself too much. Needs numpy; ``onnx`` to write.

>>> from wheeltapper_models.data import table_of
>>> from wheeltapper_models.kinds import Options
>>> random = np.random.default_rng(0)
>>> load = np.sin(np.arange(500) / 20) + random.normal(0, 0.05, 500)
>>> table = table_of({"load": load, "current": 2 * load + random.normal(0, 0.1, 500)})
>>> fit([table], Options(name="pump")).card.sensors
['load', 'current']
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from wheeltapper.errors import DataError, SettingsError
from wheeltapper_models.calibrate import limit_from_labels, limit_of, moving_average
from wheeltapper_models.card import Card, ModelInput
from wheeltapper_models.conditions import Condition, parse_condition
from wheeltapper_models.data import Table
from wheeltapper_models.export import seal
from wheeltapper_models.grades import LOW, grade_sensors
from wheeltapper_models.kinds import Options, Trained, settings_of
from wheeltapper_models.lagged import Doubles, Mask, Rows, lagged_rows, short, standard, usable_rows
from wheeltapper_models.provenance import period_of, training_of
from wheeltapper_models.ranking import average_precision
from wheeltapper_models.ridge import Solver
from wheeltapper_models.varx_model import Varx, damp, to_onnx

FEWEST_ROWS = 60
CLEARLY = 0.05  # better, in average precision
_FINEST_SCALE = 1e-3  # of a sensor's spread: no residual is trusted to be smaller than this


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    Settings of ``--kind anomaly``.

    Args:
        lags: past rows that speak.
        span: rows of the moving average; labels may choose a third or a tenth of it.
        ridge: strengths of the ridge to choose from, commas between.
        folds: blocks of training rows that are held out in turn.
        targets: the sensors that count towards the score, commas between; empty for all.
        limit: the limit itself, instead of a calibrated one.
    """

    lags: int = 3
    span: float = 30.0
    ridge: str = "1,10,100"
    folds: int = 5
    targets: str = ""
    limit: float | None = None


def fit(tables: Sequence[Table], options: Options) -> Trained:
    """
    Learn what is normal.

    Args:
        tables: stretches of rows in time order, with the same columns of numbers.
        options: ``settings`` as in ``Settings``.

    Raises:
        DataError: too few rows, or no sensor that changes; says why.
        SettingsError: a setting is unknown or out of range.
    """
    settings = _checked(settings_of(options, Settings))
    conditions = [parse_condition(text) for text in options.off_conditions]
    inputs = grade_sensors(tables, options.units)
    model, notes, scores = _learn(tables, inputs, conditions, settings)
    excluded = sum(int(table.labelled.sum()) for table in tables if table.labelled is not None)
    card = Card(
        name=options.name,
        version=options.version,
        kind="anomaly",
        inputs=inputs,
        training=training_of(tables, excluded),
        state_size=model.state_size,
        state=model.state,
        warmup_rows=model.lags,
        period_ms=period_of(tables),
        limit=model.limit,
        limit_rule=_rule(settings, excluded > 0),
        off_conditions=[str(condition) for condition in conditions],
        settings={**msgspec.to_builtins(settings), "span": model.span},
        scores=scores,
        notes=notes,
    )
    return seal(to_onnx(model, options.name), card, _test_rows(tables, model))


def _checked(settings: Settings) -> Settings:
    if not 1 <= settings.lags <= 100 or settings.span < 1 or not 2 <= settings.folds <= 20:
        raise SettingsError("--set: lags must be 1 to 100, span at least 1 and folds 2 to 20")
    return settings


def _learn(
    tables: Sequence[Table], inputs: Sequence[ModelInput], conditions: Sequence[Condition], settings: Settings
) -> tuple[Varx, list[str], dict[str, float]]:
    names = [column.name for column in inputs]
    counts = _counting(inputs, settings)
    off = [(_place(names, condition), condition) for condition in conditions]
    usable = [usable_rows(table, off) for table in tables]
    centre, spread = standard(tables, usable)
    spread = np.where([column.grade == LOW for column in inputs], 1.0, spread)
    rows = lagged_rows(tables, usable, centre, spread, settings.lags)
    _refuse_too_few(tables, int(rows.normal.sum()))
    solver = Solver(rows, counts, _strengths(settings.ridge), settings.folds)
    residual, chosen = solver.held_out()
    scale = _scale(residual, rows, counts)
    weights, bias = solver.solve(rows.normal, chosen)
    sensors = len(names)
    whole = -weights
    whole[:sensors] += np.eye(sensors)
    whole, bias = np.where(counts, whole / scale, 0.0), np.where(counts, -bias / scale, 0.0)
    scaled = _Scaled(residual / scale, rows.features @ whole + bias, rows, counts)
    span, limit = _calibrate(scaled, settings)
    model = Varx(
        lags=settings.lags,
        span=span,
        centre=centre,
        spread=spread,
        weights=short(whole),
        bias=short(bias),
        counts=counts,
        limit=float(np.float32(limit)),
        off=off,
    )
    healthy = scaled.healthy(span)
    scores = {
        "held_out_explained": round(_explained(residual, rows, counts), 4),
        "held_out_score_median": round(float(np.median(healthy)), 4),
        "held_out_score_largest": round(float(healthy.max()), 4),
    }
    notes = [f"{column.name}: {', '.join(column.remarks)}" for column in inputs if column.remarks]
    notes += [f"{name}: text, not used" for name in tables[0].text]
    return model, notes, scores


def _refuse_too_few(tables: Sequence[Table], learnt: int) -> None:
    if learnt < FEWEST_ROWS:
        sources = ", ".join(sorted({table.source for table in tables}))
        raise DataError(
            f"{sources}: {learnt} rows can be learnt from after gaps, off-times and labels; "
            f"at least {FEWEST_ROWS} are needed"
        )


def _counting(inputs: Sequence[ModelInput], settings: Settings) -> Mask:
    """Which sensors count towards the score."""
    names = [column.name for column in inputs]
    targets = [name.strip() for name in settings.targets.split(",") if name.strip()] or names
    if unknown := [name for name in targets if name not in names]:
        raise SettingsError(f"--set targets: {', '.join(unknown)} is not among {', '.join(names)}")
    counts = np.array([column.name in targets and column.grade != LOW for column in inputs], dtype=bool)
    if not counts.any():
        reasons = "; ".join(f"{column.name}: {', '.join(column.remarks)}" for column in inputs) or "there are none"
        raise DataError(f"no sensor can be learnt from ({reasons})")
    return counts


def _place(names: list[str], condition: Condition) -> int:
    if condition.sensor not in names:
        raise DataError(f"off-condition {condition}: {condition.sensor!r} is not among {', '.join(names)}")
    return names.index(condition.sensor)


def _strengths(text: str) -> Doubles:
    try:
        strengths = np.array([float(part) for part in text.split(",")])
    except ValueError as error:
        raise SettingsError(f"--set ridge={text}: must be numbers with commas between") from error
    if not np.all(strengths > 0):
        raise SettingsError(f"--set ridge={text}: must be above 0")
    return strengths


def _explained(residual: Doubles, rows: Rows, counts: Mask) -> float:
    """The share of the sensors' variance that their held-out predictions explain, the mean over those that count."""
    shares = []
    for sensor in np.flatnonzero(counts).tolist():
        held = rows.heard[:, sensor] & rows.normal
        if held.any():
            variance = max(float(rows.features[held, sensor].var()), 1e-12)
            shares.append(1.0 - float(np.mean(residual[held, sensor] ** 2)) / variance)
    return float(np.mean(shares)) if shares else 0.0


def _scale(residual: Doubles, rows: Rows, counts: Mask) -> Doubles:
    """Root mean square of the held-out residuals, shape (S,); 1 for sensors that do not count."""
    held = rows.heard & rows.normal[:, None] & ~np.isnan(residual)
    number = held.sum(axis=0)
    scale = np.sqrt((np.where(held, residual, 0.0) ** 2).sum(axis=0) / np.maximum(number, 1))
    return np.where(counts & (number > 0), np.maximum(scale, _FINEST_SCALE), 1.0)


class _Scaled(NamedTuple):
    """Scaled residuals of training rows: held out from the fit for ``healthy``, as the model gives them for ``abnormal``."""

    held_out: Doubles
    fitted: Doubles
    rows: Rows
    counts: Mask

    def healthy(self, span: float) -> Doubles:
        """Scores of normal rows, without those from which the average has yet to fill."""
        normal = self.rows.normal
        heard = (self.rows.heard & ~np.isnan(self.held_out))[normal]
        squares = damp(np.nan_to_num(self.held_out[normal]) ** 2)
        scores: Doubles = moving_average(squares, span, heard)[:, self.counts].mean(axis=1)
        fill = min(int(span), len(scores) // 2)
        return np.maximum(scores[fill:], 1e-12)

    def abnormal(self, span: float) -> Doubles:
        """Scores of labelled rows."""
        average = moving_average(damp(self.fitted**2), span, self.rows.heard)
        scores: Doubles = average[:, self.counts].mean(axis=1)[self.rows.labelled]
        return scores


def _calibrate(scaled: _Scaled, settings: Settings) -> tuple[float, float]:
    """The span and the limit: the user's, the calibrated ones, or those that labels ask for."""
    labelled = bool(scaled.rows.labelled.any())
    span = _span_by_labels(scaled, settings.span) if labelled else settings.span
    if settings.limit is not None:
        return span, settings.limit
    healthy = scaled.healthy(span)
    limit = limit_of(healthy, span)
    return span, limit_from_labels(healthy, scaled.abnormal(span), limit) if labelled else limit


def _span_by_labels(scaled: _Scaled, span: float) -> float:
    """The span that ranks labelled rows best; a shorter one must be clearly better, since it is noisier."""
    best, quality = span, -1.0
    for candidate in (span, max(span / 3, 1.0), max(span / 10, 1.0)):
        healthy, abnormal = scaled.healthy(candidate), scaled.abnormal(candidate)
        known = np.arange(len(healthy) + len(abnormal)) >= len(healthy)
        precision = average_precision(known, np.concatenate([healthy, abnormal])) or 0.0
        if precision > quality + CLEARLY:
            best, quality = candidate, precision
    return best


def _rule(settings: Settings, labelled: bool) -> str:
    if settings.limit is not None:
        return "set by the user"
    rule = (
        "the upper prediction bound of the held-out training scores (log-normal), at least 1.15 × the largest of them"
    )
    return f"{rule}; moved, with the span, to where it tells labelled rows from normal ones best" if labelled else rule


def _test_rows(tables: Sequence[Table], model: Varx) -> Doubles:
    """Rows for the self-test: a healthy start, a missing value, a jump of one sensor."""
    number = model.lags + 6
    rows = np.concatenate([table.values[:number] for table in tables])[:number]
    sensor = int(np.flatnonzero(model.counts)[0])
    rows[-4, sensor] = np.nan
    rows[-2:, sensor] = model.centre[sensor] + 8 * model.spread[sensor]
    return rows
