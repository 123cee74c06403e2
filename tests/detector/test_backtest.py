"""Back-testing tells what a model would have done, the same from rows as from columns."""

import os
from typing import Any

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.detector.histories import SNS, histories, models
from wheeltapper.detector.action import Message
from wheeltapper.detector.backtest import Report, Runner, compare, make_runner
from wheeltapper.detector.backtest_columns import ColumnRunner
from wheeltapper.detector.columns import Batch, Column
from wheeltapper.detector.values import UNDEFINED


def _threshold(limit: float, *, key: str | None = "k") -> dict:
    definition = {
        "initialStateName": "ok",
        "states": [
            {
                "stateName": "ok",
                "onInput": {
                    "transitionEvents": [
                        {"eventName": "hot", "condition": f"$input.I.a > {limit}", "nextState": "hot", "actions": [SNS]}
                    ]
                },
            },
            {
                "stateName": "hot",
                "onInput": {
                    "transitionEvents": [
                        {"eventName": "cool", "condition": f"$input.I.a <= {limit}", "nextState": "ok", "actions": []}
                    ]
                },
            },
        ],
    }
    body = {"detectorModelName": "m", "roleArn": "r", "detectorModelDefinition": definition}
    return body if key is None else {**body, "key": key}


def _heartbeat() -> dict:
    beat = {"eventName": "beat", "condition": 'currentInput("I")', "actions": [{"resetTimer": {"timerName": "t"}}]}
    start = {"eventName": "start", "actions": [{"setTimer": {"timerName": "t", "seconds": 60}}]}
    lost = {"eventName": "lost", "condition": 'timeout("t")', "nextState": "off", "actions": [SNS]}
    back = {"eventName": "back", "condition": 'currentInput("I")', "nextState": "on"}
    definition = {
        "initialStateName": "on",
        "states": [
            {
                "stateName": "on",
                "onEnter": {"events": [start]},
                "onInput": {"events": [beat], "transitionEvents": [lost]},
            },
            {"stateName": "off", "onInput": {"transitionEvents": [back]}},
        ],
    }
    return {"detectorModelName": "m", "roleArn": "r", "key": "k", "detectorModelDefinition": definition}


def _batch(rows: list[tuple[int, dict[str, Any]]]) -> Batch:
    names = dict.fromkeys(name for _, payload in rows for name in payload)
    columns = {(name,): _column([payload.get(name, UNDEFINED) for _, payload in rows]) for name in names}
    return Batch("I", np.asarray([time_ms for time_ms, _ in rows], dtype=np.int64), columns)


def _column(cells: list[Any]) -> Column:
    """The kind of column that a file's reader would make of these values; UNDEFINED and None are missing."""
    missing = np.asarray([cell is UNDEFINED or cell is None for cell in cells], dtype=bool)
    kinds = {type(cell) for cell, absent in zip(cells, missing.tolist(), strict=True) if not absent}
    mask = missing if missing.any() else None
    if kinds == {str}:
        places: dict[str, int] = {}
        codes = [
            -1 if absent else places.setdefault(cell, len(places)) for cell, absent in zip(cells, missing, strict=True)
        ]
        return Column("text", np.asarray(codes, dtype=np.int32), mask, tuple(places))
    for kind, name, dtype in ((int, "integer", np.int64), (float, "decimal", np.float64), (bool, "boolean", np.bool_)):
        if kinds == {kind}:
            filled = [kind() if absent else cell for cell, absent in zip(cells, missing, strict=True)]
            return Column(name, np.asarray(filled, dtype=dtype), mask)  # type: ignore[arg-type]
    data = np.empty(len(cells), dtype=object)
    data[:] = [UNDEFINED if absent else cell for cell, absent in zip(cells, missing, strict=True)]
    return Column("object", data, mask)


def _by_rows(body: dict, rows: list[tuple[int, dict[str, Any]]]) -> Report:
    runner = Runner(body)
    runner.feed(Message("I", payload, "", time_ms) for time_ms, payload in rows)
    return runner.finish()


def _by_columns(body: dict, rows: list[tuple[int, dict[str, Any]]], size: int = 1_000_000) -> Report:
    runner = ColumnRunner(body)
    for start in range(0, len(rows), size):
        runner.feed_columns(_batch(rows[start : start + size]))
    return runner.finish()


