"""
What a model said of rows beside what is known of them: by row, by labelled range, and for forecasts by error.

FAR is the share of normal rows that were called anomalous, MAR the share of abnormal rows that were not. Read F1 only
beside them: where most rows are abnormal, "always alarm" scores well.
"""

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltapper.errors import DataError
from wheeltapper_models.data import Table
from wheeltapper_models.forest_score import read_stream
from wheeltapper_models.ranges import ranges_of
from wheeltapper_models.ranking import area_under_curve, average_precision
from wheeltapper_models.score import Scores, read_for, score_table
from wheeltapper_models.session import Session
from wheeltapper_models.train import label, parse_rows

Mask = NDArray[np.bool_]
JOIN_ROWS = 1


class Judging(msgspec.Struct, frozen=True, kw_only=True):
    """Which data to judge by which labels."""

    data: str
    time_column: str = ""
    labels: str = ""
    label_column: str = ""
    rows: str = ""
    unit_column: str = ""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """
    A labelled range: whether it was found, how soon after its start and how long before its end.

    ``lead_share`` is 1 for an alarm at the start, 0 for one at the end. Times are seconds, or rows without a time column.
    """

    first_row: int
    last_row: int
    start: str
    end: str
    found: bool
    delay: float | None = None
    lead: float | None = None
    lead_share: float | None = None
    sensors: dict[str, float] = {}


