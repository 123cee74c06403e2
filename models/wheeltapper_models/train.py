"""From files and what the user asked to a trained model: select rows and columns, label, resample, cut at gaps, fit."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltapper.errors import DataError, SettingsError
from wheeltapper_models.conditions import parse_condition
from wheeltapper_models.data import Table, read_table
from wheeltapper_models.kinds import Options, Trained, kind_named
from wheeltapper_models.labels import labelled_rows, read_ranges
from wheeltapper_models.pace import GAP, Pace
from wheeltapper_models.resample import resample
from wheeltapper_models.times import read_duration_ms, read_time

HEALTHY = frozenset({"", "0", "normal", "none", "ok", "healthy", "good", "false", "no", "nan", "null"})


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """
    What to learn from which rows.

    Args:
        kind: one of ``kinds.KINDS``.
        data: CSV or Parquet files.
        time_column: else it is found.
        rows: ``A:B``, 0-based, B left out, in each file; either may be empty.
        until: rows before this time.
        labels: a CSV of ``start,end`` of abnormal times.
        label_column: a column that is not 0 where a row is abnormal, or names what is wrong.
        sensors: the columns to learn from; empty for all.
        ignore: columns to leave out.
        rate: resample to this, such as ``PT5M``.
        options: what the kind is told.
    """

    kind: str
    data: list[str]
    time_column: str = ""
    rows: str = ""
    until: str = ""
    labels: str = ""
    label_column: str = ""
    sensors: list[str] = []
    ignore: list[str] = []
    rate: str = ""
    options: Options = Options()


def train(request: Request) -> Trained:
    """
    Read, prepare and fit.

    Raises:
        DataError, SettingsError: what cannot be learnt from or asked for, and why.
    """
    return train_tables(request, [read_table(path, time_column=request.time_column) for path in request.data])


def train_tables(request: Request, tables: Sequence[Table]) -> Trained:
    """Prepare and fit tables that are read already."""
    if request.rate and request.kind == "failure":
        raise SettingsError("--rate: a failure model learns from rows as they are; leave it out")
    prepared = [stretch for table in tables for stretch in prepare(request, table)]
    _same_columns(prepared)
    trained = kind_named(request.kind).fit(prepared, request.options)
    if not request.rate:
        return trained
    step_ms = int(max(_usual_step(_select_rows(request, table)) for table in tables))
    settings = {**trained.card.settings, "rate": request.rate, "step_ms": step_ms}
    return msgspec.structs.replace(trained, card=msgspec.structs.replace(trained.card, settings=settings))


def prepare(request: Request, table: Table) -> list[Table]:
    """The stretches of one file's rows that the request selects, labelled and resampled."""
    table = _select_columns(request, label(table, request.labels, request.label_column))
    table = _select_rows(request, table)
    if request.kind == "failure":
        return [table]
    table = _in_order(table)
    if not request.rate:
        return _stretches(table)
    return resample(table, Pace(read_duration_ms(request.rate), mean=True, usual_ms=int(_usual_step(table))))


def label(table: Table, labels: str, label_column: str) -> Table:
    """The table with what is known of its rows; the label column is no sensor any more."""
    if not labels and not label_column:
        return table
    known = np.zeros(len(table), dtype=bool)
    if labels:
        known |= labelled_rows(table, read_ranges(Path(labels)))
    if label_column:
        known |= _abnormal_cells(table, label_column)
        table = table.without([label_column])
    return table.with_labels(known)


def _abnormal_cells(table: Table, column: str) -> NDArray[np.bool_]:
    """Where a column of numbers is not 0, or one of text names something other than health."""
    if column in table.text:
        return np.array([cell.strip().lower() not in HEALTHY for cell in table.text[column]])
    return np.asarray(np.nan_to_num(table.column(column)) != 0)


def parse_rows(text: str, rows: int) -> tuple[int, int]:
    """
    The start and stop of ``A:B``.

    >>> parse_rows("10:", 100), parse_rows(":400", 300)
    ((10, 100), (0, 300))
    """
    start, colon, stop = text.partition(":")
    try:
        first, last = int(start or 0), int(stop or rows)
    except ValueError:
        first, last, colon = 0, 0, ""
    if not colon or not 0 <= first < last:
        raise DataError(f"--rows {text}: write it as A:B, 0-based, B left out, such as 0:400")
    return first, min(last, rows)


def _select_columns(request: Request, table: Table) -> Table:
    if request.ignore:
        if unknown := [name for name in request.ignore if name not in table.names and name not in table.text]:
            raise DataError(f"{table.source}: --ignore: there is no column {', '.join(map(repr, unknown))}")
        table = table.without(request.ignore)
    if request.sensors:
        needed = [parse_condition(text).sensor for text in request.options.off_conditions]
        needed += [name for name in (request.options.target, request.options.unit_column) if name]
        keep = [*request.sensors, *(name for name in needed if name not in request.sensors)]
        text = {name: cells for name, cells in table.text.items() if name in keep}
        table = replace(table.select([name for name in keep if name not in text]), text=text)
    return table


def _select_rows(request: Request, table: Table) -> Table:
    if request.rows:
        table = table.rows(*parse_rows(request.rows, len(table)))
    if request.until:
        end = read_time(request.until)
        if end is None:
            raise DataError(f"--until {request.until}: is no time that can be read; write it as 2026-01-31T00:00:00")
        if table.time_ms is None:
            raise DataError(f"{table.source}: has no time column for --until")
        table = table.pick(np.flatnonzero(table.time_ms < end))
    if not len(table):
        raise DataError(f"{table.source}: none of its rows is selected")
    return table


def _in_order(table: Table) -> Table:
    if table.time_ms is None or np.all(np.diff(table.time_ms) >= 0):
        return table
    return table.pick(np.argsort(table.time_ms, kind="stable"))


def _usual_step(table: Table) -> float:
    """The usual time between two rows, in milliseconds; 0 where nothing is known of it."""
    if table.time_ms is None or len(table) < 3:
        return 0.0
    return max(float(np.median(np.diff(np.sort(table.time_ms)))), 0.0)


def _stretches(table: Table) -> list[Table]:
    """The table cut where time jumps by more than GAP usual steps."""
    usual = _usual_step(table)
    if table.time_ms is None or usual <= 0:
        return [table]
    edges = [0, *(np.flatnonzero(np.diff(table.time_ms) > GAP * usual) + 1).tolist(), len(table)]
    return [table.rows(start, stop) for start, stop in pairwise(edges)]


def _same_columns(tables: Sequence[Table]) -> None:
    first = tables[0]
    for table in tables:
        if table.names != first.names:
            raise DataError(
                f"{table.source}: its columns {', '.join(table.names)} are not those of {first.source}: "
                f"{', '.join(first.names)}; choose common ones with --sensors"
            )
