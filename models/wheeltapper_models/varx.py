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

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltapper.errors import DataError
from wheeltapper_models.calibrate import limit_from_labels, limit_of, moving_average
from wheeltapper_models.card import Card, ModelInput
from wheeltapper_models.conditions import Condition, parse_condition
from wheeltapper_models.data import Table
from wheeltapper_models.export import seal
from wheeltapper_models.grades import LOW, grade_sensors
from wheeltapper_models.kinds import Options, Trained, settings_of
from wheeltapper_models.provenance import period_of, training_of
from wheeltapper_models.ranking import average_precision
from wheeltapper_models.varx_model import Varx, damp, to_onnx

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

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


class Rows(NamedTuple):
    """
    Training rows, standardised and filled, with their past beside them.

    ``features`` is [now, 1 row ago, …], shape (T, (lags + 1) · S); ``heard`` says where a sensor's residual counts, shape
    (T, S); ``normal`` where a row may be learnt from, shape (T,).
    """

    features: Doubles
    heard: Mask
    normal: Mask
    labelled: Mask


def fit(tables: Sequence[Table], options: Options) -> Trained:
    """
    Learn what is normal.

    Args:
        tables: stretches of rows in time order, with the same columns of numbers.
        options: ``settings`` as in ``Settings``.

    Raises:
        DataError: too few rows, or no sensor that changes; says why.
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
    if not 1 <= settings.lags <= 100 or settings.span < 1 or settings.folds < 2:
        raise DataError("--set: lags must be 1 to 100, span at least 1 and folds at least 2")
    return settings


def _learn(
    tables: Sequence[Table], inputs: Sequence[ModelInput], conditions: Sequence[Condition], settings: Settings
) -> tuple[Varx, list[str], dict[str, float]]:
    names = [column.name for column in inputs]
    counts = _counting(inputs, settings)
    off = [(_place(names, condition), condition) for condition in conditions]
    usable = [_usable(table, off, settings) for table in tables]
    centre, spread = _standard(tables, usable)
    spread = np.where([column.grade == LOW for column in inputs], 1.0, spread)
    rows = _rows(tables, usable, centre, spread, settings.lags)
    learnt = int(rows.normal.sum())
    if learnt < FEWEST_ROWS:
        raise DataError(
            f"{_sources(tables)}: {learnt} rows can be learnt from after gaps, off-times and labels; "
            f"at least {FEWEST_ROWS} are needed"
        )
    solver = _Solver(rows, counts, settings)
    residual, chosen = solver.held_out()
    scale = _scale(residual, rows, counts)
    weights, bias = solver.solve(rows.normal, chosen)
    sensors = len(names)
    whole = -weights
    whole[:sensors] += np.eye(sensors)
    whole, bias = np.where(counts, whole / scale, 0.0), np.where(counts, -bias / scale, 0.0)
    scaled = _Scaled(residual / scale, rows.features @ whole + bias, rows, counts)
    span = _span_by_labels(scaled, settings.span) if rows.labelled.any() else settings.span
    healthy = scaled.healthy(span)
    limit = limit_of(healthy, span) if settings.limit is None else settings.limit
    if settings.limit is None and rows.labelled.any():
        limit = limit_from_labels(healthy, scaled.abnormal(span), limit)
    model = Varx(
        lags=settings.lags,
        span=span,
        centre=centre,
        spread=spread,
        weights=_short(whole),
        bias=_short(bias),
        counts=counts,
        limit=float(np.float32(limit)),
        off=off,
    )
    now = rows.features[rows.normal][:, :sensors]
    explained = 1.0 - np.nanvar(residual[rows.normal], axis=0)[counts] / np.maximum(now.var(axis=0)[counts], 1e-12)
    scores = {
        "held_out_explained": round(float(explained.mean()), 4),
        "held_out_score_median": round(float(np.median(healthy)), 4),
        "held_out_score_largest": round(float(healthy.max()), 4),
    }
    notes = [f"{column.name}: {', '.join(column.remarks)}" for column in inputs if column.remarks]
    notes += [f"{name}: text, not used" for name in tables[0].text]
    return model, notes, scores


def _counting(inputs: Sequence[ModelInput], settings: Settings) -> Mask:
    """Which sensors count towards the score."""
    names = [column.name for column in inputs]
    targets = [name.strip() for name in settings.targets.split(",") if name.strip()] or names
    if unknown := [name for name in targets if name not in names]:
        raise DataError(f"--set targets: {', '.join(unknown)} is not among {', '.join(names)}")
    counts = np.array([column.name in targets and column.grade != LOW for column in inputs], dtype=bool)
    if not counts.any():
        reasons = "; ".join(f"{column.name}: {', '.join(column.remarks)}" for column in inputs) or "there are none"
        raise DataError(f"no sensor can be learnt from ({reasons})")
    return counts


def _place(names: list[str], condition: Condition) -> int:
    if condition.sensor not in names:
        raise DataError(f"off-condition {condition}: {condition.sensor!r} is not among {', '.join(names)}")
    return names.index(condition.sensor)


def _usable(table: Table, off: Sequence[tuple[int, Condition]], settings: Settings) -> Mask:
    """Rows that are neither off nor labelled abnormal; off-times are judged by the latest value."""
    usable = np.ones(len(table), dtype=bool) if table.labelled is None else ~table.labelled
    for place, condition in off:
        usable &= ~condition.holds(_forward(table.values[:, place : place + 1])[:, 0])
    return usable


def _forward(values: Doubles, start: float = np.nan) -> Doubles:
    """Missing values take the last one of their column, or ``start`` before the first."""
    rows, columns = values.shape
    last = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(rows)[:, None]), axis=0)
    filled: Doubles = np.where(last >= 0, values[np.maximum(last, 0), np.arange(columns)], start)
    return filled


def _standard(tables: Sequence[Table], usable: Sequence[Mask]) -> tuple[Doubles, Doubles]:
    """Mean and standard deviation of each sensor over usable rows; 0 and 1 where there are none."""
    values = np.concatenate([table.values[mask] for table, mask in zip(tables, usable, strict=True)])
    present = ~np.isnan(values)
    number = np.maximum(present.sum(axis=0), 1)
    centre = np.where(present, values, 0.0).sum(axis=0) / number
    variance = np.where(present, (values - centre) ** 2, 0.0).sum(axis=0) / number
    return _short(centre), _short(np.where(variance > 0, np.sqrt(variance), 1.0))


def _short(values: Doubles) -> Doubles:
    """As float32 holds them: what differs between machines' arithmetic in the last digits gives the same file."""
    return values.astype(np.float32).astype(np.float64)


