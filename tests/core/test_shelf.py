"""Operators shelve alarms of detector models or take them out of service: what they are spared, how long, come what may."""

import copy
import json
import sqlite3
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.core.judging import ALARM, MODEL, Bench, deployment
from wheeltapper.errors import UnavailableError
from wheeltapper.judge import (
    AlarmOperation,
    DetectorUpdate,
    JudgeSettings,
    Message,
    Refusal,
    ShelfOperation,
    Shelved,
    shelf,
)

QUARTER_S = 900


def two_alarms() -> dict[str, Any]:
    """``hot`` above 80 and ``burning`` above 100 are alarms; at 80 and below it is ``cold``."""
    body = copy.deepcopy(MODEL)
    tell = {"events": [{"eventName": "tell", "actions": [{"sns": {"targetArn": "arn:aws:sns:eu-west-1:1:alarms"}}]}]}

    def to(state: str, condition: str) -> dict[str, Any]:
        return {"eventName": f"to_{state}", "condition": condition, "nextState": state}

    t = "$input.Reading.t"
    cold, hot, burning = to("cold", f"{t} <= 80"), to("hot", f"{t} > 80 && {t} <= 100"), to("burning", f"{t} > 100")
    body["detectorModelDefinition"]["states"] = [
        {"stateName": "cold", "onInput": {"transitionEvents": [hot, burning]}},
        {"stateName": "hot", "onEnter": tell, "onInput": {"transitionEvents": [cold, burning]}},
        {"stateName": "burning", "onEnter": tell, "onInput": {"transitionEvents": [cold, hot]}},
    ]
    return body


@pytest.fixture
def bench(tmp_path) -> Bench:
    bench = Bench(tmp_path, JudgeSettings(snapshot_interval_s=5))
    bench.judge.declare_inputs({"Reading": ["id", "t", "n"]})
    bench.judge.deploy(deployment(two_alarms()))
    bench.put(20.0)
    return bench


def act(bench: Bench, operation: Any, state: str = "", key: str = "m1", **more: Any) -> Refusal | None:
    return bench.judge.shelve(
        ShelfOperation(model="Motor", key=key, state=state, operation=operation, **{"by": "ada", **more})
    )


def shelve(bench: Bench, state: str = "", **more: Any) -> Refusal | None:
    return act(bench, "shelve", state, **{"for_s": QUARTER_S, **more})


def wait(bench: Bench, seconds: float) -> None:
    bench.clock.advance(seconds)
    bench.judge.tick()


def told(bench: Bench) -> list[str]:
    """The states of the alarms that operators were told over the broker since the last time."""
    states = [json.loads(each.payload)["state"] for each in bench.actions if each.target == "wt/m1/alarm"]
    bench.actions.clear()
    return states


def test_operators_are_spared_a_shelved_alarm_and_the_models_own_actions_go_out(bench):
    assert shelve(bench, note="cleaning") is None

    bench.put(90.0)

    targets = [each.target for each in bench.actions]
    assert "arn:aws:sns:eu-west-1:1:alarms" in targets
    assert "wt/m1/state" in targets
    assert told(bench) == []
    assert bench.state() == "hot"
    (found,) = bench.judge.raised_alarms()
    assert found.shelved is not None
    assert (found.shelved.by, found.shelved.note) == ("ada", "cleaning")
    assert found.shelved.until_ms == bench.clock.time_ms() + 1000 * QUARTER_S
    kept_back = [each for each in bench.judge.actions(["delivered"]) if each.action.target == "wt/m1/alarm"]
    assert [each.detail for each in kept_back] == ["not told: shelved by ada"]


def test_an_alarm_that_comes_and_goes_stays_on_the_shelf(bench):
    bench.put(90.0)
    told(bench)
    shelve(bench, "hot")

    for value in (20.0, 90.0, 20.0, 90.0):
        bench.put(value)

    assert told(bench) == []


