"""What the operations answer, over HTTP, beyond the conformance cases."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.companion import Served, serving
from wheeltapper.clock import SystemClock
from wheeltapper.errors import SettingsError
from wheeltapper.judge import JudgeSettings
from wheeltapper_cloud import evaluations
from wheeltapper_cloud.settings import CloudSettings, InputSettings, LimitSettings, ServerSettings

ROLE = "arn:aws:iam::123456789012:role/r"
ATTRIBUTES = {"attributes": [{"jsonPath": "v"}, {"jsonPath": "id"}]}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A companion that holds nothing, for requests that change nothing."""
    with serving(tmp_path_factory.mktemp("empty")) as cloud:
        yield cloud


def definition(name: str = "In", state: str = "A") -> dict[str, Any]:
    count = {"setVariable": {"variableName": "last", "value": f"$input.{name}.v"}}
    event = {"eventName": "e", "condition": f"$input.{name}.v > 1", "actions": [count]}
    other = {"stateName": "B"}
    return {"initialStateName": state, "states": [{"stateName": state, "onInput": {"events": [event]}}, other]}


def create_input(cloud: Served, name: str = "In") -> None:
    assert cloud.call("POST", "/inputs", {"inputName": name, "inputDefinition": ATTRIBUTES})[0] == 201


def create_model(cloud: Served, name: str = "m", **more: Any) -> tuple[int, Any, Any]:
    body = {"detectorModelName": name, "roleArn": ROLE, "key": "id", "detectorModelDefinition": definition()}
    return cloud.call("POST", "/detector-models", {**body, **more})


def message(number: int, payload: Any, name: str = "In", **more: Any) -> dict[str, Any]:
    text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return {"messageId": str(number), "inputName": name, "payload": base64.b64encode(text).decode(), **more}