def _rows(tables: Sequence[Table], usable: Sequence[Mask], centre: Doubles, spread: Doubles, lags: int) -> Rows:
    """Rows with their past, by the rules that the model follows when it serves."""
    parts = [_stretch(table, mask, centre, spread, lags) for table, mask in zip(tables, usable, strict=True)]
    return Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _stretch(table: Table, usable: Mask, centre: Doubles, spread: Doubles, lags: int) -> Rows:
    seen = ~np.isnan(table.values)
    filled = _forward((table.values - centre) / spread, start=0.0)
    rows = len(filled)
    past = [np.concatenate([np.zeros((min(lag, rows), filled.shape[1])), filled])[:rows] for lag in range(1, lags + 1)]
    spoken = np.cumsum(seen, axis=0)
    near = np.ones(rows, dtype=bool)
    for lag in range(lags + 1):  # a row is learnt from where it and its past are usable
        near[lag:] &= usable[: rows - lag]
    near[: min(lags, rows)] = False
    labelled = np.zeros(rows, dtype=bool) if table.labelled is None else table.labelled
    return Rows(np.concatenate([filled, *past], axis=1), seen & (spoken > lags), near, labelled)


class _Moments(NamedTuple):
    """What a regression of one sensor needs: the features' means and centred products."""

    sensor: int
    centre: Doubles
    gram: Doubles


