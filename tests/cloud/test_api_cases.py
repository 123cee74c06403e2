"""The conformance cases of the HTTP API, and the published requests and responses."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.companion import Served, serving

ROLE = "arn:aws:iam::123456789012:role/r"
SNS = "arn:aws:sns:us-west-2:080524404744:IoTEventsDetectorSNSEmail"
IN = {"inputName": "In", "inputDefinition": {"attributes": [{"jsonPath": "v"}, {"jsonPath": "id"}]}}
DEFINITION = {
    "initialStateName": "A",
    "states": [{"stateName": "A", "onInput": {"events": [{"eventName": "e", "condition": "$input.In.v > 1"}]}}],
}
RULE = {"simpleRule": {"inputProperty": "$input.In.v", "comparisonOperator": "GREATER", "threshold": "70"}}


def create(cloud: Served, uri: str, body: dict[str, Any]) -> dict[str, Any]:
    status, answer, _ = cloud.call("POST", uri, body)
    assert status in (200, 201), answer
    return answer


def create_model(cloud: Served, name: str = "m", **more: Any) -> None:
    body = {"detectorModelName": name, "roleArn": ROLE, "detectorModelDefinition": DEFINITION}
    create(cloud, "/detector-models", {**body, **more})


def put(cloud: Served, message_id: str, payload: dict[str, Any], input_name: str = "In") -> None:
    text = base64.b64encode(json.dumps(payload).encode()).decode()
    body = {"messages": [{"messageId": message_id, "inputName": input_name, "payload": text}]}
    status, answer, _ = cloud.call("POST", "/inputs/messages", body)
    assert (status, answer) == (200, {"BatchPutMessageErrorEntries": []})


def contains(wanted: Any, found: Any) -> bool:
    """Whether what is wanted is in what was found, member by member."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(name in found and contains(wanted[name], found[name]) for name in wanted)
    if isinstance(wanted, list):
        return isinstance(found, list) and len(wanted) == len(found) and all(map(contains, wanted, found))
    return bool(wanted == found)


def prepare(case_id: str, cloud: Served) -> None:
    """What must be there before a case's exchange."""
    if case_id in ("P04", "P07", "P10", "P11", "P13", "P14", "P16", "P17"):
        create(cloud, "/inputs", IN)
    if case_id in ("P10", "P11", "P14"):
        create_model(cloud, key="id")
    if case_id in ("P10", "P14"):
        put(cloud, "before", {"id": "k", "v": 2})
    if case_id == "P16":
        for number in range(50):
            create_model(cloud, f"m{number}")
    if case_id == "P17":
        body = {"alarmModelName": "am", "roleArn": ROLE, "key": "id", "severity": 1, "alarmRule": RULE}
        create(cloud, "/alarm-models", body)


def request_of(case: dict[str, Any], shared: Path) -> tuple[str, str, Any]:
    request = case["request"]
    body = request.get("body")
    if case["id"] == "P16":
        body = {"detectorModelName": "m50", "roleArn": ROLE, "detectorModelDefinition": DEFINITION}
    definition = body.get("detectorModelDefinition") if body else None
    if isinstance(definition, str):
        found = json.loads((shared / "examples/detector-models" / Path(definition).name).read_text())
        body["detectorModelDefinition"] = found.get("detectorModelDefinition", found)
    return request["method"], request["uri"], body


def check(wanted: dict[str, Any], status: int, answer: Any, headers: Any) -> None:
    assert status == wanted["status"], answer
    assert "errorType" not in wanted or headers["x-amzn-errortype"] == wanted["errorType"]
    assert "body" not in wanted or answer == wanted["body"]
    assert "bodyHas" not in wanted or contains(wanted["bodyHas"], answer), answer
    assert all(name in answer for name in wanted.get("bodyFields", []))


def test_every_api_case_is_answered_as_the_case_says(shared, tmp_path):
    lines = (shared / "conformance/iot-events/cases.jsonl").read_text().splitlines()
    cases = [case for case in map(json.loads, lines) if case["kind"] == "api"]
    for case in cases:
        with serving(tmp_path / case["id"]) as cloud:
            prepare(case["id"], cloud)
            method, uri, body = request_of(case, shared)
            answer = cloud.call(method, uri, body)
            check(case["expect"], *answer)
            if "unknown" in case["expect"]:
                check(case["expect"]["unknown"], *cloud.call(method, uri, body))
            for then, wanted in case["expect"].get("then", {}).items():
                then_method, then_uri = then.replace("{id}", answer[1].get("analysisId", "")).split()
                assert contains(wanted, cloud.call(then_method, then_uri)[1])
            if case["id"] == "P10":
                assert cloud.call("GET", "/detectors/m/keyValues/?keyValue=k")[0] == 404

    assert cases


def shape_of(value: Any) -> Any:
    """Members and types of a JSON value, values aside."""
    if isinstance(value, dict):
        return {name: shape_of(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape_of(item) for item in value[:1]]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def example(shared: Path, name: str) -> Any:
    """A published example; some carry comments."""
    text = (shared / "examples/detector-models" / name).read_text()
    return json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))


