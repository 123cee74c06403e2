"""Requests as the AWS SDKs for JavaScript and Go sent them: signatures hold, and what they ask is understood."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from wheeltapper.clock import ManualClock
from wheeltapper_cloud.signature import SignedRequest, verify
from wheeltapper_cloud.wire import Operation, Operations

OPERATIONS = Operations()
CORPUS = Path(__file__).with_name("corpus") / "sdks.jsonl"
RECORDED: list[dict[str, Any]] = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
KEY, SECRET = "any", b"any"
MOTOR = "arn:aws:iotevents:us-east-1:123456789012:input/Motor"

# What each SDK was called with.
ASKED: dict[str, dict[str, Any]] = {
    "CreateInput": {
        "inputName": "Motor",
        "inputDescription": "ü 電",
        "inputDefinition": {"attributes": [{"jsonPath": "id"}, {"jsonPath": "t"}, {"jsonPath": "`a b`.c"}]},
        "tags": [{"key": "plant/é", "value": "A+B =?&"}, {"key": "x", "value": ""}],
    },
    "ListInputs": {"maxResults": 1},
    "ListTagsForResource": {"resourceArn": MOTOR},
    "UntagResource": {"resourceArn": MOTOR, "tagKeys": ["plant/é", "x"]},
    "DescribeDetector": {"detectorModelName": "mo-tor_1", "keyValue": "m:1"},
    "ListDetectors": {"detectorModelName": "mo-tor_1", "stateName": "Hot", "maxResults": 1},
    "DescribeAlarm": {"alarmModelName": "hot", "keyValue": "m:1"},
    "BatchSnoozeAlarm": {
        "snoozeActionRequests": [
            {"requestId": "r", "alarmModelName": "hot", "keyValue": "m:1", "note": "zz", "snoozeDuration": 600}
        ]
    },
}


def name_of(recorded: dict[str, Any]) -> str:
    return f"{recorded['sdk']} {recorded['method']} {recorded['target'].partition('?')[0]}"


def received(recorded: dict[str, Any]) -> SignedRequest:
    path, _, query = recorded["target"].partition("?")
    headers = [(name.encode(), value.encode()) for name, value in recorded["headers"]]
    return SignedRequest(recorded["method"], path, query, headers, recorded["body"].encode())


def read(request: SignedRequest) -> tuple[Operation, dict[str, Any]]:
    found = OPERATIONS.find(request.method, request.path)
    assert found is not None
    operation, labels = found
    return operation, operation.read(labels, request.query, request.body)


@pytest.mark.parametrize("recorded", RECORDED, ids=name_of)
def test_the_signature_of_every_sdk_holds(recorded: dict[str, Any]):
    request = received(recorded)
    operation, _ = read(request)
    stamp = dict(recorded["headers"])["x-amz-date"]
    sent_s = datetime.strptime(f"{stamp}+0000", "%Y%m%dT%H%M%SZ%z").timestamp()

    key = verify(request, operation.service, {KEY: SECRET}.get, ManualClock(int(sent_s) * 1000))

    assert key == KEY


@pytest.mark.parametrize("recorded", RECORDED, ids=name_of)
def test_every_sdk_is_understood(recorded: dict[str, Any]):
    operation, asked = read(received(recorded))

    if operation.name in ASKED:
        assert asked == ASKED[operation.name]
    elif operation.name == "BatchPutMessage":
        first = asked["messages"][0]
        assert first["timestamp"] == {"timeInMillis": 1700000000123}
        assert [json.loads(each["payload"]) for each in asked["messages"][:2]] == [{"id": "m:1", "t": 80.5}, {"id": 1}]
    else:
        assert operation.name == "StartDetectorModelAnalysis"
        assert [state["stateName"] for state in asked["detectorModelDefinition"]["states"]] == ["Cold", "Hot"]