def put(cloud: Served, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    status, answer, _ = cloud.call("POST", "/inputs/messages", {"messages": list(messages)})
    assert status == 200, answer
    entries: list[dict[str, Any]] = answer["BatchPutMessageErrorEntries"]
    return entries


def pages(cloud: Served, uri: str, member: str) -> list[list[Any]]:
    """Every page of a list, in order."""
    found, token = [], ""
    while True:
        answer = cloud.call("GET", f"{uri}{'&' if '?' in uri else '?'}maxResults=2{token}")[1]
        found.append(answer[member])
        if "nextToken" not in answer:
            return found
        token = f"&nextToken={answer['nextToken']}"


def test_lists_go_on_where_the_token_says(tmp_path):
    with serving(tmp_path) as cloud:
        for number in range(5):
            create_input(cloud, f"In{number}")
        create_input(cloud)
        for number in range(3):
            create_model(cloud, f"m{number}")
        put(cloud, *(message(number, {"id": f"k{number}", "v": 2}) for number in range(5)))
        inputs = pages(cloud, "/inputs", "inputSummaries")
        models = pages(cloud, "/detector-models", "detectorModelSummaries")
        detectors = pages(cloud, "/detectors/m0?stateName=A", "detectorSummaries")

    assert [[one["inputName"] for one in page] for page in inputs] == [["In", "In0"], ["In1", "In2"], ["In3", "In4"]]
    assert [len(page) for page in models] == [2, 1]
    assert [[one["keyValue"] for one in page] for page in detectors] == [["k0", "k1"], ["k2", "k3"], ["k4"]]


def test_a_singletons_list_ends_after_its_one_detector(tmp_path):
    with serving(tmp_path) as cloud:
        create_input(cloud)
        body = {"detectorModelName": "m", "roleArn": ROLE, "detectorModelDefinition": definition()}
        cloud.call("POST", "/detector-models", body)
        put(cloud, message(1, {"v": 2}))
        found = pages(cloud, "/detectors/m", "detectorSummaries")
        described = cloud.call("GET", "/detectors/m/keyValues/")[1]["detector"]

    assert [len(page) for page in found] == [1]
    assert "keyValue" not in described


def test_an_empty_token_asks_for_the_beginning(tmp_path):
    with serving(tmp_path) as cloud:
        create_input(cloud)
        body = {"detectorModelName": "m", "roleArn": ROLE, "detectorModelDefinition": definition()}
        cloud.call("POST", "/detector-models", body)
        put(cloud, message(1, {"v": 2}))
        identifier = {"iotEventsInputIdentifier": {"inputName": "In"}}
        answers = [
            cloud.call("GET", "/inputs?nextToken=")[1]["inputSummaries"],
            cloud.call("GET", "/detector-models?nextToken=")[1]["detectorModelSummaries"],
            cloud.call("GET", "/detector-models/m/versions?nextToken=")[1]["detectorModelVersionSummaries"],
            cloud.call("GET", "/detectors/m?nextToken=")[1]["detectorSummaries"],
            cloud.call("POST", "/input-routings", {"inputIdentifier": identifier, "nextToken": ""})[1][
                "routedResources"
            ],
        ]

    assert [len(answer) for answer in answers] == [1] * 5


@pytest.mark.parametrize("token", ["x", "%00", "WyJMaXN0SW5wdXRzIl0=", "WyJMaXN0RGV0ZWN0b3JzIiwgImEiXQ=="])
def test_a_token_of_another_making_is_refused(empty, token):
    status, _, headers = empty.call("GET", f"/inputs?nextToken={token}")

    assert (status, headers["x-amzn-errortype"]) == (400, "InvalidRequestException")


def test_versions_are_listed_latest_first_page_by_page(tmp_path):
    with serving(tmp_path) as cloud:
        create_input(cloud)
        create_model(cloud)
        for _ in range(3):
            cloud.call("POST", "/detector-models/m", {"roleArn": ROLE, "detectorModelDefinition": definition()})
        found = pages(cloud, "/detector-models/m/versions", "detectorModelVersionSummaries")

    assert [[one["detectorModelVersion"] for one in page] for page in found] == [["4", "3"], ["2", "1"]]
    assert [one["status"] for page in found for one in page] == ["ACTIVE", "INACTIVE", "INACTIVE", "INACTIVE"]


def test_all_is_as_it_was_after_a_restart(tmp_path):
    with serving(tmp_path) as cloud:
        create_input(cloud)
        create_model(cloud, tags=[{"key": "plant", "value": "A"}])
        put(cloud, message(1, {"id": "k", "v": 2}))
        before = cloud.call("GET", "/detectors/m/keyValues/?keyValue=k")[1]
    with serving(tmp_path) as cloud:
        after = cloud.call("GET", "/detectors/m/keyValues/?keyValue=k")[1]
        arn = cloud.call("GET", "/detector-models/m")[1]["detectorModel"]["detectorModelConfiguration"][
            "detectorModelArn"
        ]
        tags = cloud.call("GET", f"/tags?resourceArn={arn}")[1]["tags"]
        put(cloud, message(2, {"id": "k", "v": 3}))
        fed = cloud.call("GET", "/detectors/m/keyValues/?keyValue=k")[1]

    assert after == before
    assert tags == [{"key": "plant", "value": "A"}]
    assert fed["detector"]["state"]["variables"] == [{"name": "last", "value": "3"}]


def test_the_judge_catches_up_with_a_store_that_went_ahead(tmp_path):
    with serving(tmp_path) as cloud:
        create_input(cloud)
        create_model(cloud, "kept")
        create_model(cloud, "gone")
        cloud.companion.judge.withdraw("kept")
        cloud.companion._store.remove("detectorModel", "gone")
    with serving(tmp_path) as cloud:
        in_force = [held.name for held in cloud.companion.judge.deployments()]

    assert in_force == ["kept"]


def test_a_stored_model_that_cannot_be_put_in_force_any_more_has_failed_and_stops_nothing_else(tmp_path):
    with serving(tmp_path) as cloud:
        create_input(cloud)
        create_model(cloud, "kept")
        broken = {"roleArn": ROLE, "detectorModelDefinition": {"initialStateName": "Z", "states": []}}
        cloud.companion._store.add("detectorModel", "broken", broken, {})
    with serving(tmp_path) as cloud:
        found = [
            cloud.call("GET", f"/detector-models/{name}")[1]["detectorModel"]["detectorModelConfiguration"]["status"]
            for name in ("kept", "broken")
        ]

    assert found == ["ACTIVE", "FAILED"]


def test_a_model_that_is_deleted_is_out_of_force(tmp_path):
    rule = {"simpleRule": {"inputProperty": "$input.In.v", "comparisonOperator": "GREATER", "threshold": "1"}}
    with serving(tmp_path) as cloud:
        create_input(cloud)
        create_model(cloud)
        cloud.call("POST", "/alarm-models", {"alarmModelName": "a", "roleArn": ROLE, "alarmRule": rule})
        deleted = [cloud.call("DELETE", uri)[0] for uri in ("/detector-models/m", "/alarm-models/a", "/inputs/In")]
        in_force = cloud.companion.judge.deployments()

    assert deleted == [204, 204, 200]
    assert in_force == []


def test_an_update_resets_the_detectors(tmp_path):
    with serving(tmp_path) as cloud:
        create_input(cloud)
        create_model(cloud)
        put(cloud, message(1, {"id": "k", "v": 2}))
        cloud.call("POST", "/detector-models/m", {"roleArn": ROLE, "detectorModelDefinition": definition()})
        status = cloud.call("GET", "/detectors/m/keyValues/?keyValue=k")[0]

    assert status == 404


@pytest.mark.parametrize("how", ["header", "query"])
def test_an_update_that_asks_for_it_keeps_the_detectors(tmp_path, how):
    headers, query = ({"x-wheeltapper-migrate": "true"}, "") if how == "header" else ({}, "?migrate=true")
    body = {"roleArn": ROLE, "detectorModelDefinition": definition()}
    with serving(tmp_path) as cloud:
        create_input(cloud)
        create_model(cloud)
        put(cloud, message(1, {"id": "k", "v": 2}))
        updated = cloud.call("POST", f"/detector-models/m{query}", body, headers)
        detector = cloud.call("GET", "/detectors/m/keyValues/?keyValue=k")[1]["detector"]

    assert updated[1]["detectorModelConfiguration"]["detectorModelVersion"] == "2"
    assert detector["detectorModelVersion"] == "2"
    assert detector["state"]["variables"] == [{"name": "last", "value": "2"}]


def test_a_batch_is_answered_entry_by_entry(tmp_path):
    with serving(tmp_path) as cloud:
        create_input(cloud)
        create_model(cloud)
        entries = put(
            cloud,
            message(1, {"id": "a", "v": 2}),
            message(2, {"v": 2}, "Nope"),
            message(3, b"{"),
            message(4, [1]),
            message(5, {"id": "b", "v": 2}, timestamp={"timeInMillis": 5}),
        )
        keys = [one["keyValue"] for one in cloud.call("GET", "/detectors/m")[1]["detectorSummaries"]]

    assert [(one["messageId"], one["errorCode"]) for one in entries] == [
        ("2", "ResourceNotFoundException"),
        ("3", "InvalidRequestException"),
        ("4", "InvalidRequestException"),
    ]
    assert keys == ["a", "b"]


def test_an_id_twice_in_a_batch_refuses_the_batch(tmp_path):
    with serving(tmp_path) as cloud:
        create_input(cloud)
        status, answer, headers = cloud.call("POST", "/inputs/messages", {"messages": [message(1, {}), message(1, {})]})

    assert (status, headers["x-amzn-errortype"]) == (400, "InvalidRequestException")
    assert "unique" in answer["message"]


def test_a_repeated_message_is_accepted_and_ignored(tmp_path):
    with serving(tmp_path) as cloud:
        create_input(cloud)
        create_model(cloud)
        answers = [put(cloud, message(1, {"id": "k", "v": value})) for value in (2, 3)]
        state = cloud.call("GET", "/detectors/m/keyValues/?keyValue=k")[1]["detector"]["state"]

    assert answers == [[], []]
    assert state["variables"] == [{"name": "last", "value": "2"}]


def test_limits_that_are_set_are_kept(tmp_path):
    limits = LimitSettings(detector_models=1, versions=2, inputs=1, alarm_models=1, batch=2, message_bytes=20)
    rule = {"simpleRule": {"inputProperty": "$input.In.v", "comparisonOperator": "GREATER", "threshold": "1"}}
    update = {"roleArn": ROLE, "detectorModelDefinition": definition()}
    with serving(tmp_path, CloudSettings(limits=limits)) as cloud:
        create_input(cloud)
        second_input = cloud.call("POST", "/inputs", {"inputName": "In2", "inputDefinition": ATTRIBUTES})
        create_model(cloud)
        second_model = create_model(cloud, "m2")
        updates = [cloud.call("POST", "/detector-models/m", update)[0] for _ in range(2)]
        alarm = {"roleArn": ROLE, "alarmRule": rule}
        alarms = [cloud.call("POST", "/alarm-models", {"alarmModelName": f"a{n}", **alarm})[0] for n in range(2)]
        batch = cloud.call("POST", "/inputs/messages", {"messages": [message(n, {}) for n in range(3)]})
        long = put(cloud, message(1, {"id": "k", "v": 2}), message(2, {"id": "k" * 30, "v": 2}))

    assert second_input[0] == 400
    assert (second_model[0], second_model[2]["x-amzn-errortype"]) == (410, "LimitExceededException")
    assert updates == [200, 400]
    assert alarms == [200, 410]
    assert batch[0] == 400
    assert [(one["messageId"], one["errorCode"]) for one in long] == [("2", "InvalidRequestException")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"initialStateName": "Z"}, "Z"),
        ({"states": [*definition()["states"], {"stateName": "A"}]}, "A"),
        (definition("Missing"), "Input 'Missing' that does not exist"),
    ],
)
def test_a_broken_definition_is_refused_with_what_and_where(tmp_path, change, said):
    with serving(tmp_path) as cloud:
        create_input(cloud)
        status, answer, headers = create_model(cloud, detectorModelDefinition={**definition(), **change})
        listed = cloud.call("GET", "/detector-models")[1]["detectorModelSummaries"]

    assert (status, headers["x-amzn-errortype"]) == (400, "InvalidRequestException")
    assert said in answer["message"]
    assert listed == []