def test_another_alarm_of_the_same_machine_rings(bench):
    bench.put(90.0)
    shelve(bench, "hot")
    told(bench)

    bench.put(120.0)
    bench.put(90.0)

    assert told(bench) == ["burning"]
    assert [(each.state, each.shelved is not None) for each in bench.judge.raised_alarms()] == [("hot", True)]


def test_alarms_of_one_millisecond_are_listed_in_the_order_in_which_they_rang(bench):
    for value in (90.0, 20.0) * 6:
        bench.put(value, n=int(value))
    for key in ("m9", "m2", "m5", "m1"):
        bench.put(90.0, key=key)

    closed_or_open = bench.judge.raised_alarms(closed=True)

    assert [each.key for each in closed_or_open if each.cleared_ms is None] == ["m9", "m2", "m5", "m1"]
    rang = [each.sequence for each in closed_or_open if each.cleared_ms is not None]
    assert len(rang) == 6
    assert rang == sorted(rang, reverse=True)


def test_it_comes_back_by_itself_and_is_told_where_it_still_stands(bench):
    shelve(bench)
    bench.put(90.0)
    wait(bench, QUARTER_S - 1)
    before = told(bench)
    wait(bench, 1)

    assert (before, told(bench)) == ([], ["hot"])
    assert [each.shelved for each in bench.judge.raised_alarms()] == [None]
    assert bench.judge.shelf() == []
    wait(bench, QUARTER_S)
    assert told(bench) == []


@pytest.mark.parametrize("ending", ["over", "taken up"])
def test_what_nobody_waits_for_is_not_told_when_it_comes_back(bench, ending):
    shelve(bench)
    bench.put(90.0)
    if ending == "over":
        bench.put(20.0)
    else:
        bench.judge.acknowledge(bench.judge.raised_alarms()[0].id, by="bob")

    wait(bench, QUARTER_S)

    assert told(bench) == []


def test_out_of_service_lasts_until_somebody_ends_it(bench):
    act(bench, "disable", note="overhaul")
    bench.put(90.0)
    wait(bench, 400 * 86_400)
    bench.put(120.0)
    during = told(bench)

    assert act(bench, "enable") is None

    assert (during, told(bench)) == ([], ["burning"])
    trail = [(each.who, each.what, each.note, each.kind, each.until_ms) for each in bench.judge.audit_trail()]
    assert trail == [("ada", "disable", "overhaul", "detector", None), ("ada", "enable", "", "detector", None)]


def test_shelving_again_moves_the_end(bench):
    shelve(bench)
    shelve(bench, "hot", for_s=60, by="bob")
    bench.put(90.0)

    wait(bench, 60)

    assert told(bench) == ["hot"]
    assert bench.judge.shelf() == []


def test_what_is_shelved_can_be_taken_back_state_by_state(bench):
    bench.put(90.0)
    shelve(bench, "hot")
    shelve(bench, "burning")
    told(bench)

    assert act(bench, "unshelve", "hot") is None

    assert told(bench) == ["hot"]
    assert [each.state for each in bench.judge.shelf()] == ["burning"]


