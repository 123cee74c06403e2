"""
Calls every operation of both services once or more with a real boto3 and prints what came of it, as JSON.

Run by tests with whatever interpreter has the boto3 to be tried; needs nothing of this project. The environment says where
the services are.
"""

import json
import sys
import time

import boto3
import botocore
from botocore.config import Config

ROLE = "arn:aws:iam::123456789012:role/r"
MODEL = {
    "initialStateName": "Cold",
    "states": [
        {
            "stateName": "Cold",
            "onInput": {
                "transitionEvents": [
                    {"eventName": "warm", "condition": "$input.Motor.t > 50", "nextState": "Hot", "actions": []}
                ]
            },
        },
        {
            "stateName": "Hot",
            "onEnter": {
                "events": [
                    {
                        "eventName": "count",
                        "actions": [
                            {"setVariable": {"variableName": "n", "value": "1"}},
                            {"setTimer": {"timerName": "rest", "durationExpression": "3600"}},
                        ],
                    }
                ]
            },
        },
    ],
}
ALARM_RULE = {"simpleRule": {"inputProperty": "$input.Motor.t", "comparisonOperator": "GREATER", "threshold": "70"}}
ALARM = {
    "roleArn": ROLE,
    "severity": 2,
    "alarmRule": ALARM_RULE,
    "alarmCapabilities": {
        "initializationConfiguration": {"disabledOnInitialization": False},
        "acknowledgeFlow": {"enabled": True},
    },
}
INPUT = {"attributes": [{"jsonPath": "id"}, {"jsonPath": "t"}]}


class Caller:
    """Calls operations and remembers which."""

    def __init__(self) -> None:
        config = Config(retries={"max_attempts": 1}, connect_timeout=5, read_timeout=60)
        self._clients = [boto3.client(name, config=config) for name in ("iotevents", "iotevents-data")]
        self.called: list[str] = []

    def __call__(self, operation: str, **request):
        for client in self._clients:
            for method, name in client.meta.method_to_api_mapping.items():
                if name == operation:
                    answer = getattr(client, method)(**request)
                    self.called.append(operation)
                    return answer
        raise LookupError(operation)

    def refused(self, operation: str, **request) -> str:
        """The code of the error that a call must end in."""
        try:
            self(operation, **request)
        except botocore.exceptions.ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            return f"{status} {error.response['Error']['Code']}"
        raise AssertionError(f"{operation} should have been refused")


def put(call: Caller, message_id: str, **payload) -> None:
    messages = [{"messageId": message_id, "inputName": "Motor", "payload": json.dumps(payload).encode()}]
    assert call("BatchPutMessage", messages=messages)["BatchPutMessageErrorEntries"] == []


def alarm_state(call: Caller) -> dict:
    return call("DescribeAlarm", alarmModelName="hot", keyValue="m1")["alarm"]["alarmState"]


def inputs(call: Caller) -> None:
    made = call("CreateInput", inputName="Motor", inputDefinition=INPUT, tags=[{"key": "plant", "value": "A"}])
    configuration = made["inputConfiguration"]
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert configuration["status"] == "ACTIVE"
    assert call.refused("CreateInput", inputName="Motor", inputDefinition=INPUT) == "409 ResourceAlreadyExistsException"
    assert call("DescribeInput", inputName="Motor")["input"]["inputDefinition"] == INPUT
    changed = call("UpdateInput", inputName="Motor", inputDefinition=INPUT, inputDescription="a motor")
    assert changed["inputConfiguration"]["creationTime"] == configuration["creationTime"]
    assert call("ListInputs", maxResults=1)["inputSummaries"][0]["inputDescription"] == "a motor"
    arn = configuration["inputArn"]
    call("TagResource", resourceArn=arn, tags=[{"key": "line", "value": "7"}])
    call("UntagResource", resourceArn=arn, tagKeys=["plant"])
    assert call("ListTagsForResource", resourceArn=arn)["tags"] == [{"key": "line", "value": "7"}]


def models(call: Caller) -> None:
    body = {"detectorModelName": "motor", "detectorModelDefinition": MODEL, "roleArn": ROLE}
    made = call("CreateDetectorModel", key="id", **body)["detectorModelConfiguration"]
    assert (made["detectorModelVersion"], made["key"], made["evaluationMethod"]) == ("1", "id", "BATCH")
    changed = call("UpdateDetectorModel", evaluationMethod="SERIAL", **body)["detectorModelConfiguration"]
    assert (changed["detectorModelVersion"], changed["key"], changed["status"]) == ("2", "id", "ACTIVE")
    first = call("DescribeDetectorModel", detectorModelName="motor", detectorModelVersion="1")["detectorModel"]
    assert first["detectorModelConfiguration"]["status"] == "INACTIVE"
    assert first["detectorModelDefinition"] == MODEL
    assert call("ListDetectorModels")["detectorModelSummaries"][0]["detectorModelName"] == "motor"
    versions = call("ListDetectorModelVersions", detectorModelName="motor")["detectorModelVersionSummaries"]
    assert [version["detectorModelVersion"] for version in versions] == ["2", "1"]
    call("CreateAlarmModel", alarmModelName="hot", key="id", **ALARM)
    assert call("UpdateAlarmModel", alarmModelName="hot", **ALARM)["alarmModelVersion"] == "2"
    described = call("DescribeAlarmModel", alarmModelName="hot")
    assert (described["alarmRule"], described["key"], described["status"]) == (ALARM_RULE, "id", "ACTIVE")
    assert call("ListAlarmModels")["alarmModelSummaries"][0]["alarmModelName"] == "hot"
    assert len(call("ListAlarmModelVersions", alarmModelName="hot")["alarmModelVersionSummaries"]) == 2
    identifier = {"iotEventsInputIdentifier": {"inputName": "Motor"}}
    routed = call("ListInputRoutings", inputIdentifier=identifier)["routedResources"]
    assert sorted(resource["name"] for resource in routed) == ["hot", "motor"]
    assert call.refused("DeleteInput", inputName="Motor") == "409 ResourceInUseException"