def test_a_broken_update_leaves_the_version_in_force(tmp_path):
    body = {"roleArn": ROLE, "detectorModelDefinition": {**definition(), "initialStateName": "Z"}}
    with serving(tmp_path) as cloud:
        create_input(cloud)
        create_model(cloud)
        put(cloud, message(1, {"id": "k", "v": 2}))
        status = cloud.call("POST", "/detector-models/m", body)[0]
        described = cloud.call("GET", "/detectors/m/keyValues/?keyValue=k")
        versions = cloud.call("GET", "/detector-models/m/versions")[1]["detectorModelVersionSummaries"]

    assert (status, described[0], len(versions)) == (400, 200, 1)


@pytest.mark.parametrize("property_text", ["$input.In.", "$input.Missing.v", "1"])
def test_a_broken_alarm_rule_leaves_nothing_behind(tmp_path, property_text):
    rule = {"simpleRule": {"inputProperty": property_text, "comparisonOperator": "GREATER", "threshold": "1"}}
    with serving(tmp_path) as cloud:
        create_input(cloud)
        status = cloud.call("POST", "/alarm-models", {"alarmModelName": "a", "roleArn": ROLE, "alarmRule": rule})[0]
        described = cloud.call("GET", "/alarm-models/a")[0]

    assert (status, described) == (400, 404)