@pytest.mark.parametrize(
    ("before", "operation", "said"),
    [
        (None, "unshelve", "unshelve: Motor m1 is not shelved"),
        (None, "enable", "enable: Motor m1 is not out of service or shelved"),
        ("disable", "shelve", "shelve: Motor m1 is out of service; enable puts it back"),
        ("disable", "unshelve", "unshelve: Motor m1 is out of service; enable puts it back"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_no_trace(bench, before, operation, said):
    if before:
        act(bench, before)
    lying, trail = bench.judge.shelf(), bench.judge.audit_trail()

    refused = act(bench, operation, for_s=60 if operation == "shelve" else 0)

    assert refused is not None
    assert (refused.reason, refused.detail) == ("invalid", said)
    assert (bench.judge.shelf(), bench.judge.audit_trail()) == (lying, trail)


@pytest.mark.parametrize("operation", ["shelve", "disable"])
def test_a_detector_that_does_not_exist_cannot_be_shelved(bench, operation):
    refused = act(bench, operation, key="m9", for_s=60)

    assert refused is not None
    assert (refused.reason, refused.detail) == ("not found", "detector Motor m9: does not exist")


def test_the_shelf_outlasts_a_new_version_and_ends_with_the_model(bench):
    act(bench, "disable")
    bench.judge.deploy(deployment(two_alarms(), "2"))
    bench.put(90.0)
    after_update = told(bench)
    bench.judge.withdraw("Motor")

    assert after_update == []
    assert bench.judge.shelf() == []


def test_a_full_disk_shelves_nothing(bench, monkeypatch):
    def full(*_arguments):
        raise UnavailableError("journal judge.db: cannot be written: database or disk is full; free disk space")

    with monkeypatch.context() as patched:
        patched.setattr("wheeltapper.judge.shelf.write", full)
        with pytest.raises(UnavailableError):
            shelve(bench)

    assert (bench.judge.shelf(), bench.judge.audit_trail()) == ([], [])
    bench.put(90.0)
    assert told(bench) == ["hot"]


def test_a_crash_neither_ends_nor_repeats_anything(bench):
    bench.put(90.0)
    bench.judge.tick()
    for action in list(bench.actions):
        bench.judge.settle(action.id, "delivered")
    shelve(bench, "hot")
    bench.put(20.0)
    bench.put(90.0)
    bench.crash()
    shelved = told(bench)
    wait(bench, QUARTER_S)
    back = told(bench)
    bench.crash()

    assert (shelved, back) == ([], ["hot"])
    assert told(bench) == ["hot"]  # the same once more: nobody said that it was delivered
    assert bench.judge.shelf() == []


def test_what_fell_due_while_down_comes_back_at_the_start(bench):
    shelve(bench)
    bench.put(90.0)
    bench.clock.advance(QUARTER_S + 1)

    bench.crash()
    bench.judge.tick()

    assert told(bench) == ["hot"]


@pytest.mark.parametrize("down", [False, True], ids=["while up", "while down"])
def test_what_comes_and_goes_in_the_backlog_after_the_end_is_told(bench, down):
    shelve(bench)
    bench.clock.advance(QUARTER_S)
    if down:
        bench.crash()

    payloads = [json.dumps({"id": "m1", "t": t, "n": 1}).encode() for t in (90, 20)]
    bench.judge.put([Message("Reading", payload) for payload in payloads])

    assert told(bench) == ["hot"]
    assert bench.judge.shelf() == []


def test_a_timer_that_fell_due_while_down_rings_where_the_shelving_is_over(tmp_path):
    body = two_alarms()
    cold = body["detectorModelDefinition"]["states"][0]["onInput"]["transitionEvents"]
    cold[0]["condition"] = 'timeout("warming")'
    cold.append(
        {
            "eventName": "warm",
            "condition": "$input.Reading.t == 50",
            "nextState": "cold",
            "actions": [{"setTimer": {"timerName": "warming", "seconds": 120}}],
        }
    )
    bench = Bench(tmp_path)
    bench.judge.declare_inputs({"Reading": ["id", "t", "n"]})
    bench.judge.deploy(deployment(body))
    bench.put(50.0)
    shelve(bench, for_s=60)
    bench.clock.advance(200)

    bench.crash()

    assert told(bench) == ["hot"]
    assert bench.judge.actions(["delivered"]) == []


def test_a_full_disk_at_the_start_ends_the_shelving_later(bench, monkeypatch):
    shelve(bench)
    bench.put(90.0)
    bench.judge.raised_alarms()
    bench.clock.advance(QUARTER_S)

    def full(*_arguments: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(shelf, "erase", full)
        bench.crash()
        held = told(bench)
    bench.judge.tick()

    assert (held, told(bench)) == ([], ["hot"])


def test_in_event_time_the_shelf_goes_by_the_hosts_clock_and_moves_no_other(tmp_path):
    bench = Bench(tmp_path, JudgeSettings(clock="event")).with_models()
    bench.put(90.0, time_ms=bench.clock.time_ms() - 3_600_000)
    shelve(bench, for_s=30)
    told(bench)

    wait(bench, 31)

    assert told(bench) == ["hot"]
    assert bench.state() == "hot"  # its timer of 60 s runs in the time of an hour ago


@pytest.mark.parametrize("by", ["ada", ""])
def test_an_alarm_models_alarm_says_until_when_and_by_whom_across_a_crash(tmp_path, by):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)
    bench.judge.operate_alarms([AlarmOperation(model="Overheat", key="m1", operation="snooze", snooze_s=60, by=by)])
    until_ms = bench.clock.time_ms() + 60_000

    bench.crash()

    view = bench.judge.alarm("Overheat", "m1")
    assert view is not None
    assert (view.snoozed_until_ms, view.snoozed_by) == (until_ms, by)
    (found,) = [each for each in bench.judge.raised_alarms() if each.kind == "alarm"]
    assert found.shelved is not None
    assert (found.shelved.until_ms, found.shelved.by) == (until_ms, by)
    assert bench.judge.raised_alarms()[-1] == found
    wait(bench, 61)
    view = bench.judge.alarm("Overheat", "m1")
    assert view is not None
    assert (view.state, view.snoozed_until_ms, view.snoozed_by) == ("NORMAL", None, "")
    assert bench.judge.shelf() == []


@pytest.mark.parametrize("step", ["enable", "deploy", "withdraw"])
def test_an_alarm_models_alarm_leaves_the_shelf_with_its_state(tmp_path, step):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)
    bench.judge.operate_alarms([AlarmOperation(model="Overheat", key="m1", operation="disable", by="ada")])
    lying = [(each.kind, each.until_ms) for each in bench.judge.shelf()]
    if step == "enable":
        bench.judge.operate_alarms([AlarmOperation(model="Overheat", key="m1", operation="enable")])
    elif step == "deploy":
        bench.judge.deploy(deployment(ALARM, "2"))
    else:
        bench.judge.withdraw("Overheat", kind="alarm")

    assert lying == [("alarm", None)]
    assert bench.judge.shelf() == []


def test_of_a_batch_only_what_was_done_stays_on_record(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)
    operations: Any = [
        AlarmOperation(model="Overheat", key=key, operation=operation, by="ada")
        for key, operation in (("m1", "enable"), ("m1", "acknowledge"), ("m9", "acknowledge"), ("m1", "acknowledge"))
    ]

    refused = bench.judge.operate_alarms(operations)
    bench.judge.delete_detectors([("Motor", "m9"), ("Motor", "m1")], by="bob")

    assert [each.index for each in refused] == [0, 2, 3]
    trail = [(each.who, each.what, each.key) for each in bench.judge.audit_trail()]
    assert trail == [("ada", "acknowledge", "m1"), ("bob", "delete", "m1")]


STEPS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(["m1", "m2"]), st.sampled_from([10, 90, 120])),
    st.tuples(st.just("wait"), st.integers(1, 90)),
    st.tuples(st.just("crash")),
    st.tuples(st.just("outage"), st.integers(1, 90)),
    st.tuples(
        st.sampled_from(["shelve", "unshelve", "disable", "enable"]),
        st.sampled_from(["m1", "m2"]),
        st.sampled_from(["", "hot", "burning"]),
    ),
    st.tuples(st.sampled_from(["snooze", "disable_alarm", "enable_alarm"]), st.sampled_from(["m1", "m2"])),
    st.tuples(st.just("deploy"), st.sampled_from(["Motor", "Overheat"])),
)


