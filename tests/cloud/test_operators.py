import json

import pytest

from tests.companion import serving
from tests.core.judging import ALARM, MODEL, deployment
from wheeltapper.cli import main
from wheeltapper.judge import Message


@pytest.fixture
def server(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with serving(tmp_path) as served:
        judge = served.companion.judge
        judge.declare_inputs({"Reading": []})
        judge.deploy(deployment(MODEL))
        judge.deploy(deployment(ALARM))
        judge.put([Message("Reading", b'{"id": "m1", "t": 90, "n": 1}')])
        monkeypatch.setenv("WHEELTAPPER_SERVER", f"http://127.0.0.1:{served.port}")
        yield judge


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_alarms_are_listed_by_severity(server, capsys):
    assert main(["alarms", "--json"]) == 0

    assert [(each["model"], each["state"]) for each in lines(capsys)] == [("Overheat", "ACTIVE"), ("Motor", "hot")]


def test_the_table_shows_why(server, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    assert main(["alarms"]) == 0

    assert "$input.Reading.t > 80" in capsys.readouterr().out


def test_an_alarm_of_an_alarm_model_is_acknowledged_with_name_and_note(server, capsys):
    alarm_id = next(each.id for each in server.raised_alarms() if each.model == "Overheat")

    assert main(["alarms", "ack", alarm_id[-8:], "--note", "on it", "--as", "ada"]) == 0

    assert "Overheat m1: ACKNOWLEDGED, acknowledged by ada" in capsys.readouterr().out
    assert server.alarm("Overheat", "m1").state == "ACKNOWLEDGED"
    assert main(["audit", "--json"]) == 0
    trail = [(each["who"], each["what"], each["note"]) for each in lines(capsys)]
    assert ("ada", "acknowledge", "on it") in trail


def test_an_alarm_of_a_detector_model_is_taken_up_and_stays(server, capsys):
    alarm_id = next(each.id for each in server.raised_alarms() if each.model == "Motor")

    assert main(["alarms", "ack", alarm_id, "--as", "ada", "--json"]) == 0

    assert lines(capsys)[0]["acknowledged_by"] == "ada"
    assert server.detector("Motor", "m1").state == "hot"
    assert main(["alarms", "reset", alarm_id, "--as", "ada"]) == 1
    assert "can be acknowledged" in capsys.readouterr().err


def test_an_alarm_is_shelved_for_a_while(server):
    alarm_id = next(each.id for each in server.raised_alarms() if each.model == "Overheat")

    assert main(["alarms", "snooze", alarm_id, "--for", "8h", "--as", "ada"]) == 0

    view = server.alarm("Overheat", "m1")
    assert (view.state, view.customer_action["snooze_s"]) == ("SNOOZE_DISABLED", 28_800)


def test_who_acts_must_be_said(server, capsys):
    alarm_id = server.raised_alarms()[0].id

    assert main(["alarms", "ack", alarm_id, "--as", ""]) == 1
    assert "who acts" in capsys.readouterr().err


def test_detectors_are_listed_and_shown(server, capsys):
    assert main(["detectors", "list", "--json"]) == 0
    assert [each["name"] for each in lines(capsys)] == ["Motor", "Overheat"]
    assert main(["detectors", "list", "Motor", "--state", "hot", "--json"]) == 0
    assert [each["key"] for each in lines(capsys)] == ["m1"]
    assert main(["detectors", "show", "Motor", "m1"]) == 0
    assert "timer cooling ends" in capsys.readouterr().out
    assert main(["detectors", "show", "Motor", "m9"]) == 1


def test_undelivered_actions_are_seen_and_replayed(server, capsys):
    found = server.actions(["undelivered"])[0]

    assert main(["actions", "list", "--status", "undelivered", "--json"]) == 0
    assert [each["id"] for each in lines(capsys)] == [found.action.id]
    assert main(["actions", "replay", found.action.id, "--as", "ada"]) == 0
    assert "1 actions" in capsys.readouterr().out
    assert main(["actions", "parked"]) == 0
    assert "no actions" in capsys.readouterr().out


def test_a_server_that_is_away_is_one_line(capsys):
    assert main(["alarms", "--server", "http://127.0.0.1:9"]) == 1

    assert "nobody answers" in capsys.readouterr().err