def analysis_and_logging(call: Caller) -> None:
    started = call("StartDetectorModelAnalysis", detectorModelDefinition=MODEL)["analysisId"]
    while call("DescribeDetectorModelAnalysis", analysisId=started)["status"] == "RUNNING":
        time.sleep(0.05)
    assert "analysisResults" in call("GetDetectorModelAnalysisResults", analysisId=started)
    assert call.refused("DescribeLoggingOptions") == "404 ResourceNotFoundException"
    options = {"roleArn": ROLE, "level": "INFO", "enabled": True}
    call("PutLoggingOptions", loggingOptions=options)
    assert call("DescribeLoggingOptions")["loggingOptions"] == options


def detectors(call: Caller) -> None:
    put(call, "a1", id="m1", t=80.5)
    found = call("DescribeDetector", detectorModelName="motor", keyValue="m1")["detector"]
    assert found["state"]["stateName"] == "Hot"
    assert found["state"]["variables"] == [{"name": "n", "value": "1"}]
    assert found["state"]["timers"][0]["name"] == "rest"
    listed = call("ListDetectors", detectorModelName="motor", stateName="Hot")["detectorSummaries"]
    assert [summary["keyValue"] for summary in listed] == ["m1"]
    state = {
        "stateName": "Cold",
        "variables": [{"name": "s", "value": '"01"'}],
        "timers": [{"name": "x", "seconds": 60}],
    }
    entry = {"messageId": "u1", "detectorModelName": "motor", "keyValue": "m2", "state": state}
    assert call("BatchUpdateDetector", detectors=[entry])["batchUpdateDetectorErrorEntries"] == []
    wrong = {**entry, "messageId": "u2", "state": {**state, "stateName": "Nowhere"}}
    errors = call("BatchUpdateDetector", detectors=[wrong])["batchUpdateDetectorErrorEntries"]
    assert [(error["messageId"], error["errorCode"]) for error in errors] == [("u2", "InvalidRequestException")]
    moved = call("DescribeDetector", detectorModelName="motor", keyValue="m2")["detector"]["state"]
    assert (moved["stateName"], moved["variables"]) == ("Cold", [{"name": "s", "value": '"01"'}])
    gone = {"messageId": "d1", "detectorModelName": "motor", "keyValue": "m2"}
    assert call("BatchDeleteDetector", detectors=[gone])["batchDeleteDetectorErrorEntries"] == []
    wanted = {"detectorModelName": "motor", "keyValue": "m2"}
    assert call.refused("DescribeDetector", **wanted) == "404 ResourceNotFoundException"


def alarms(call: Caller) -> None:
    def operate(operation: str, member: str, **more) -> list:
        request = {"requestId": "r", "alarmModelName": "hot", "keyValue": "m1", **more}
        answer = call(operation, **{f"{member}ActionRequests": [request]})
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
        return answer["errorEntries"]

    state = alarm_state(call)
    assert state["stateName"] == "ACTIVE"
    rule = {"inputPropertyValue": "80.5", "operator": "GREATER", "thresholdValue": "70"}
    assert state["ruleEvaluation"]["simpleRuleEvaluation"] == rule
    assert call("ListAlarms", alarmModelName="hot")["alarmSummaries"][0]["stateName"] == "ACTIVE"
    assert operate("BatchAcknowledgeAlarm", "acknowledge", note="on it") == []
    state = alarm_state(call)
    assert (state["stateName"], state["customerAction"]["actionName"]) == ("ACKNOWLEDGED", "ACKNOWLEDGE")
    assert state["customerAction"]["acknowledgeActionConfiguration"] == {"note": "on it"}
    assert operate("BatchSnoozeAlarm", "snooze", snoozeDuration=600) == []
    state = alarm_state(call)
    assert state["customerAction"]["snoozeActionConfiguration"]["snoozeDuration"] == 600
    assert operate("BatchEnableAlarm", "enable") == []
    assert operate("BatchDisableAlarm", "disable") == []
    assert alarm_state(call)["stateName"] == "DISABLED"
    assert [error["errorCode"] for error in operate("BatchResetAlarm", "reset")] == ["InvalidRequestException"]
    operate("BatchEnableAlarm", "enable")
    assert operate("BatchResetAlarm", "reset") == []
    assert alarm_state(call)["stateName"] == "NORMAL"


def ends(call: Caller) -> None:
    assert call("DeleteAlarmModel", alarmModelName="hot")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert call("DeleteDetectorModel", detectorModelName="motor")["ResponseMetadata"]["HTTPStatusCode"] == 204
    call("DeleteInput", inputName="Motor")
    assert call.refused("DescribeInput", inputName="Motor") == "404 ResourceNotFoundException"


def main() -> int:
    call = Caller()
    for part in (inputs, models, analysis_and_logging, detectors, alarms, ends):
        part(call)
    print(json.dumps({"boto3": boto3.__version__, "operations": sorted(set(call.called))}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