def take(bench: Bench, step: tuple[Any, ...], number: int) -> None:
    match step:
        case ("put", key, value):
            bench.put(float(value), key=key, n=number)
        case ("wait", seconds):
            wait(bench, seconds)
        case ("deploy", "Motor"):
            bench.judge.deploy(deployment(two_alarms(), str(number)))
        case ("deploy", _):
            bench.judge.deploy(deployment(ALARM, str(number)))
        case (operation, key, state):
            act(bench, operation, state, key, for_s=40)
        case (operation, key):
            word: Any = operation.removesuffix("_alarm")
            seconds = 40 if word == "snooze" else None
            bench.judge.operate_alarms(
                [AlarmOperation(model="Overheat", key=key, operation=word, snooze_s=seconds, by="ada")]
            )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, max_size=30))
def test_crashes_at_any_point_change_nothing_on_the_shelf(tmp_path_factory, steps):
    benches = []
    for name in ("steady", "shaken"):
        bench = Bench(tmp_path_factory.mktemp(name), JudgeSettings(snapshot_interval_s=5))
        bench.judge.declare_inputs({"Reading": ["id", "t", "n"]})
        bench.judge.deploy(deployment(two_alarms()))
        bench.judge.deploy(deployment(ALARM))
        benches.append(bench)
    steady, shaken = benches
    heard: dict[str, str] = {}

    for number, step in enumerate(steps, 2):
        if step[0] == "crash":
            shaken.crash()
        elif step[0] == "outage":
            wait(steady, step[1])
            shaken.clock.advance(step[1])
            shaken.crash()
        else:
            take(steady, step, number)
            take(shaken, step, number)
        heard.update((each.id, each.target) for each in shaken.actions)

    def lying(bench: Bench) -> list[Any]:
        names = ("kind", "model", "key", "state", "since_ms", "until_ms", "by")
        return [tuple(getattr(each, name) for name in names) for each in bench.judge.shelf()]

    def opened(bench: Bench) -> list[Any]:
        return [
            (each.kind, each.key, each.state, each.raised_ms, each.shelved is None)
            for each in bench.judge.raised_alarms(closed=True)
        ]

    def viewed(bench: Bench) -> list[Any]:
        # A timer that fell due in an outage fires at the start, and says so.
        return [msgspec.structs.replace(each, updated_ms=0) for each in bench.judge.alarms("Overheat")]

    assert lying(shaken) == lying(steady)
    assert sorted(opened(shaken)) == sorted(opened(steady))
    assert sorted(heard.values()) == sorted({each.id: each.target for each in steady.actions}.values())
    assert viewed(shaken) == viewed(steady)
    assert len(shaken.judge.audit_trail()) == len(steady.judge.audit_trail())
    for bench in benches:
        bench.judge.close()