def _plain(report: Report) -> dict:
    told = msgspec.to_builtins(report)
    told["keys"] = dict(sorted(told["keys"].items()))
    return told


def test_alarms_and_states_are_told_per_key():
    rows = [(t * 1000, {"k": "a", "a": 90 if 10 <= t < 20 else 10}) for t in range(31)]

    report = _by_rows(_threshold(50), rows)

    history = report.keys["a"]
    assert [(alarm.time_ms, alarm.name) for alarm in history.alarms] == [(10_000, "hot in ok")]
    assert history.seconds == {"ok": 20.0, "hot": 10.0}
    assert history.state == "ok"


def test_timers_run_in_event_time_for_each_machine_alone():
    late_block = [(t * 1000, {"k": "late", "a": 1}) for t in range(0, 300, 30)]
    other = [(t * 1000, {"k": "other", "a": 1}) for t in (0, 200, 400)]

    report = _by_rows(_heartbeat(), other + late_block)

    assert [change.time_ms for change in report.keys["late"].changes if change.state == "off"] == [330_000]
    assert [change.time_ms for change in report.keys["other"].changes if change.state == "off"] == [60_000, 260_000]


def test_messages_without_a_key_and_late_ones_are_counted():
    rows = [(2_000, {"k": "a", "a": 1}), (1_000, {"k": "a", "a": 1}), (3_000, {"a": 1}), (3_000, {"k": "a b", "a": 1})]

    report = _by_columns(_threshold(50), rows)

    assert (report.messages, report.keyless, report.late) == (4, 2, 1)


def test_a_new_version_gains_loses_and_moves_alarms():
    rows = [(t * 1000, {"k": "a", "a": t if t < 100 else 0}) for t in range(200)]
    rows += [((1000 + t) * 1000, {"k": "a", "a": 70}) for t in range(5)]

    [difference] = compare(_by_rows(_threshold(60), rows), _by_rows(_threshold(80), rows))

    assert [(moved.old.time_ms, moved.new.time_ms) for moved in difference.moved] == [(61_000, 81_000)]
    assert [alarm.time_ms for alarm in difference.lost] == [1_000_000]
    assert not difference.gained


def test_most_rows_are_never_looked_at_one_by_one():
    rows = [(t * 1000, {"k": f"k{t % 7}", "a": 90 if t % 1000 < 5 else 10}) for t in range(20_000)]
    runner = ColumnRunner(_threshold(50))

    runner.feed_columns(_batch(rows))

    assert runner.passes < 600
    assert _plain(runner.finish()) == _plain(_by_rows(_threshold(50), rows))


def test_a_heartbeat_is_followed_in_columns():
    rows = [(t * 1000 + (70_000 if t > 5_000 else 0), {"k": "a", "a": 1}) for t in range(10_000)]
    runner = ColumnRunner(_heartbeat())

    runner.feed_columns(_batch(rows))

    assert runner.passes < 100
    assert _plain(runner.finish()) == _plain(_by_rows(_heartbeat(), rows))


def test_an_alarm_model_is_back_tested_too():
    rule = {"simpleRule": {"inputProperty": "$input.I.a", "comparisonOperator": "GREATER", "threshold": "50"}}
    start = {"initializationConfiguration": {"disabledOnInitialization": False}}
    body = {"alarmModelName": "m", "roleArn": "r", "key": "k", "alarmRule": rule, "alarmCapabilities": start}
    runner = make_runner(body)

    runner.feed(Message("I", {"k": "a", "a": 90 if 5 <= t < 8 else 1}, "", t * 1000) for t in range(10))

    history = runner.finish().keys["a"]
    assert [alarm.time_ms for alarm in history.alarms] == [5_000]
    assert [change.state for change in history.changes] == ["NORMAL", "ACTIVE", "NORMAL"]


@settings(max_examples=2_000 if os.environ.get("WHEELTAPPER_LONG") else 30, deadline=None)
@given(models(), histories(), st.sampled_from([7, 1000]))
def test_columns_decide_as_rows_do(body: dict, rows: list[tuple[int, dict[str, Any]]], size: int):
    assert _plain(_by_columns(body, rows, size)) == _plain(_by_rows(body, rows))