class Alarmed(msgspec.Struct, frozen=True, kw_only=True):
    """A range of anomalous rows, and the mean share of each sensor in it."""

    first_row: int
    last_row: int
    start: str
    end: str
    highest_score: float
    false: bool
    sensors: dict[str, float]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of an evaluation; shares are in [0, 1], None is what does not apply."""

    model: str
    version: str
    kind: str
    rows: int
    anomalous_rows: int | None = None
    abnormal_rows: int | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    far: float | None = None
    mar: float | None = None
    ranges_labelled: int | None = None
    ranges_found: int | None = None
    ranges_false: int | None = None
    mean_lead_share: float | None = None
    auc: float | None = None
    average_precision: float | None = None
    brier: float | None = None
    rmse: float | None = None
    mae: float | None = None
    persistence_rmse: float | None = None
    persistence_mae: float | None = None
    events: list[Event] = []
    alarms: list[Alarmed] = []


class Judged(msgspec.Struct, frozen=True):
    """Scores beside what is known: ``abnormal`` per answer, or None; ``actual`` the target of a forecast, or None."""

    scores: Scores
    times_ms: NDArray[np.int64] | None
    abnormal: Mask | None
    actual: NDArray[np.float64] | None
    figures: Figures


def score_for_judging(model: Path, judging: Judging) -> Judged:
    """
    Run a model over the data, and lay the labels beside what it says.

    Raises:
        DataError, ModelError: what cannot be read, and why.
    """
    session = Session.load(model, require_card=False)
    table = label(
        read_for(session.card, judging.data, time_column=judging.time_column), judging.labels, judging.label_column
    )
    stream = read_stream(session.card, model)
    scores = score_table(session, table, unit_column=judging.unit_column, stream=stream)
    if judging.rows:
        first, last = parse_rows(judging.rows, len(table))
        scores = scores.since(first, last)
    times = None if table.time_ms is None else table.time_ms[scores.rows]
    abnormal = None if table.labelled is None else table.labelled[scores.rows]
    actual = None
    if session.card.kind == "forecast":
        actual = table.column(session.card.target)[scores.rows]
    if abnormal is None and session.card.kind == "failure":
        abnormal = _fails_within(session.card.horizon, table, judging.unit_column)
        abnormal = None if abnormal is None else abnormal[scores.rows]
    unjudged = Figures(
        model=session.card.name, version=session.card.version, kind=session.card.kind, rows=len(scores.rows)
    )
    return Judged(scores, times, abnormal, actual, unjudged)


def judge(judged: Judged) -> Judged:
    """The same with its figures filled in."""
    figures = judged.figures
    if judged.actual is not None:
        figures = _forecast_figures(figures, judged.scores, judged.actual)
    else:
        if judged.abnormal is not None:
            figures = _row_figures(figures, judged.abnormal, judged.scores)
        figures = _range_figures(figures, judged)
    return msgspec.structs.replace(judged, figures=figures)


def _row_figures(figures: Figures, abnormal: Mask, scores: Scores) -> Figures:
    alarm = scores.anomaly > 0
    hit, false = int((alarm & abnormal).sum()), int((alarm & ~abnormal).sum())
    missed, right = int((~alarm & abnormal).sum()), int((~alarm & ~abnormal).sum())
    score = np.nan_to_num(scores.score.astype(np.float64), nan=0.0)
    return msgspec.structs.replace(
        figures,
        abnormal_rows=hit + missed,
        precision=_share(hit, hit + false),
        recall=_share(hit, hit + missed),
        f1=_share(2 * hit, 2 * hit + false + missed),
        far=_share(false, false + right),
        mar=_share(missed, hit + missed),
        auc=area_under_curve(abnormal, score),
        average_precision=average_precision(abnormal, score),
        brier=float(np.mean((score - abnormal) ** 2)) if figures.kind == "failure" else None,
    )


def _range_figures(figures: Figures, judged: Judged) -> Figures:
    scores, abnormal = judged.scores, judged.abnormal
    alarm = scores.anomaly > 0
    events = [_event(judged, start, stop) for start, stop in ranges_of(abnormal)] if abnormal is not None else []
    alarms = [_alarmed(judged, start, stop) for start, stop in ranges_of(alarm, join=JOIN_ROWS)]
    leads = [event.lead_share for event in events if event.lead_share is not None]
    return msgspec.structs.replace(
        figures,
        anomalous_rows=int(alarm.sum()),
        ranges_labelled=None if abnormal is None else len(events),
        ranges_found=None if abnormal is None else sum(event.found for event in events),
        ranges_false=None if abnormal is None else sum(alarmed.false for alarmed in alarms),
        mean_lead_share=float(np.mean(leads)) if leads else None,
        events=events,
        alarms=alarms,
    )


def _event(judged: Judged, start: int, stop: int) -> Event:
    scores = judged.scores
    hits = np.flatnonzero(scores.anomaly[start:stop]) + start
    event = Event(
        first_row=int(scores.rows[start]),
        last_row=int(scores.rows[stop - 1]),
        start=scores.time[start],
        end=scores.time[stop - 1],
        found=bool(len(hits)),
    )
    if not event.found:
        return event
    first = int(hits[0])
    delay, lead = _between(judged, start, first), _between(judged, first, stop - 1)
    share = lead / (delay + lead) if delay + lead else 1.0
    sensors = _mean_shares(scores, hits)
    return msgspec.structs.replace(event, delay=delay, lead=lead, lead_share=share, sensors=sensors)


def _alarmed(judged: Judged, start: int, stop: int) -> Alarmed:
    scores = judged.scores
    return Alarmed(
        first_row=int(scores.rows[start]),
        last_row=int(scores.rows[stop - 1]),
        start=scores.time[start],
        end=scores.time[stop - 1],
        highest_score=float(scores.score[start:stop].max()),
        false=judged.abnormal is not None and not judged.abnormal[start:stop].any(),
        sensors=_mean_shares(scores, np.arange(start, stop)),
    )


def _mean_shares(scores: Scores, places: NDArray[np.int64]) -> dict[str, float]:
    shares = scores.contributions[places].mean(axis=0, dtype=np.float64)
    order = np.argsort(-shares, kind="stable")
    return {scores.card.sensors[place]: round(float(shares[place]), 5) for place in order if shares[place] > 0}


def _between(judged: Judged, first: int, last: int) -> float:
    if judged.times_ms is None:
        return float(last - first)
    return float(judged.times_ms[last] - judged.times_ms[first]) / 1000.0


def _forecast_figures(figures: Figures, scores: Scores, actual: NDArray[np.float64]) -> Figures:
    before = np.concatenate([[np.nan], actual[:-1]])
    both = ~np.isnan(scores.score) & ~np.isnan(actual) & ~np.isnan(before)
    if not both.any():
        raise DataError(f"{scores.card.target}: no row has a forecast and a value; the data are too short")
    error, still = scores.score[both] - actual[both], before[both] - actual[both]
    return msgspec.structs.replace(
        figures,
        rmse=float(np.sqrt(np.mean(error**2))),
        mae=float(np.mean(np.abs(error))),
        persistence_rmse=float(np.sqrt(np.mean(still**2))),
        persistence_mae=float(np.mean(np.abs(still))),
    )


def _fails_within(horizon: float | None, table: Table, unit_column: str) -> Mask | None:
    """For run-to-failure data: whether a row is at most ``horizon`` (of the time column's units) before its unit's end."""
    if horizon is None or not unit_column or table.time_ms is None:
        return None
    cells = np.array(table.text[unit_column]) if unit_column in table.text else table.column(unit_column)
    _, unit = np.unique(cells, return_inverse=True)
    last = np.full(unit.max() + 1, -(2**62), dtype=np.int64)
    np.maximum.at(last, unit, table.time_ms)
    return np.asarray(last[unit] - table.time_ms <= horizon * 1000.0)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
