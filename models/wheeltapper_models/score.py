"""What a model says of every row of a table, in order; rows of different units are judged in one call."""

from collections.abc import Collection, Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltapper.errors import DataError
from wheeltapper_models.card import CLOCK_INPUTS, HOUR, WEEKDAY, Card
from wheeltapper_models.data import Table, read_table
from wheeltapper_models.forest_score import alerts_of, stream_judge
from wheeltapper_models.pace import LARGEST, Pace, pace_of
from wheeltapper_models.resample import NOWHERE, gather, lay
from wheeltapper_models.session import Floats, Session

_BATCH = 4096
Places = slice | NDArray[np.int64]
_DAY_MS = 86_400_000


class Scores(msgspec.Struct, frozen=True):
    """
    One answer per judged row.

    Args:
        rows: each answer's row in the data, 0-based, shape (T,).
        time: its time as it stood in the data; empty strings without a time column.
        score: the anomaly score, probability, or the forecast of the target *at that row*; NaN where there is none.
        anomaly: 0 or 1.
        contributions: shape (T, S).
        alert: 1 where enough anomalies followed one another; None where the kind does not say.
    """

    card: Card
    rows: NDArray[np.int64]
    time: list[str]
    score: Floats
    anomaly: NDArray[np.int64]
    contributions: Floats
    alert: NDArray[np.int64] | None = None

    def since(self, row: int, until: int | None = None) -> "Scores":
        """The answers for rows from ``row`` on, up to ``until``, which is left out."""
        keep = (self.rows >= row) & (self.rows < (np.inf if until is None else until))
        time = [text for text, kept in zip(self.time, keep, strict=True) if kept]
        alert = None if self.alert is None else self.alert[keep]
        columns = (self.score[keep], self.anomaly[keep], self.contributions[keep])
        return Scores(self.card, self.rows[keep], time, *columns, alert)


def read_for(card: Card, path: str, *, time_column: str = "") -> Table:
    """The data a model is to judge, with its columns of categories kept as text."""
    return read_table(
        path, time_column=time_column, text_columns=[item.name for item in card.inputs if item.categories]
    )


def score_table(session: Session, table: Table, *, unit_column: str = "", stream: bytes | None = None) -> Scores:
    """
    Judge every row, or of a recording that is faster than the model was taught every row at the model's pace.

    Args:
        table: rows in time order, with the model's columns.
        unit_column: rows of different units are of different machines; else the column that the model was trained by.
        stream: the state of a forest that is to go on learning as it judges.

    Raises:
        DataError: a column that the model reads is not there, or the recording is slower than the model's pace.
    """
    card = session.card
    units = _units(table, unit_column or _trained_by(card, table))
    rows, places, windows = _at_pace(card, table, units)
    flat = [window for unit in windows for window in unit]
    whole = [np.concatenate(unit) for unit in windows if unit]
    starts = {int(window[0]) for unit in windows for window in unit[1:]}
    if stream:
        score, anomaly, shares = stream_judge(stream, rows, whole, starts)
    else:
        score, anomaly, shares = _judge(session, rows, whole, starts)
    if card.kind == "forecast":
        score, anomaly = _at_target(score, flat), np.zeros_like(anomaly)
    alert = alerts_of(anomaly, flat, int(card.settings.get("run", 1))) if card.kind == "forest" else None
    told = np.argsort(places, kind="stable")
    told = told[places[told] != NOWHERE]
    places = places[told]
    time = [table.time_text[place] for place in places] if table.time_text else [""] * len(places)
    alert = None if alert is None else alert[told]
    return Scores(card, places + table.first_row, time, score[told], anomaly[told], shares[told], alert)


def _at_pace(
    card: Card, table: Table, units: list[NDArray[np.int64]]
) -> tuple[Floats, NDArray[np.int64], list[list[NDArray[np.int64]]]]:
    """
    The rows to judge.

    Returns:
        The rows, the place in the table of the reading that completed each (``NOWHERE``: of none), and each unit's windows
        as places in the rows.
    """
    readings = _encode(card, table)
    pace = pace_of(card)
    if pace is None or table.time_ms is None:
        return readings.astype(np.float32), np.arange(len(table)), [[unit] for unit in units]
    readings = np.where(np.abs(readings) < LARGEST, readings, np.nan)
    as_last = np.array([bool(item.categories) or item.name in CLOCK_INPUTS for item in card.inputs])
    sensors = np.array([item.name not in CLOCK_INPUTS for item in card.inputs])
    rows: list[NDArray[np.float64]] = []
    places: list[NDArray[np.int64]] = []
    windows: list[list[NDArray[np.int64]]] = []
    slow = known = 0
    for unit in units:
        laid = lay(table.time_ms[unit], ~np.isnan(readings[unit][:, sensors]), pace)
        windows.append([window + known for window in laid.stretches()])
        rows.append(gather(readings[unit], laid, pace, as_last=as_last))
        places.append(np.where(laid.places == NOWHERE, NOWHERE, unit[laid.places]))
        slow, known = slow + laid.slow, known + len(laid.places)
    if 2 * slow > len(table):
        raise DataError(_too_slow(card, table, pace))
    return np.concatenate(rows).astype(np.float32), np.concatenate(places), windows


def _too_slow(card: Card, table: Table, pace: Pace) -> str:
    usual = 0.0 if table.time_ms is None else float(np.median(np.diff(table.time_ms))) / 1000
    return (
        f"{table.source}: its rows are usually {usual:g} s apart, and {card.name} judges one every "
        f"{pace.period_ms / 1000:g} s: give it faster rows, or train a model on rows like these"
    )


