"""A detector model and an alarm model of one name, in a shard and on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.core.judging import ALARM, MODEL, Bench, deployment
from tests.detector.bodies import alarm_model, detector_model, event, message, reset_timer, set_timer, state
from wheeltapper.cli import main
from wheeltapper.detector.handle import handle_of
from wheeltapper.detector.runtime import Shard
from wheeltapper.judge import AlarmOperation, DetectorUpdate

DETECTOR = detector_model(
    state(
        "Heard",
        enter=[event("start", None, set_timer("awake", 60))],
        events=[event("beat", "currentInput('In')", reset_timer("awake"))],
        transitions=[event("silent", 'timeout("awake")', to="Silent")],
    ),
    state("Silent"),
)
TWIN = alarm_model(alarmModelName="m")
AM = handle_of("alarm", "m")


@pytest.fixture
def shard() -> Shard:
    """Both, with the key ``k``, which the alarm is ACTIVE for."""
    shard = Shard(track=True)
    shard.load(DETECTOR)
    shard.load(TWIN)
    shard.put(message(v=80), 0.0)
    return shard


def states(shard: Shard) -> tuple[str | None, str | None]:
    """Of the detector and of the alarm."""
    detector, alarm = shard.export("m", "k"), shard.export(AM, "k")
    return detector and detector.state, alarm and alarm.state  # type: ignore[return-value]


def test_both_hear_a_message_and_tell_apart_what_it_did(shard: Shard) -> None:
    outcomes = shard.put(message(id="l", v=80), 1.0)

    assert shard.routing("In") == ["m", AM]
    assert [(each.kind, each.model, each.handle, each.state) for each in outcomes] == [
        ("detector", "m", "m", "Heard"),
        ("alarm", "m", AM, "NORMAL"),
        ("alarm", "m", AM, "ACTIVE"),
    ]
    assert shard.take_touched() == [("m", "k"), (AM, "k"), ("m", "l"), (AM, "l")]


def test_timers_and_snoozes_end_each_for_its_own(shard: Shard) -> None:
    shard.operate_alarm(AM, "k", "snooze", 1.0, snooze_s=30)

    first, second = shard.advance(100.0)

    assert (first.kind, first.state, second.kind, second.state) == ("alarm", "NORMAL", "detector", "Silent")


def test_a_version_an_update_or_an_end_of_one_leaves_the_other(shard: Shard) -> None:
    seen = []
    shard.update_detector("m", "k", "Silent", {}, {}, 1.0)
    seen.append(states(shard))
    shard.operate_alarm(AM, "k", "acknowledge", 2.0)
    seen.append(states(shard))
    shard.load(DETECTOR, "2")
    seen.append(states(shard))
    shard.put(message(v=80), 3.0)
    shard.delete_detector("m", "k")
    seen.append(states(shard))
    shard.unload("m")
    shard.put(message(v=60), 4.0)
    seen.append(states(shard))

    assert seen == [
        ("Silent", "ACTIVE"),
        ("Silent", "ACKNOWLEDGED"),
        (None, "ACKNOWLEDGED"),
        (None, "ACKNOWLEDGED"),
        (None, "NORMAL"),
    ]


def test_a_snapshot_holds_both(shard: Shard) -> None:
    other = Shard()
    other.load(TWIN)
    other.load(DETECTOR)

    other.restore(shard.snapshot())

    assert states(other) == states(shard) == ("Heard", "ACTIVE")


def test_simulate_chooses_between_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {"AWS::IoTEvents::DetectorModel": DETECTOR, "AWS::IoTEvents::AlarmModel": TWIN}
    resources = {
        f"R{place}": {"Type": kind, "Properties": _capitalised(body)}
        for place, (kind, body) in enumerate(kinds.items())
    }
    (tmp_path / "both.json").write_text(json.dumps({"Resources": resources}))
    (tmp_path / "messages.jsonl").write_text(
        '{"inputName": "In", "timestamp": 1000, "payload": {"id": "k", "v": 80}}\n'
    )
    arguments = [str(tmp_path / "both.json"), "--messages", str(tmp_path / "messages.jsonl"), "--json"]

    found = {}
    for name in ("m", AM):
        assert main(["detector", "simulate", *arguments, "--name", name]) == 0
        found[name] = {json.loads(line)["kind"] for line in capsys.readouterr().out.splitlines()}

    assert found == {"m": {"detector"}, AM: {"alarm"}}
    assert main(["detector", "simulate", *arguments]) != 0
    assert f"it holds: m, {AM}" in capsys.readouterr().err


def _capitalised(body: dict[str, Any]) -> dict[str, Any]:
    """Members as CloudFormation writes them."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {name[0].upper() + name[1:]: walk(each) for name, each in value.items() if each is not None}
        return [walk(each) for each in value] if isinstance(value, list) else value

    written: dict[str, Any] = walk(body)
    return written


@pytest.mark.parametrize(
    ("kind", "passes"), [("detector", ["cold", "cold", "hot"]), ("alarm", ["NORMAL", "NORMAL", "ACTIVE"])]
)
def test_why_replays_the_alarm_of_the_kind_that_was_raised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, passes: list[str]
) -> None:
    bench = Bench(tmp_path)
    bench.judge.declare_inputs({"Reading": ["id", "t", "n"]})
    for body in (MODEL, {**ALARM, "alarmModelName": "Motor"}):
        bench.judge.deploy(deployment(body))
    bench.put(60.0)
    bench.judge.operate_alarms([AlarmOperation(model="Motor", key="m1", operation="reset")])
    bench.judge.update_detectors([DetectorUpdate(model="Motor", key="m1", state="cold")])
    bench.put(90.0)
    alarm = next(each.id for each in bench.judge.raised_alarms() if each.kind == kind)
    bench.judge.delete_detectors([("Motor", "m1")])
    bench.judge.close()

    assert main(["detector", "why", "--data-dir", str(tmp_path), "--at", "-1m", "--json", alarm]) == 0

    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {each["outcome"]["kind"] for each in told} == {kind}
    assert [each["outcome"]["state"] for each in told] == passes