@pytest.mark.parametrize("written", [False, True], ids=["before it is written", "after"])
def test_an_action_that_is_settled_twice_counts_once(tmp_path, written):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)
    pending = bench.judge.statistics().actions_pending
    action_id = bench.actions[0].id
    bench.judge.tick()
    bench.judge.settle(action_id, "parked", attempts=10, detail="away")
    if written:
        bench.judge.tick()

    for status in ("delivered", "parked", "pending"):
        bench.judge.settle(action_id, status)  # type: ignore[arg-type]

    bench.judge.tick()
    found = bench.judge.statistics()
    assert (found.actions_pending, found.actions_parked) == (pending - 1, 1)
    (record,) = bench.judge.actions(["parked"])
    assert (record.action.id, record.attempts, record.detail) == (action_id, 10, "away")


def test_every_action_settled_twice_leaves_nothing_pending_and_no_less(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)
    bench.judge.tick()

    for _ in range(2):
        for action in bench.actions:
            bench.judge.settle(action.id, "delivered")
        bench.judge.tick()
    bench.put(20.0, key="m2")

    found = bench.judge.statistics()
    assert found.actions_pending == len(bench.judge.pending_actions()) > 0


def test_no_write_about_one_machine_looks_at_the_others(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)
    bench.judge.raised_alarms()
    connection = bench.judge._core.journal.connection  # type: ignore[union-attr]
    written: list[str] = []
    connection.set_trace_callback(written.append)

    for operation in ("acknowledge", "snooze", "disable", "enable"):
        bench.judge.operate_alarms([AlarmOperation(model="Overheat", key="m1", operation=operation, snooze_s=60)])
        bench.judge.raised_alarms()
    shelve(bench)
    act(bench, "unshelve")
    bench.judge.update_detectors([DetectorUpdate(model="Motor", key="m1", state="cold")])
    bench.judge.raised_alarms()

    connection.set_trace_callback(None)
    changes = [each for each in written if each.startswith(("UPDATE alarm", "DELETE FROM shelf"))]
    plans = [connection.execute(f"EXPLAIN QUERY PLAN {each}").fetchall()[0][-1] for each in changes]
    assert len(plans) > 8
    assert [each for each in plans if "model=? AND key=?" not in each] == []


