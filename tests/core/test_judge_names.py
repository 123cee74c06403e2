"""A detector model and an alarm model of one name: neither knows of the other, come what may."""

from typing import Any

import pytest

from tests.core.judging import ALARM, MODEL, Bench, deployment
from wheeltapper.judge import AlarmOperation, AlarmRecord, DetectorUpdate, JudgeSettings

TWIN: dict[str, Any] = {**ALARM, "alarmModelName": "Motor"}


@pytest.fixture
def bench(tmp_path) -> Bench:
    """Detector model and alarm model ``Motor``, each in alarm for key ``m1``."""
    bench = Bench(tmp_path, JudgeSettings(snapshot_interval_s=1))
    bench.judge.declare_inputs({"Reading": ["id", "t", "n"]})
    bench.judge.deploy(deployment(MODEL))
    bench.judge.deploy(deployment(TWIN))
    bench.put(90.0, n=5)
    return bench


def acknowledge(bench: Bench) -> list[Any]:
    return bench.judge.operate_alarms([AlarmOperation(model="Motor", key="m1", operation="acknowledge", by="ada")])


def states(bench: Bench) -> tuple[str | None, str | None]:
    """Of the detector and of the alarm."""
    detector, alarm = bench.judge.detector("Motor", "m1"), bench.judge.alarm("Motor", "m1")
    return detector and detector.state, alarm and alarm.state


def records(bench: Bench, *, closed: bool = False) -> dict[str, AlarmRecord]:
    """Alarms by the kind of their model; one of each at the most."""
    found = bench.judge.raised_alarms(closed=closed)
    by_kind = {each.kind: each for each in found}
    assert len(by_kind) == len(found)
    assert {each.model for each in found} <= {"Motor"}
    return by_kind


def test_both_kinds_judge_one_message_under_one_name(bench):
    told = {(action.type, action.model, action.key) for action in bench.actions}

    assert states(bench) == ("hot", "ACTIVE")
    assert [each.key for each in bench.judge.detectors("Motor")] == ["m1"]
    assert [each.key for each in bench.judge.alarms("Motor")] == ["m1"]
    assert {(each.kind, each.name) for each in bench.judge.deployments()} == {("detector", "Motor"), ("alarm", "Motor")}
    assert told == {("publish", "Motor", "m1"), ("sns", "Motor", "m1")}
    assert len({action.id for action in bench.actions}) == len(bench.actions)


def test_open_alarms_of_one_name_say_their_kind(bench):
    found = records(bench)

    assert {kind: (each.state, each.severity) for kind, each in found.items()} == {
        "detector": ("hot", None),
        "alarm": ("ACTIVE", 3),
    }


def test_to_operate_an_alarm_leaves_the_detector_of_its_name_alone(bench):
    assert acknowledge(bench) == []

    found = records(bench)
    assert states(bench) == ("hot", "ACKNOWLEDGED")
    assert (found["alarm"].state, found["alarm"].acknowledged_by) == ("ACKNOWLEDGED", "ada")
    assert (found["detector"].state, found["detector"].acknowledged_by) == ("hot", "")


def test_to_take_up_a_detectors_alarm_leaves_the_alarm_of_its_name_alone(bench):
    bench.judge.acknowledge(records(bench)["detector"].id, by="ada")

    found = records(bench)
    assert (found["detector"].acknowledged_by, found["alarm"].acknowledged_by) == ("ada", "")
    assert states(bench) == ("hot", "ACTIVE")


def test_one_that_is_over_leaves_the_other_open(bench):
    bench.clock.advance(61)
    bench.judge.tick()

    assert states(bench) == ("cold", "ACTIVE")
    assert set(records(bench)) == {"alarm"}
    closed = records(bench, closed=True)
    assert (closed["detector"].cleared_ms is None, closed["alarm"].cleared_ms is None) == (False, True)


@pytest.mark.parametrize(
    ("migrate", "after"), [(False, (None, "ACTIVE")), (True, ("hot", "ACTIVE"))], ids=["reset", "migrate"]
)
def test_an_update_of_the_detector_model_leaves_alarms_of_its_name_alone(bench, migrate, after):
    bench.judge.deploy(deployment(MODEL, "2"), migrate=migrate)

    assert states(bench) == after
    assert ("alarm" in records(bench), "detector" in records(bench)) == (True, migrate)


