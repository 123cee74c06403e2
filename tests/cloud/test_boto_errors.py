"""Every kind of error, provoked from every operation that has it, is the exception that boto3 programs catch."""

import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import botocore.session
import pytest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.companion import Served, serving
from tests.every_operation import ALARM, INPUT, MODEL, ROLE
from wheeltapper_cloud.settings import CloudSettings, LimitSettings
from wheeltapper_cloud.wire import MODELS, STATUS_OF, load_model

ERRORS = {
    name: {error["shape"] for error in operation["errors"]}
    for service in MODELS
    for name, operation in load_model(service)["operations"].items()
}
ARN = "arn:aws:iotevents:us-east-1:123456789012:"
DETECTOR = {"detectorModelName": "no", "detectorModelDefinition": MODEL, "roleArn": ROLE}
HELD = {"detectorModelName": "motor", "detectorModelDefinition": MODEL, "roleArn": ROLE}

# Operation → a request for what is not there.
ABSENT: dict[str, dict[str, Any]] = {
    "DeleteAlarmModel": {"alarmModelName": "no"},
    "DeleteDetectorModel": {"detectorModelName": "no"},
    "DeleteInput": {"inputName": "no"},
    "DescribeAlarm": {"alarmModelName": "hot", "keyValue": "no"},
    "DescribeAlarmModel": {"alarmModelName": "no"},
    "DescribeDetector": {"detectorModelName": "motor", "keyValue": "no"},
    "DescribeDetectorModel": {"detectorModelName": "motor", "detectorModelVersion": "9"},
    "DescribeDetectorModelAnalysis": {"analysisId": "no"},
    "DescribeInput": {"inputName": "no"},
    "DescribeLoggingOptions": {},
    "GetDetectorModelAnalysisResults": {"analysisId": "no"},
    "ListAlarmModelVersions": {"alarmModelName": "no"},
    "ListAlarms": {"alarmModelName": "no"},
    "ListDetectorModelVersions": {"detectorModelName": "no"},
    "ListDetectors": {"detectorModelName": "no"},
    "ListInputRoutings": {"inputIdentifier": {"iotEventsInputIdentifier": {"inputName": "no"}}},
    "ListTagsForResource": {"resourceArn": f"{ARN}input/no"},
    "TagResource": {"resourceArn": f"{ARN}alarmModel/no", "tags": [{"key": "a", "value": "b"}]},
    "UntagResource": {"resourceArn": f"{ARN}detectorModel/no", "tagKeys": ["a"]},
    "UpdateAlarmModel": {"alarmModelName": "no", **ALARM},
    "UpdateDetectorModel": DETECTOR,
    "UpdateInput": {"inputName": "no", "inputDefinition": INPUT},
}
TAKEN: dict[str, dict[str, Any]] = {
    "CreateInput": {"inputName": "Motor", "inputDefinition": INPUT},
    "CreateDetectorModel": HELD,
    "CreateAlarmModel": {"alarmModelName": "hot", **ALARM},
}
TOO_MANY: dict[str, dict[str, Any]] = {
    "CreateDetectorModel": DETECTOR,
    "CreateAlarmModel": {"alarmModelName": "no", **ALARM},
    "TagResource": {"resourceArn": f"{ARN}input/Motor", "tags": [{"key": f"k{n}", "value": ""} for n in range(50)]},
}
# What the judge or the account must write down.
WRITING: dict[str, dict[str, Any]] = {
    "CreateInput": {"inputName": "Other", "inputDefinition": INPUT},
    "UpdateInput": {"inputName": "Motor", "inputDefinition": INPUT},
    "UpdateDetectorModel": HELD,
    "UpdateAlarmModel": {"alarmModelName": "hot", **ALARM},
    "DeleteAlarmModel": {"alarmModelName": "hot"},
    "DeleteDetectorModel": {"detectorModelName": "motor"},
    "PutLoggingOptions": {"loggingOptions": {"roleArn": ROLE, "level": "INFO", "enabled": True}},
    "StartDetectorModelAnalysis": {"detectorModelDefinition": MODEL},
}
STATE = {"stateName": "Cold", "variables": [], "timers": []}
ALARMED = {"requestId": "1", "alarmModelName": "hot", "keyValue": "m1"}
BATCHES: dict[str, dict[str, Any]] = {
    "BatchPutMessage": {"messages": [{"messageId": "1", "inputName": "Motor", "payload": b"{}"}]},
    "BatchUpdateDetector": {"detectors": [{"messageId": "1", "detectorModelName": "motor", "state": STATE}]},
    "BatchDeleteDetector": {"detectors": [{"messageId": "1", "detectorModelName": "motor"}]},
    "BatchSnoozeAlarm": {"snoozeActionRequests": [{**ALARMED, "snoozeDuration": 60}]},
    **{
        f"Batch{verb}Alarm": {f"{verb.lower()}ActionRequests": [ALARMED]}
        for verb in ("Acknowledge", "Disable", "Enable", "Reset")
    },
}
LISTS: dict[str, dict[str, Any]] = {"ListInputs": {}, "ListDetectorModels": {}, "ListAlarmModels": {}}
REQUESTS = BATCHES | LISTS | WRITING | TAKEN | ABSENT