def test_an_asset_property_routes_to_the_alarm_models_that_judge_it(tmp_path):
    text = "$sitewise.assetModel.`pump`.`temperature`.propertyValue.value"
    rule = {"simpleRule": {"inputProperty": text, "comparisonOperator": "GREATER", "threshold": "1"}}
    place = {"assetModelId": "pump", "propertyId": "temperature"}
    identifier = {"iotSiteWiseInputIdentifier": {"iotSiteWiseAssetModelPropertyIdentifier": place}}
    with serving(tmp_path) as cloud:
        cloud.call("POST", "/alarm-models", {"alarmModelName": "a", "roleArn": ROLE, "alarmRule": rule})
        routed = cloud.call("POST", "/input-routings", {"inputIdentifier": identifier})[1]["routedResources"]

    assert [one["name"] for one in routed] == ["a"]


@pytest.mark.parametrize(
    "tags",
    [
        [{"key": "aws:x", "value": ""}],
        [{"key": "a", "value": "1"}] * 2,
        [{"key": f"k{n}", "value": ""} for n in range(51)],
    ],
)
def test_tags_that_aws_would_not_take_are_refused(empty, tags):
    body = {"inputName": "In", "inputDefinition": ATTRIBUTES, "tags": tags}
    status, _, headers = empty.call("POST", "/inputs", body)

    assert (status, headers["x-amzn-errortype"]) == (400, "InvalidRequestException")


