"""An alarm is explained from the journal alone."""

import json
from pathlib import Path

import msgspec
import pytest

from wheeltapper.cli import main
from wheeltapper.clock import ManualClock
from wheeltapper.judge import Deployment, Judge, JudgeSettings, Message
from wheeltapper.why import offset_ms

START_MS = 1_700_000_000_000
SNS = {"sns": {"targetArn": "arn:aws:sns:eu-west-1:1:alarms"}}
MODEL = {
    "detectorModelName": "Motor",
    "roleArn": "arn:aws:iam::123456789012:role/r",
    "key": "id",
    "detectorModelDefinition": {
        "initialStateName": "cold",
        "states": [
            {
                "stateName": "cold",
                "onInput": {
                    "events": [
                        {
                            "eventName": "count",
                            "condition": 'currentInput("Reading")',
                            "actions": [{"setVariable": {"variableName": "last", "value": "$input.Reading.t"}}],
                        }
                    ],
                    "transitionEvents": [
                        {
                            "eventName": "heat",
                            "condition": "$input.Reading.t > 80 && $variable.last > 50",
                            "nextState": "hot",
                        }
                    ],
                },
            },
            {
                "stateName": "hot",
                "onEnter": {"events": [{"eventName": "tell", "actions": [SNS]}]},
                "onInput": {
                    "transitionEvents": [
                        {"eventName": "cool", "condition": "$input.Reading.t < 70", "nextState": "cold"}
                    ]
                },
            },
        ],
    },
}


def _raise_alarm(data_dir: Path) -> str:
    clock = ManualClock(START_MS)
    judge = Judge(data_dir, clock, JudgeSettings())
    judge.start()
    try:
        judge.declare_inputs({"Reading": ["id", "t"]})
        body = msgspec.Raw(json.dumps(MODEL).encode())
        judge.deploy(Deployment(name="Motor", version="1", kind="detector", body=body))
        for temperature in (40, 60, 75, 90):
            for key in ("a", "b"):
                payload = {"id": key, "t": temperature if key == "a" else 20}
                judge.put([Message("Reading", json.dumps(payload).encode())])
            clock.advance(5.0)
        [alarm] = judge.raised_alarms()
        return alarm.id
    finally:
        judge.close()


def test_the_raising_pass_is_shown_with_its_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    alarm = _raise_alarm(tmp_path)

    status = main(["detector", "why", "--data-dir", str(tmp_path), alarm])

    shown = capsys.readouterr().out
    assert status == 0
    assert "$input.Reading.t > 80 = true" in shown
    assert "$variable.last = 75" in shown
    assert "cold → hot" in shown
    assert shown.count("journal row") == 1


def test_the_passes_before_are_shown_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    alarm = _raise_alarm(tmp_path)

    main(["detector", "why", "--data-dir", str(tmp_path), "--at", "-11s", "--json", alarm])

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["alarm"] for line in lines] == [False, False, True]
    assert [line["outcome"]["trace"]["message"]["t"] for line in lines] == [60, 75, 90]
    assert lines[-1]["summary"]["finalState"] == "hot"


def test_an_alarm_may_be_named_by_the_end_that_the_list_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    alarm = _raise_alarm(tmp_path)

    assert main(["detector", "why", "--data-dir", str(tmp_path), alarm[-6:]]) == 0
    assert "cold → hot" in capsys.readouterr().out


def test_an_unknown_alarm_is_an_error_that_lists_known_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    alarm = _raise_alarm(tmp_path)

    status = main(["detector", "why", "--data-dir", str(tmp_path), "nonsense"])

    assert status == 1
    assert alarm in capsys.readouterr().err


def test_a_missing_journal_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["detector", "why", "--data-dir", str(tmp_path), "x"]) == 1
    assert "judge.db" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "expected"), [("-10s", 10_000), ("5m", 300_000), ("-1.5h", 5_400_000), ("0", 0)])
def test_offsets_are_read(text: str, expected: int):
    assert offset_ms(text) == expected