def _trained_by(card: Card, table: Table) -> str:
    column = str(card.settings.get("unit_column", ""))
    return column if column in table.names or column in table.text else ""


def encode_rows(card: Card, table: Table) -> Floats:
    """
    The rows as the model reads them, float32, shape (T, S); text becomes its category's place, NaN if it is none.

    Raises:
        DataError: a column is missing; lists all that are.
    """
    return _encode(card, table).astype(np.float32)


def _encode(card: Card, table: Table) -> NDArray[np.float64]:
    if missing := [name for name in card.sensors if name not in (*table.names, *table.text, *CLOCK_INPUTS)]:
        raise DataError(
            f"{table.source}: the model {card.name} reads {', '.join(map(repr, missing))}, which is not there"
        )
    columns: list[NDArray[Any]] = []
    for item in card.inputs:
        if item.name in CLOCK_INPUTS:
            columns.append(_clock(item.name, table))
        elif item.categories:
            known = {name: float(place) for place, name in enumerate(item.categories)}
            cells = table.text.get(item.name) or [f"{value:g}" for value in table.column(item.name)]
            columns.append(np.array([known.get(cell.strip(), np.nan) for cell in cells]))
        else:
            columns.append(table.column(item.name))
    return np.stack(columns, axis=1).astype(np.float64)


def json_lines(scores: Scores) -> Iterator[bytes]:
    """One JSON object per answer; the members depend on the model's kind, and what a model cannot say yet is absent."""
    encode = msgspec.json.Encoder().encode
    sensors = scores.card.sensors
    explains = "contributions" in scores.card.outputs
    name = {"forecast": "prediction", "failure": "probability"}.get(scores.card.kind, "score")
    lines = zip(scores.rows.tolist(), scores.time, scores.score.tolist(), scores.anomaly.tolist(), strict=True)
    for place, (row, time, score, anomaly) in enumerate(lines):
        found: dict[str, Any] = {"row": row, "time": time or None}
        if score == score:  # NaN is not
            found[name] = score
        if name == "score" or (name == "probability" and scores.card.limit is not None):
            found["anomaly"] = anomaly
        if scores.alert is not None:
            found["alert"] = int(scores.alert[place])
        if explains:
            found["contributions"] = dict(zip(sensors, scores.contributions[place].tolist(), strict=True))
        yield encode(found)


def _judge(
    session: Session, rows: Floats, units: list[NDArray[np.int64]], starts: Collection[int]
) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Score, yes or no, and contributions of each row; the ``starts`` come after a pause."""
    score = np.full(len(rows), np.nan, dtype=np.float32)
    anomaly = np.zeros(len(rows), dtype=np.int64)
    shares = np.zeros(rows.shape, dtype=np.float32)
    for batch, states in _batches(session, len(rows), units):
        if starts and session.card.state_size:
            batch_places = range(batch.start, batch.stop) if isinstance(batch, slice) else batch.tolist()
            fresh = [place in starts for place in batch_places]
            for part in session.void:
                states[fresh, part] = 0.0
        found = session.step(rows[batch], states)
        states[:] = found.states
        score[batch], anomaly[batch], shares[batch] = found.score, found.anomaly, found.contributions
    return score, anomaly, shares


def _batches(session: Session, rows: int, units: list[NDArray[np.int64]]) -> Iterator[tuple[Places, Floats]]:
    """Places of rows to judge in one call and their states, which the caller overwrites with the next ones."""
    if not session.card.state_size:
        for start in range(0, rows, _BATCH):
            stop = min(start + _BATCH, rows)
            yield slice(start, stop), session.start(stop - start)
        return
    units = sorted(units, key=len, reverse=True)
    states = session.start(len(units))
    if len(units) == 1:
        yield from ((slice(place, place + 1), states) for place in range(rows))
        return
    lengths = np.array([len(unit) for unit in units])
    for turn in range(lengths.max(initial=0)):
        alive = int((lengths > turn).sum())
        yield np.array([unit[turn] for unit in units[:alive]]), states[:alive]


def _units(table: Table, unit_column: str) -> list[NDArray[np.int64]]:
    """The places of each unit's rows."""
    if not unit_column:
        return [np.arange(len(table))]
    cells = np.array(table.text[unit_column]) if unit_column in table.text else table.column(unit_column)
    _, unit = np.unique(cells, return_inverse=True)
    order = np.argsort(unit, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(unit[order])) + 1)


def _at_target(forecast: Floats, units: list[NDArray[np.int64]]) -> Floats:
    """Each forecast of the next value, moved to the row that it speaks of."""
    moved = np.full_like(forecast, np.nan)
    for unit in units:
        moved[unit[1:]] = forecast[unit[:-1]]
    return moved


def _clock(name: str, table: Table) -> NDArray[np.float64]:
    if table.time_ms is None:
        raise DataError(f"{table.source}: the model reads the time of each row; name its column: --time-column")
    times = table.time_ms
    if name == HOUR:
        hours: NDArray[np.float64] = (times % _DAY_MS) / 3_600_000
        return hours
    if name == WEEKDAY:
        return ((times // _DAY_MS + 3) % 7).astype(np.float64)  # 1970-01-01 was a Thursday
    days = times.astype("datetime64[ms]").astype("datetime64[D]")
    first = days.astype("datetime64[Y]").astype("datetime64[D]")
    return np.asarray((days - first).astype(np.float64) + 1)