@pytest.mark.parametrize(
    "arn", ["arn:aws:iotevents:us-east-1:123456789012:input/Nope", "arn:aws:iotevents:x:1:input/In"]
)
def test_tags_of_what_is_not_there_are_not_found(empty, arn):
    status, _, headers = empty.call("GET", f"/tags?resourceArn={arn}")

    assert (status, headers["x-amzn-errortype"]) == (404, "ResourceNotFoundException")


@pytest.mark.parametrize("value", ["hello", "1 +", "$input.In.v", ""])
def test_a_variable_that_is_no_literal_refuses_its_entry(tmp_path, value):
    state = {"stateName": "A", "variables": [{"name": "v", "value": value}], "timers": []}
    entry = {"messageId": "1", "detectorModelName": "m", "keyValue": "k", "state": state}
    with serving(tmp_path) as cloud:
        create_input(cloud)
        create_model(cloud)
        status, answer, _ = cloud.call("POST", "/detectors", {"detectors": [entry]})

    refused = answer.get("batchUpdateDetectorErrorEntries", [{}])
    assert status == 400 or refused[0]["errorCode"] == "InvalidRequestException"


def test_an_update_names_a_key_exactly_where_the_model_has_one(tmp_path):
    state = {"stateName": "A", "variables": [], "timers": []}
    singleton = {"detectorModelName": "s", "roleArn": ROLE, "detectorModelDefinition": definition()}
    entries = [
        {"messageId": "1", "detectorModelName": "m", "state": state},
        {"messageId": "2", "detectorModelName": "m", "keyValue": "k", "state": state},
        {"messageId": "3", "detectorModelName": "s", "state": state},
        {"messageId": "4", "detectorModelName": "s", "keyValue": "k", "state": state},
        {"messageId": "5", "detectorModelName": "none", "state": state},
    ]
    with serving(tmp_path) as cloud:
        create_input(cloud)
        create_model(cloud)
        cloud.call("POST", "/detector-models", singleton)
        refused = cloud.call("POST", "/detectors", {"detectors": entries})[1]["batchUpdateDetectorErrorEntries"]

    assert [(one["messageId"], one["errorCode"]) for one in refused] == [
        ("1", "InvalidRequestException"),
        ("4", "InvalidRequestException"),
        ("5", "ResourceNotFoundException"),
    ]


