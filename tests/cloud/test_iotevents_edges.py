"""Where operations meet what is not theirs: another kind's models, another list's tokens, a store or a judge that fails."""

import base64
import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from tests.companion import Served, serving
from wheeltapper.clock import SystemClock
from wheeltapper.errors import UnavailableError
from wheeltapper_cloud.settings import CloudSettings, ServerSettings
from wheeltapper_cloud.store import Store

ROLE = "arn:aws:iam::123456789012:role/r"
ATTRIBUTES = {"attributes": [{"jsonPath": "v"}, {"jsonPath": "id"}]}
RULE = {"simpleRule": {"inputProperty": "$input.In.v", "comparisonOperator": "GREATER", "threshold": "70"}}
AWAKE = {"initializationConfiguration": {"disabledOnInitialization": False}}
EVENT = {"eventName": "e", "condition": "$input.In.v > 1"}
DEFINITION = {"initialStateName": "A", "states": [{"stateName": "A", "onInput": {"events": [EVENT]}}]}
STATE = {"stateName": "A", "variables": [], "timers": []}
OPERATIONS = ("acknowledge", "disable", "enable", "reset", "snooze")


@pytest.fixture
def cloud(tmp_path) -> Iterator[Served]:
    """A companion with a detector model and an alarm model, each with the key k."""
    with serving(tmp_path) as served:
        yield filled(served)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The same, for requests that change nothing."""
    with serving(tmp_path_factory.mktemp("kept")) as served:
        yield filled(served)


def filled(cloud: Served) -> Served:
    cloud.call("POST", "/inputs", {"inputName": "In", "inputDefinition": ATTRIBUTES})
    create_detector_model(cloud)
    body = {"alarmModelName": "alarm", "roleArn": ROLE, "key": "id", "alarmRule": RULE, "alarmCapabilities": AWAKE}
    cloud.call("POST", "/alarm-models", body)
    put(cloud, "1", {"id": "k", "v": 80})
    return cloud


def create_detector_model(cloud: Served) -> int:
    body = {"detectorModelName": "model", "roleArn": ROLE, "key": "id", "detectorModelDefinition": DEFINITION}
    return cloud.call("POST", "/detector-models", body)[0]


def put(cloud: Served, message_id: str, payload: dict[str, Any], name: str = "In") -> list[dict[str, Any]]:
    text = base64.b64encode(json.dumps(payload).encode()).decode()
    body = {"messages": [{"messageId": message_id, "inputName": name, "payload": text}]}
    entries: list[dict[str, Any]] = cloud.call("POST", "/inputs/messages", body)[1]["BatchPutMessageErrorEntries"]
    return entries


def token(operation: str, place: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([operation, place]).encode()).decode()


def operate(cloud: Served, operation: str, model: str, key: str) -> list[dict[str, Any]]:
    request: dict[str, Any] = {"requestId": "r", "alarmModelName": model, "keyValue": key}
    if operation == "snooze":
        request["snoozeDuration"] = 60
    answer = cloud.call("POST", f"/alarms/{operation}", {f"{operation}ActionRequests": [request]})[1]
    entries: list[dict[str, Any]] = answer["errorEntries"]
    return entries


def test_detectors_operations_leave_alarms_alone(kept):
    entry = {"messageId": "1", "detectorModelName": "alarm", "keyValue": "k"}
    updated = kept.call("POST", "/detectors", {"detectors": [{**entry, "state": STATE}]})[1]
    deleted = kept.call("POST", "/detectors/delete", {"detectors": [entry]})[1]
    alarms = kept.call("GET", "/alarms/alarm")[1]["alarmSummaries"]

    said = {
        "messageId": "1",
        "errorCode": "ResourceNotFoundException",
        "errorMessage": "DetectorModel of name: alarm not found",
    }
    assert updated["batchUpdateDetectorErrorEntries"] == [said]
    assert deleted["batchDeleteDetectorErrorEntries"] == [said]
    assert [one["keyValue"] for one in alarms] == ["k"]


@pytest.mark.parametrize("number", ["-9223372036854775808", "123456789012345678901234567890", "-0.5", "1e300"])
def test_what_describe_says_of_a_variable_update_takes(cloud, number):
    remember = {"setVariable": {"variableName": "x", "value": "$input.In.v"}}
    state = {"stateName": "A", "onInput": {"events": [{**EVENT, "condition": "true", "actions": [remember]}, EVENT]}}
    definition = {"initialStateName": "A", "states": [state]}
    cloud.call("POST", "/detector-models/model", {"roleArn": ROLE, "detectorModelDefinition": definition})
    put(cloud, "2", {"id": "k", "v": json.loads(number)})
    said = cloud.call("GET", "/detectors/model/keyValues/?keyValue=k")[1]["detector"]["state"]["variables"]
    entry = {"messageId": "1", "detectorModelName": "model", "keyValue": "k2", "state": {**STATE, "variables": said}}
    refused = cloud.call("POST", "/detectors", {"detectors": [entry]})[1]["batchUpdateDetectorErrorEntries"]
    again = cloud.call("GET", "/detectors/model/keyValues/?keyValue=k2")[1]["detector"]["state"]["variables"]

    assert refused == []
    assert said == again != []


@pytest.mark.parametrize("operation", OPERATIONS)
def test_alarms_operations_find_no_detectors(kept, operation):
    (refused,) = operate(kept, operation, "model", "k")
    (absent,) = operate(kept, operation, "alarm", "other")

    assert refused["errorCode"] == absent["errorCode"] == "ResourceNotFoundException"
    assert refused["errorMessage"] == "AlarmModel of name: model not found"
    assert absent["errorMessage"] == "Alarm of model: alarm and key value: other not found"


def test_what_is_not_there_is_named_alike_wherever_it_is_asked_for(kept):
    entry = {"messageId": "1", "detectorModelName": "model", "keyValue": "other"}
    deleted = kept.call("POST", "/detectors/delete", {"detectors": [entry]})[1]["batchDeleteDetectorErrorEntries"]
    described = kept.call("GET", "/detectors/model/keyValues/?keyValue=other")[1]["message"]
    sent = put(kept, "2", {}, "Nope")
    input_described = kept.call("GET", "/inputs/Nope")[1]["message"]

    assert deleted[0]["errorMessage"] == described == "Detector of model: model and key value: other not found"
    assert sent[0]["errorMessage"] == input_described == "Input of name: Nope not found"


@pytest.mark.parametrize("place", ["²", "٣", "-1", "1.5", "9" * 5000, ""])
def test_a_place_in_a_list_that_is_no_number_is_refused(kept, place):
    started = kept.call("POST", "/analysis/detector-models/", {"detectorModelDefinition": DEFINITION})[1]["analysisId"]
    answers = [
        kept.call("GET", f"{uri}?nextToken={token(operation, place)}")
        for operation, uri in (
            ("ListDetectorModelVersions", "/detector-models/model/versions"),
            ("ListAlarmModelVersions", "/alarm-models/alarm/versions"),
            ("GetDetectorModelAnalysisResults", f"/analysis/detector-models/{started}/results"),
        )
    ]

    wanted = (200, None) if place == "" else (400, "InvalidRequestException")
    assert {(status, headers["x-amzn-errortype"]) for status, _, headers in answers} == {wanted}


@pytest.mark.parametrize("version", ["01", "+1", "1.0", "%D9%A1", "2", "0"])
def test_only_the_versions_there_are_can_be_described(kept, version):
    statuses = [
        kept.call("GET", f"{uri}?version={version}")[0] for uri in ("/detector-models/model", "/alarm-models/alarm")
    ]

    assert statuses == [404, 404]


def test_a_deletion_that_the_judge_cannot_keep_has_not_happened(cloud, monkeypatch):
    def full(*_: Any, **__: Any) -> None:
        raise UnavailableError("journal: disk full")

    with monkeypatch.context() as patch:
        patch.setattr(cloud.companion.judge, "withdraw", full)
        refused = cloud.call("DELETE", "/detector-models/model")[0]
    detector = cloud.call("GET", "/detectors/model/keyValues/?keyValue=k")[0]
    deleted = cloud.call("DELETE", "/detector-models/model")[0]

    assert (refused, detector, deleted) == (503, 200, 204)


def test_an_update_that_nobody_can_keep_or_take_back_has_failed(cloud, monkeypatch):
    def full(*_: Any, **__: Any) -> None:
        raise UnavailableError("journal: disk full")

    def also_full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    body = {"roleArn": ROLE, "detectorModelDefinition": DEFINITION}
    with monkeypatch.context() as patch:
        patch.setattr(cloud.companion.judge, "deploy", full)
        patch.setattr(cloud.companion._store, "remove_version", also_full)
        refused = cloud.call("POST", "/detector-models/model", body)[0]
    described = cloud.call("GET", "/detector-models/model")[1]["detectorModel"]["detectorModelConfiguration"]
    detector = cloud.call("GET", "/detectors/model/keyValues/?keyValue=k")[1]["detector"]

    assert (refused, described["status"]) == (503, "FAILED")
    assert (described["detectorModelVersion"], detector["detectorModelVersion"]) == ("2", "1")


def test_a_deletion_that_the_store_cannot_keep_leaves_the_model_in_force(cloud, monkeypatch):
    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(cloud.companion._store, "remove", full)
        refused = cloud.call("DELETE", "/detector-models/model")[0]
    put(cloud, "2", {"id": "again", "v": 2})

    assert refused == 503
    assert cloud.call("GET", "/detectors/model/keyValues/?keyValue=again")[0] == 200


@pytest.mark.parametrize(
    ("state", "migrate", "versions", "keys"),
    [
        pytest.param("A", True, ["2", "1"], ["k"], id="goes on"),
        pytest.param("A", False, ["2", "1"], [], id="resets"),
        pytest.param("Other", True, ["1"], ["k"], id="cannot take over the detectors"),
    ],
)
def test_an_update_that_a_crash_cut_short_ends_as_it_would_have(tmp_path, state, migrate, versions, keys):
    definition = {"initialStateName": state, "states": [{"stateName": state, "onInput": {"events": [EVENT]}}]}
    body = {"detectorModelName": "model", "roleArn": ROLE, "key": "id", "detectorModelDefinition": definition}
    with serving(tmp_path) as cloud:
        filled(cloud)
        cloud.companion._store.add("detectorModel", "model", body, {}, migrate=migrate)
    with serving(tmp_path) as cloud:
        found = cloud.call("GET", "/detector-models/model/versions")[1]["detectorModelVersionSummaries"]
        detectors = cloud.call("GET", "/detectors/model")[1]["detectorSummaries"]

    assert found[0]["status"] == "ACTIVE"
    assert [one["detectorModelVersion"] for one in found] == versions
    assert [(one["keyValue"], one["detectorModelVersion"]) for one in detectors] == [(key, versions[0]) for key in keys]


@pytest.mark.parametrize(("withdrawn", "wanted"), [(True, (404, 404)), (False, (200, 200))])
def test_a_deletion_that_a_crash_cut_short_has_happened_or_has_not(tmp_path, withdrawn, wanted):
    with serving(tmp_path) as cloud:
        filled(cloud)
        cloud.companion._store.begin_removal("detectorModel", "model")
        if withdrawn:
            cloud.companion.judge.withdraw("model")
    for _ in range(2):
        with serving(tmp_path) as cloud:
            model = cloud.call("GET", "/detector-models/model")[0]
            detector = cloud.call("GET", "/detectors/model/keyValues/?keyValue=k")[0]

        assert (model, detector) == wanted


def test_a_model_of_a_deleted_ones_name_begins_anew(cloud):
    cloud.call("DELETE", "/detector-models/model")
    gone = cloud.call("GET", "/detectors/model")[0]
    created = create_detector_model(cloud)
    detectors = cloud.call("GET", "/detectors/model")[1]["detectorSummaries"]
    versions = cloud.call("GET", "/detector-models/model/versions")[1]["detectorModelVersionSummaries"]

    assert (gone, created) == (404, 200)
    assert detectors == []
    assert [one["detectorModelVersion"] for one in versions] == ["1"]


def test_a_model_that_has_failed_stands_in_no_inputs_way(tmp_path):
    broken = {"roleArn": ROLE, "detectorModelDefinition": {"initialStateName": "Z", "states": []}}
    with serving(tmp_path) as cloud:
        cloud.call("POST", "/inputs", {"inputName": "In", "inputDefinition": ATTRIBUTES})
        cloud.companion._store.add("detectorModel", "broken", broken, {})
        identifier = {"iotEventsInputIdentifier": {"inputName": "In"}}
        routed = cloud.call("POST", "/input-routings", {"inputIdentifier": identifier})[1]
        deleted = cloud.call("DELETE", "/inputs/In")[0]

    assert (routed, deleted) == ({"routedResources": []}, 200)


def test_tags_stay_when_the_settings_name_another_account(tmp_path):
    tags = [{"key": "plant", "value": "A"}]
    moved = CloudSettings(server=ServerSettings(account="999999999999", region="eu-central-1"))
    with serving(tmp_path) as cloud:
        cloud.call("POST", "/inputs", {"inputName": "In", "inputDefinition": ATTRIBUTES, "tags": tags})
    with serving(tmp_path, moved) as cloud:
        arn = cloud.call("GET", "/inputs/In")[1]["input"]["inputConfiguration"]["inputArn"]
        kept = cloud.call("GET", f"/tags?resourceArn={arn}")[1]["tags"]

    assert arn == "arn:aws:iotevents:eu-central-1:999999999999:input/In"
    assert kept == tags


def test_tags_that_were_kept_by_arn_are_found(tmp_path):
    database = sqlite3.connect(tmp_path / "account.db")
    database.execute("create table tags (arn text, key text, value text, primary key (arn, key)) without rowid")
    database.execute("insert into tags values ('arn:aws:iotevents:us-east-1:1:alarmModel/a', 'x:y', 'z:1')")
    database.commit()
    database.close()

    for _ in range(2):
        store = Store(tmp_path, SystemClock())
        assert store.tags("alarmModel", "a") == {"x:y": "z:1"}
        store.close()


def test_tags_that_were_kept_by_two_arns_of_one_resource_are_joined(tmp_path):
    database = sqlite3.connect(tmp_path / "account.db")
    database.execute("create table tags (arn text, key text, value text, primary key (arn, key)) without rowid")
    for region, key in (("eu-central-1", "plant"), ("us-east-1", "plant"), ("us-east-1", "line")):
        arn = f"arn:aws:iotevents:{region}:1:input/In"
        database.execute("insert into tags values (?, ?, ?)", (arn, key, "A"))
    database.commit()
    database.close()

    store = Store(tmp_path, SystemClock())

    assert store.tags("input", "In") == {"line": "A", "plant": "A"}
    store.close()


def test_an_answer_without_content_says_nothing_of_one(cloud):
    status, answer, headers = cloud.call("DELETE", "/detector-models/model")

    assert (status, answer) == (204, b"")
    assert not {"content-length", "content-type", "transfer-encoding"} & {name.lower() for name in headers}
