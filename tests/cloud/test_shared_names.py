"""A detector model and an alarm model may share a name, as they may at AWS: every operation means one of them."""

import json
import signal

import pytest

from tests.cloud.test_iotevents_edges import ATTRIBUTES, AWAKE, DEFINITION, EVENT, ROLE, RULE, put
from tests.companion import Served, in_own_process, serving
from wheeltapper.cli import main

FLOW = {**AWAKE, "acknowledgeFlow": {"enabled": True}}
RAISES = {
    **DEFINITION["states"][0],  # type: ignore[dict-item]
    "onEnter": {"events": [{**EVENT, "actions": [{"sns": {"targetArn": "arn:aws:sns:eu-west-1:1:t"}}]}]},
}
TELLING = {**DEFINITION, "states": [RAISES]}


def fill(cloud: Served) -> None:
    """Both models ``m``, both in alarm for the key k."""
    cloud.call("POST", "/inputs", {"inputName": "In", "inputDefinition": ATTRIBUTES})
    detector_model = {"detectorModelName": "m", "roleArn": ROLE, "key": "id", "detectorModelDefinition": TELLING}
    alarm_model = {"alarmModelName": "m", "roleArn": ROLE, "key": "id", "alarmRule": RULE, "alarmCapabilities": FLOW}
    assert cloud.call("POST", "/detector-models", detector_model)[0] == 200
    assert cloud.call("POST", "/alarm-models", alarm_model)[0] == 200
    assert put(cloud, "1", {"id": "k", "v": 80}) == []


def states(cloud: Served) -> tuple[str | None, str | None]:
    """Of the detector and of the alarm."""
    detector = cloud.call("GET", "/detectors/m/keyValues/?keyValue=k")[1].get("detector")
    alarm = cloud.call("GET", "/alarms/m/keyValues/?keyValue=k")[1].get("alarm")
    return detector and detector["state"]["stateName"], alarm and alarm["alarmState"]["stateName"]


def open_alarms(cloud: Served) -> list[tuple[str, str, str]]:
    found = cloud.call("GET", "/wheeltapper/alarms")[1]["alarms"]
    return sorted((each["kind"], each["model"], each["state"]) for each in found)


def acknowledge(cloud: Served) -> list[object]:
    entry = {"requestId": "1", "alarmModelName": "m", "keyValue": "k"}
    answer = cloud.call("POST", "/alarms/acknowledge", {"acknowledgeActionRequests": [entry]})[1]
    entries: list[object] = answer["errorEntries"]
    return entries


def test_both_judge_a_message_and_are_operated_apart(tmp_path):
    with serving(tmp_path) as cloud:
        fill(cloud)
        first = states(cloud), open_alarms(cloud)
        refused = acknowledge(cloud)

        assert first == (("A", "ACTIVE"), [("alarm", "m", "ACTIVE"), ("detector", "m", "A")])
        assert (refused, states(cloud)) == ([], ("A", "ACKNOWLEDGED"))
        taken = {
            each["kind"]: each["acknowledged_ms"] for each in cloud.call("GET", "/wheeltapper/alarms")[1]["alarms"]
        }
        assert (taken["detector"] is None, taken["alarm"] is None) == (True, False)


def test_an_update_and_the_end_of_the_detector_model_leave_the_alarm_alone(tmp_path):
    with serving(tmp_path) as cloud:
        fill(cloud)
        acknowledge(cloud)

        updated = cloud.call("POST", "/detector-models/m", {"roleArn": ROLE, "detectorModelDefinition": TELLING})[0]
        after_update = states(cloud)
        put(cloud, "2", {"id": "k", "v": 90})
        deleted = cloud.call("DELETE", "/detector-models/m")[0]

        assert (updated, after_update) == (200, (None, "ACKNOWLEDGED"))
        assert (deleted, states(cloud)) == (204, (None, "ACKNOWLEDGED"))
        assert open_alarms(cloud) == [("alarm", "m", "ACKNOWLEDGED")]
        assert cloud.call("GET", "/detector-models/m")[0] == 404
        assert cloud.call("GET", "/alarm-models/m")[0] == 200


def test_the_end_of_the_alarm_model_leaves_the_detector_alone(tmp_path):
    with serving(tmp_path) as cloud:
        fill(cloud)

        deleted = cloud.call("DELETE", "/alarm-models/m")[0]

        assert (deleted, states(cloud), open_alarms(cloud)) == (204, ("A", None), [("detector", "m", "A")])


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL], ids=["restart", "kill"])
def test_both_stand_after_a_restart_where_they_stood(tmp_path, ending):
    seen = []
    for first in (True, False):
        with in_own_process(tmp_path, ending) as cloud:
            if first:
                fill(cloud)
                acknowledge(cloud)
            seen.append((states(cloud), open_alarms(cloud)))

    assert seen == [(("A", "ACKNOWLEDGED"), [("alarm", "m", "ACKNOWLEDGED"), ("detector", "m", "A")])] * 2


def test_operators_see_which_is_which(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    with serving(tmp_path) as cloud:
        fill(cloud)
        monkeypatch.setenv("WHEELTAPPER_SERVER", cloud.url)

        assert main(["alarms"]) == 0
        table = capsys.readouterr().out
        assert main(["alarms", "ack", "m/k", "--as", "ada"]) == 1
        refusal = capsys.readouterr().err
        shown = {}
        for kind in ([], ["--kind", "alarm"], ["--kind", "detector"]):
            assert main(["detectors", "show", "m", "k", *kind, "--json"]) == 0
            shown[tuple(kind[1:])] = json.loads(capsys.readouterr().out)["state"]
        assert main(["detectors", "list", "m", "--kind", "alarm", "--json"]) == 0
        listed = json.loads(capsys.readouterr().out)["state"]

    assert "m (alarm)" in table
    assert "m (detector)" in table
    assert "alarm m/k" in refusal
    assert "detector m/k" in refusal
    assert shown == {(): "A", ("alarm",): "ACTIVE", ("detector",): "A"}
    assert listed == "ACTIVE"


@pytest.mark.parametrize(("kind", "status"), [("alarm", "ACKNOWLEDGED"), ("detector", "A")])
def test_operators_take_up_the_alarm_they_name(tmp_path, kind, status):
    with serving(tmp_path) as cloud:
        fill(cloud)
        found = {each["kind"]: each["id"] for each in cloud.call("GET", "/wheeltapper/alarms")[1]["alarms"]}

        answer = cloud.call("POST", f"/wheeltapper/alarms/{found[kind]}/ack", {"by": "ada"})[1]

        assert (answer["kind"], answer["state"], answer["acknowledged_by"]) == (kind, status, "ada")
        taken = {
            each["kind"] for each in cloud.call("GET", "/wheeltapper/alarms")[1]["alarms"] if each["acknowledged_ms"]
        }
        assert taken == {kind}


def test_a_kind_that_is_none_is_refused(tmp_path):
    with serving(tmp_path) as cloud:
        fill(cloud)

        status, answer, _ = cloud.call("GET", "/wheeltapper/detectors/m?kind=input")

        assert (status, answer["message"]) == (400, "kind must be one of detector, alarm")