def test_the_pump_model_is_created_fed_described_and_alarmed(shared, tmp_path):
    """Seed 004: a pump that warms up while it runs raises its alarm."""
    exported = example(shared, "repo-iml-detector-model.json")["detectorModel"]
    configuration = exported["detectorModelConfiguration"]
    body = {
        "detectorModelDefinition": exported["detectorModelDefinition"],
        "roleArn": configuration.get("roleArn") or ROLE,
        "detectorModelName": configuration["detectorModelName"],
        "evaluationMethod": configuration["evaluationMethod"],
        "key": configuration["key"],
    }
    model = body["detectorModelName"]
    pump = {"motorType": "pump", "motorID": "p1", **{f"TT{n:02}": 20 for n in range(1, 11)}, "PT01": 1, "FT01": 1}
    with serving(tmp_path) as cloud:
        for name in ("PumpData", "PumpInference", "PumpAction"):
            create(cloud, "/inputs", example(shared, f"normalized-input-IoTIml{name}.json"))
        created = create(cloud, "/detector-models", body)["detectorModelConfiguration"]
        described = cloud.call("GET", f"/detector-models/{model}")[1]["detectorModel"]
        put(cloud, "1", pump, "IoTImlPumpData")
        at_rest = describe(cloud, model, "p1")
        put(cloud, "2", pump, "IoTImlPumpData")
        running = describe(cloud, model, "p1")
        put(cloud, "3", {"motorType": "pump", "motorID": "p1", "prediction": 1}, "IoTImlPumpInference")
        predicted = describe(cloud, model, "p1")
        alarms = cloud.companion.judge.raised_alarms()
        actions = cloud.companion.judge.actions()
        put(cloud, "4", {"motorType": "pump", "motorID": "p1", "service_complete": 1}, "IoTImlPumpAction")
        served = describe(cloud, model, "p1")

    assert created["detectorModelVersion"] == "1"
    assert described["detectorModelDefinition"] == body["detectorModelDefinition"]
    assert set(described["detectorModelConfiguration"]) >= set(configuration) - {"detectorModelDescription"}
    assert at_rest["stateName"] == "motor_off"
    assert running["stateName"] == "motor_on"
    assert {timer["name"] for timer in running["timers"]} == {"motorOperationDuration", "motortemperatureHigh"}
    assert {v["name"]: v["value"] for v in running["variables"]} == {
        "operation_minutes": "0",
        "high_temperature_timer_state": "1",
    }
    assert predicted["stateName"] == "likely_failure_24hrs"
    assert predicted["timers"] == []
    assert [(alarm.model, alarm.key, alarm.state) for alarm in alarms] == [(model, "p1", "likely_failure_24hrs")]
    assert [action.action.target for action in actions if action.action.type == "sns"] == [SNS]
    assert served["stateName"] == "motor_off"


def describe(cloud: Served, model: str, key: str) -> dict[str, Any]:
    """A detector's state."""
    status, answer, _ = cloud.call("GET", f"/detectors/{model}/keyValues/?keyValue={key}")
    assert status == 200, answer
    state: dict[str, Any] = answer["detector"]["state"]
    return state


@pytest.mark.parametrize("name", ["create-input", "create-input-2", "create-detector-model"])
def test_answers_to_create_have_the_published_shape(shared, tmp_path, name):
    published = example(shared, f"dg-commented-example-{name}.json")
    with serving(tmp_path) as cloud:
        made = create(cloud, "/inputs", {**IN, "inputDescription": "text"})
        if "detectorModelConfiguration" in published:
            body = {"detectorModelName": "m", "roleArn": ROLE, "key": "id", "detectorModelDefinition": DEFINITION}
            made = create(cloud, "/detector-models", body)

    assert contains(shape_of(published), shape_of(made))


def test_the_published_batch_update_puts_a_detector_into_the_state_that_describe_gives_back(shared, tmp_path):
    update = example(shared, "dg-examples-hvac-batch-update-detector.json")
    definition = example(shared, "dg-examples-hvac-detector-model-areaDetectorModel.json")
    published = example(shared, "dg-commented-example-describe-detector.json")
    names = ("temperatureInput", "seedTemperatureInput")
    with serving(tmp_path) as cloud:
        for name in names:
            create(cloud, "/inputs", {**IN, "inputName": name})
        create(cloud, "/detector-models", {"roleArn": ROLE, **definition})
        status, answer, _ = cloud.call("POST", "/detectors", update)
        detector = cloud.call("GET", "/detectors/areaDetectorModel/keyValues/?keyValue=Area51")[1]["detector"]

    wanted = update["detectors"][0]["state"]
    assert (status, answer) == (200, {"batchUpdateDetectorErrorEntries": []})
    assert detector["state"]["stateName"] == wanted["stateName"]
    assert {v["name"]: v["value"] for v in detector["state"]["variables"]} == {
        v["name"]: v["value"] for v in wanted["variables"]
    }
    assert set(detector) == set(published["detector"])