def test_more_than_ten_alarm_requests_refuse_the_batch(empty):
    requests = [{"requestId": f"r{n}", "alarmModelName": "a"} for n in range(11)]
    status = empty.call("POST", "/alarms/acknowledge", {"acknowledgeActionRequests": requests})[0]

    assert status == 400


def test_a_full_disk_answers_503_and_loses_nothing_accepted(tmp_path):
    settings = CloudSettings(judge=JudgeSettings(max_page_count=60))
    accepted, refused = 0, ""
    with serving(tmp_path, settings) as cloud:
        create_input(cloud)
        create_model(cloud)
        for number in range(200):
            status, _, headers = cloud.call(
                "POST",
                "/inputs/messages",
                {"messages": [message(number, {"id": f"k{number:03}", "v": 2, "x": "y" * 4000})]},
            )
            if status == 503:
                refused = headers["x-amzn-errortype"]
                break
            accepted += 1
        ready = cloud.call("GET", "/health/ready")[0]
    with serving(tmp_path) as cloud:
        found = [one["keyValue"] for page in pages(cloud, "/detectors/m", "detectorSummaries") for one in page]

    assert (refused, ready) == ("ServiceUnavailableException", 503)
    assert found == [f"k{number:03}" for number in range(accepted)]


def test_what_the_settings_want_is_deployed_once_and_updated_when_it_changes(tmp_path):
    file = tmp_path / "model.json"
    file.write_text(json.dumps({"detectorModelName": "m", "key": "id", "detectorModelDefinition": definition()}))
    settings = CloudSettings(inputs=[InputSettings(name="In", attributes=["v", "id"])], models=[file])
    versions = []
    for change in (False, False, True):
        if change:
            changed = {"detectorModelName": "m", "key": "id", "detectorModelDefinition": definition(state="C")}
            file.write_text(json.dumps(changed))
        with serving(tmp_path / "data", settings) as cloud:
            found = cloud.call("GET", "/detector-models/m")[1]["detectorModel"]["detectorModelConfiguration"]
            versions.append(found["detectorModelVersion"])

    assert versions == ["1", "1", "2"]


def test_templates_are_deployed_with_the_settings_parameters_account_and_region(tmp_path, caplog):
    model = {
        "DetectorModelName": {"Fn::Sub": "m-${Stage}"},
        "RoleArn": {"Fn::Sub": "arn:aws:iam::${AWS::AccountId}:role/${AWS::Region}"},
        "DetectorModelDefinition": definition(),
    }
    template, plain = tmp_path / "template.json", tmp_path / "plain.json"
    resource = {"Type": "AWS::IoTEvents::DetectorModel", "Properties": model}
    template.write_text(json.dumps({"Parameters": {"Stage": {"Type": "String"}}, "Resources": {"M": resource}}))
    plain.write_text(json.dumps({"detectorModelName": "m", "detectorModelDefinition": definition()}))
    settings = CloudSettings(
        inputs=[InputSettings(name="In", attributes=["v", "id"])],
        models=[template, plain],
        parameters={"Stage": "test", "Stige": "test"},
        server=ServerSettings(account="999999999999", region="eu-central-1"),
    )
    with serving(tmp_path / "data", settings) as cloud:
        found = cloud.call("GET", "/detector-models/m-test")[1]["detectorModel"]["detectorModelConfiguration"]

    assert found["roleArn"] == "arn:aws:iam::999999999999:role/eu-central-1"
    assert [record.message for record in caplog.records if "given" in record.message] == [
        "[parameters] Stige: given, but no file of models uses it"
    ]


def test_a_template_that_lacks_a_parameter_is_refused_with_its_remedy(tmp_path):
    template = tmp_path / "template.json"
    resource = {"Type": "AWS::IoTEvents::Input", "Properties": {"InputName": {"Ref": "Name"}}}
    template.write_text(json.dumps({"Parameters": {"Name": {"Type": "String"}}, "Resources": {"In": resource}}))

    says = r"template\.json: .*'Name' has no default; put into \[parameters\] Name="
    with pytest.raises(SettingsError, match=says), serving(tmp_path / "data", CloudSettings(models=[template])):
        pass