class Caller:
    """Calls operations of a companion that holds an input, a detector model and an alarm model."""

    def __init__(self, cloud: Served) -> None:
        self.cloud = cloud
        session = botocore.session.Session()
        session.get_component("data_loader").search_paths.insert(0, str(files("wheeltapper_cloud") / "service_models"))
        self._clients: list[BaseClient] = [
            session.create_client(
                service,
                "us-east-1",
                endpoint_url=cloud.url,
                aws_access_key_id="a",
                aws_secret_access_key="b",
                config=Config(retries={"total_max_attempts": 1}, read_timeout=90),
            )
            for service in MODELS
        ]

    def __call__(self, operation: str, request: dict[str, Any]) -> Any:
        for client in self._clients:
            for method, name in client.meta.method_to_api_mapping.items():
                if name == operation:
                    return getattr(client, method)(**request)
        raise LookupError(operation)

    def refused(self, operation: str, request: dict[str, Any]) -> ClientError:
        with pytest.raises(ClientError) as caught:
            self(operation, request)
        return caught.value


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    limits = LimitSettings(detector_models=1, alarm_models=1)
    with serving(tmp_path_factory.mktemp("held"), CloudSettings(limits=limits)) as cloud:
        caller = Caller(cloud)
        caller("CreateInput", {"inputName": "Motor", "inputDefinition": INPUT, "tags": [{"key": "a", "value": "b"}]})
        caller("CreateDetectorModel", {**HELD, "key": "id"})
        caller("CreateAlarmModel", {"alarmModelName": "hot", "key": "id", **ALARM})
        yield caller


def assert_is(error: ClientError, operation: str, code: str) -> None:
    answer = error.response
    assert (type(error).__name__, answer["Error"]["Code"]) == (code, code)
    assert code in ERRORS[operation]
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == STATUS_OF[code]
    assert answer["Error"]["Message"]
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-errortype"] == code


def test_no_operation_is_left_out():
    assert set(REQUESTS) == set(ERRORS)
    assert set(ABSENT) == {name for name, codes in ERRORS.items() if "ResourceNotFoundException" in codes}


@pytest.mark.parametrize("operation", ABSENT)
def test_what_is_not_there_is_not_found(call: Caller, operation: str):
    assert_is(call.refused(operation, ABSENT[operation]), operation, "ResourceNotFoundException")


@pytest.mark.parametrize("operation", TAKEN)
def test_what_there_is_already_is_named_with_its_arn(call: Caller, operation: str):
    error = call.refused(operation, TAKEN[operation])

    assert_is(error, operation, "ResourceAlreadyExistsException")
    assert error.response["resourceArn"].startswith(ARN)
    assert error.response["resourceArn"].endswith(f"/{error.response['resourceId']}")


def test_an_input_that_models_read_is_in_use(call: Caller):
    assert_is(call.refused("DeleteInput", {"inputName": "Motor"}), "DeleteInput", "ResourceInUseException")


@pytest.mark.parametrize("operation", TOO_MANY)
def test_what_is_beyond_a_limit_is_refused_with_410(call: Caller, operation: str):
    assert_is(call.refused(operation, TOO_MANY[operation]), operation, "LimitExceededException")


@pytest.mark.parametrize("operation", REQUESTS)
def test_what_nobody_foresaw_is_an_internal_failure(call: Caller, operation: str, monkeypatch: pytest.MonkeyPatch):
    async def broken(_: Any) -> dict[str, Any]:
        raise ZeroDivisionError

    monkeypatch.setitem(call.cloud.companion._endpoint._answers, operation, broken)

    assert_is(call.refused(operation, REQUESTS[operation]), operation, "InternalFailureException")


@pytest.mark.parametrize("operation", WRITING)
def test_what_cannot_be_written_down_is_to_be_asked_again(
    call: Caller, operation: str, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: Any, **__: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    store = call.cloud.companion._store
    for method in ("add", "replace", "remove", "begin_removal", "set_option", "put_analysis"):
        monkeypatch.setattr(store, method, full)

    assert_is(call.refused(operation, WRITING[operation]), operation, "ServiceUnavailableException")