def test_an_update_of_the_alarm_model_leaves_detectors_of_its_name_alone(bench):
    bench.judge.deploy(deployment(TWIN, "2"))

    assert states(bench) == ("hot", None)
    assert set(records(bench)) == {"detector"}


def test_a_withdrawn_model_leaves_the_other_of_its_name_in_force(bench):
    bench.judge.withdraw("Motor", kind="detector")

    assert states(bench) == (None, "ACTIVE")
    assert set(records(bench)) == {"alarm"}
    bench.judge.withdraw("Motor", kind="detector")
    assert [each.kind for each in bench.judge.deployments()] == ["alarm"]
    bench.crash()
    assert states(bench) == (None, "ACTIVE")


def test_detectors_are_updated_and_deleted_without_their_namesakes(bench):
    bench.judge.update_detectors([DetectorUpdate(model="Motor", key="m1", state="cold")])
    updated = states(bench)
    refused = bench.judge.delete_detectors([("Motor", "m1")])

    assert (updated, refused, states(bench)) == (("cold", "ACTIVE"), [], (None, "ACTIVE"))
    assert set(records(bench)) == {"alarm"}
    assert [each.reason for each in bench.judge.delete_detectors([("Motor", "m1")])] == ["not found"]


def test_a_name_of_the_other_kind_only_is_not_found(bench):
    bench.judge.withdraw("Motor", kind="detector")
    bench.judge.deploy(deployment({**MODEL, "detectorModelName": "Pump"}))
    bench.put(90.0)

    updated = bench.judge.update_detectors([DetectorUpdate(model="Motor", key="m1", state="cold")])
    deleted = bench.judge.delete_detectors([("Motor", "m1")])
    operated = bench.judge.operate_alarms([AlarmOperation(model="Pump", key="m1", operation="disable")])

    assert [each.reason for each in (*updated, *deleted, *operated)] == ["not found"] * 3
    assert (bench.judge.detector("Motor", "m1"), bench.judge.alarm("Pump", "m1")) == (None, None)
    assert states(bench) == (None, "ACTIVE")


@pytest.mark.parametrize("sudden", [True, False], ids=["crash", "close"])
@pytest.mark.parametrize("saved", [True, False], ids=["snapshot", "replay"])
def test_both_kinds_stand_after_a_restart_where_they_stood(bench, sudden, saved):
    acknowledge(bench)
    if saved:
        for _ in range(3):
            bench.clock.advance(2)
            bench.judge.tick()
    before = [bench.judge.detectors("Motor"), bench.judge.alarms("Motor"), bench.judge.raised_alarms(closed=True)]

    if not sudden:
        bench.judge.close()
    bench.crash()

    after = [bench.judge.detectors("Motor"), bench.judge.alarms("Motor"), bench.judge.raised_alarms(closed=True)]
    assert after == before
    assert states(bench) == ("hot", "ACKNOWLEDGED")
    assert len({each.kind for each in bench.judge.deployments()}) == 2


def test_snapshots_at_different_positions_are_put_back_by_kind(bench):
    for number in range(6):
        bench.clock.advance(2)
        bench.put(90.0, key=f"m{number}")
        bench.put(60.0, key="m1")
    before = [bench.judge.detectors("Motor"), bench.judge.alarms("Motor"), bench.judge.raised_alarms(closed=True)]

    bench.crash()

    after = [bench.judge.detectors("Motor"), bench.judge.alarms("Motor"), bench.judge.raised_alarms(closed=True)]
    assert after == before


def test_a_replay_withdraws_the_kind_that_was_withdrawn(bench):
    position = bench.judge._core.journal.position
    bench.judge._core.checkpoint = lambda: None  # what a power cut right after the row leaves
    bench.judge.withdraw("Motor", kind="alarm")
    assert bench.judge._core.snapshots.base.position < position + 1

    bench.crash()

    assert states(bench) == ("hot", None)
    assert set(records(bench)) == {"detector"}