class _Solver:
    """Ridge regressions of every sensor on the others now and on the past of all."""

    def __init__(self, rows: Rows, counts: Mask, settings: Settings) -> None:
        self._rows = rows
        self._counts = counts
        self._lags = settings.lags
        self._folds = settings.folds
        self._strengths = _strengths(settings.ridge)
        self._sensors = rows.heard.shape[1]

    def solve(self, learn: Mask, strengths: Doubles) -> tuple[Doubles, Doubles]:
        """Weights, shape (features, S), and bias, shape (S,), from the rows in ``learn``."""
        return self._solve(list(self._moments(learn)), strengths)

    def held_out(self) -> tuple[Doubles, Doubles]:
        """
        Residuals of rows in blocks that the fit has not seen, shape (T, S), and the strength chosen for each sensor.

        Rows beside a block are left out of its fit as far as lags reach.
        """
        rows = self._rows
        residuals = np.full((len(self._strengths), *rows.heard.shape), np.nan)
        for block in np.array_split(np.flatnonzero(rows.normal), self._folds):
            learn = rows.normal.copy()
            learn[max(block[0] - self._lags, 0) : block[-1] + self._lags + 1] = False
            moments = list(self._moments(learn))
            for place, strength in enumerate(self._strengths):
                weights, bias = self._solve(moments, np.full(self._sensors, strength))
                features = rows.features[block]
                residuals[place, block] = features[:, : self._sensors] - (features @ weights + bias)
        residuals[:, ~rows.heard] = np.nan
        best = np.nansum(residuals**2, axis=1).argmin(axis=0)
        return residuals[best, :, np.arange(self._sensors)].T, self._strengths[best]

    def _solve(self, moments: Sequence[_Moments], strengths: Doubles) -> tuple[Doubles, Doubles]:
        """A ridge that draws a sensor's own last value towards 1, all else towards 0: unless shown, nothing changes."""
        features = self._rows.features.shape[1]
        weights, bias = np.zeros((features, self._sensors)), np.zeros(self._sensors)
        for sensor, centre, gram in moments:
            others = np.flatnonzero(np.arange(features) != sensor)
            prior = (others == self._sensors + sensor).astype(np.float64)
            within = gram[np.ix_(others, others)]
            ridge = within + strengths[sensor] * np.eye(len(others))
            weights[others, sensor] = prior + np.linalg.solve(ridge, gram[others, sensor] - within @ prior)
            bias[sensor] = centre[sensor] - centre @ weights[:, sensor]
        return weights, bias

    def _moments(self, learn: Mask) -> Iterator[_Moments]:
        """Means and centred products for each sensor that counts, over the rows where it was heard."""
        whole = _sums_of(self._rows.features[learn])
        for sensor in np.flatnonzero(self._counts).tolist():
            unheard = learn & ~self._rows.heard[:, sensor]
            yield _centred(sensor, whole.without(_sums_of(self._rows.features[unheard])) if unheard.any() else whole)


class _Sums(NamedTuple):
    """Number, sums and products of rows; those of some rows can be taken out again."""

    number: int
    total: Doubles
    products: Doubles

    def without(self, other: "_Sums") -> "_Sums":
        return _Sums(self.number - other.number, self.total - other.total, self.products - other.products)


def _sums_of(features: Doubles) -> _Sums:
    return _Sums(len(features), features.sum(axis=0), features.T @ features)


def _centred(sensor: int, sums: _Sums) -> _Moments:
    centre = sums.total / max(sums.number, 1)
    return _Moments(sensor, centre, sums.products - sums.number * np.outer(centre, centre))


def _strengths(text: str) -> Doubles:
    try:
        strengths = np.array([float(part) for part in text.split(",")])
    except ValueError as error:
        raise DataError(f"--set ridge={text}: must be numbers with commas between") from error
    if not np.all(strengths > 0):
        raise DataError(f"--set ridge={text}: must be above 0")
    return strengths


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
    values = max(tables, key=len).values
    rows = values[: model.lags + 6].copy()
    sensor = int(np.flatnonzero(model.counts)[0])
    rows[-4, sensor] = np.nan
    rows[-2:, sensor] = model.centre[sensor] + 8 * model.spread[sensor]
    return rows


def _sources(tables: Sequence[Table]) -> str:
    return ", ".join(sorted({table.source for table in tables}))