def test_no_file_of_logged_evaluations_can_be_read_by_others(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluations, "_BYTES", 1000)
    options = {"roleArn": ROLE, "level": "DEBUG", "enabled": True}
    with serving(tmp_path) as cloud:
        create_input(cloud)
        create_model(cloud)
        cloud.call("PUT", "/logging", {"loggingOptions": options})
        for number in range(5):
            put(cloud, message(number, {"id": "k", "v": number}))
    files = sorted(tmp_path.glob("evaluations.jsonl*"))

    assert len(files) > 1
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_logging_at_debug_writes_each_evaluation_as_aws_does(tmp_path, shared):
    published = json.loads(
        (shared / "examples/detector-models/dg-monitoring-cloudwatch-debug-log-BoilerAlarmDetector.json").read_text()
    )
    options = {"roleArn": ROLE, "level": "DEBUG", "enabled": True, "detectorDebugOptions": [{"detectorModelName": "m"}]}
    with serving(tmp_path) as cloud:
        create_input(cloud)
        create_model(cloud)
        create_model(cloud, "other")
        cloud.call("PUT", "/logging", {"loggingOptions": options})
        put(cloud, message(1, {"id": "k", "v": 2}))
    with serving(tmp_path) as cloud:
        put(cloud, message(2, {"id": "k", "v": 0}))
        cloud.call("PUT", "/logging", {"loggingOptions": {**options, "enabled": False}})
        put(cloud, message(3, {"id": "k", "v": 4}))
    lines = [json.loads(line) for line in (tmp_path / "evaluations.jsonl").read_text().splitlines()]

    assert {line["detectorModelName"] for line in lines} == {"m"}
    assert [line["messageId"] for line in lines] == ["1", "2"]
    assert [line["initialVariables"] for line in lines] == [{}, {"last": 2}]
    assert [[one["result"] for one in line["conditionEvaluationResults"]] for line in lines] == [["True"], ["False"]]
    assert set(published) <= set(lines[-1])


def test_arns_name_the_account_and_region_of_the_settings(tmp_path):
    settings = CloudSettings(server=ServerSettings(account="999999999999", region="eu-central-1"))
    with serving(tmp_path, settings, clock=SystemClock()) as cloud:
        create_input(cloud)
        arn = cloud.call("GET", "/inputs/In")[1]["input"]["inputConfiguration"]["inputArn"]

    assert arn == "arn:aws:iotevents:eu-central-1:999999999999:input/In"


def test_a_migration_that_cannot_map_a_detector_changes_nothing(tmp_path):
    body = {"roleArn": ROLE, "detectorModelDefinition": definition(state="C")}
    with serving(tmp_path) as cloud:
        create_input(cloud)
        create_model(cloud)
        put(cloud, message(1, {"id": "k", "v": 2}))
        status, answer, _ = cloud.call("POST", "/detector-models/m?migrate=true", body)
        detector = cloud.call("GET", "/detectors/m/keyValues/?keyValue=k")[1]["detector"]

    assert (status, detector["detectorModelVersion"]) == (400, "1")
    assert "'A'" in answer["message"]


def test_a_migrated_detector_survives_a_restart(tmp_path):
    body = {"roleArn": ROLE, "detectorModelDefinition": definition()}
    with serving(tmp_path) as cloud:
        create_input(cloud)
        create_model(cloud)
        put(cloud, message(1, {"id": "k", "v": 2}))
        cloud.call("POST", "/detector-models/m?migrate=true", body)
        before = cloud.call("GET", "/detectors/m/keyValues/?keyValue=k")[1]
    with serving(tmp_path) as cloud:
        after = cloud.call("GET", "/detectors/m/keyValues/?keyValue=k")[1]

    assert before["detector"]["detectorModelVersion"] == "2"
    assert after == before