def as_of_an_earlier_release(bench: Bench) -> None:
    """Leave on disk, with nothing to replay, what a release without a shelf would have left."""
    bench.judge.close()
    bench.crash()
    connection = bench.judge._core.journal.connection  # type: ignore[union-attr]
    for statement in (
        "ALTER TABLE audit DROP COLUMN kind",
        "ALTER TABLE audit DROP COLUMN until_ms",
        "DROP TABLE shelf",
    ):
        connection.execute(statement)


def test_the_database_of_an_earlier_release_is_taken_over(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)
    bench.judge.acknowledge(bench.judge.raised_alarms()[0].id, by="ada", note="on it")
    as_of_an_earlier_release(bench)

    bench.crash()

    (record,) = bench.judge.audit_trail()
    assert (record.who, record.what, record.note) == ("ada", "acknowledge", "on it")
    assert (record.kind, record.until_ms) == ("", None)
    assert shelve(bench) is None
    assert [each.kind for each in bench.judge.audit_trail()] == ["", "detector"]


@pytest.mark.parametrize("crashes", [1, 2])
def test_what_an_earlier_release_holds_as_laid_aside_is_laid_on_the_shelf_ringing_or_not(tmp_path, crashes):
    bench = Bench(tmp_path).with_models()
    for key, t in (("m1", 90.0), ("m2", 20.0), ("m3", 90.0), ("m4", 20.0), ("m5", 90.0)):
        bench.put(t, key)
    began_ms = bench.clock.time_ms()
    for key, operation, by in (
        ("m1", "snooze", ""), ("m2", "snooze", "ada"), ("m3", "disable", "bob"), ("m4", "disable", ""),
        ("m5", "snooze", "ada"), ("m5", "enable", "ada"),
    ):  # fmt: skip
        bench.judge.operate_alarms(
            [AlarmOperation(model="Overheat", key=key, operation=operation, snooze_s=60, note=operation, by=by)]
        )
    as_of_an_earlier_release(bench)

    for _ in range(crashes):
        bench.crash()

    end_ms = began_ms + 60_000
    found = {each.key: (each.since_ms, each.until_ms, each.by, each.note) for each in bench.judge.shelf()}
    assert found == {
        "m1": (began_ms, end_ms, "", "snooze"),
        "m2": (began_ms, end_ms, "ada", "snooze"),
        "m3": (began_ms, None, "bob", "disable"),
        "m4": (began_ms, None, "", "disable"),
    }
    wait(bench, 61)
    bench.judge.operate_alarms([AlarmOperation(model="Overheat", key="m3", operation="enable")])
    assert [each.key for each in bench.judge.shelf()] == ["m4"]


def test_an_alarm_models_alarm_that_rings_is_told_whatever_the_shelf_says(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(20.0)
    stale = Shelved(kind="alarm", model="Overheat", key="m1", since_ms=0, until_ms=None)
    bench.judge._core.ledger.shelf.put(stale)  # type: ignore[union-attr]

    bench.put(90.0)

    assert "ACTIVE" in told(bench)
