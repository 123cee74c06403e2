"""Definitions are read from what Terraform prints and keeps."""

import json
from typing import Any

import pytest

from wheeltapper.detector.readers import read_document, read_text
from wheeltapper.errors import DefinitionError

WINDOW = {
    "type": "awscc_iotevents_detector_model",
    "name": "window",
    "address": "awscc_iotevents_detector_model.window",
    "values": {
        "id": "window_events",
        "detector_model_name": "window_events",
        "evaluation_method": "SERIAL",
        "key": None,
        "role_arn": "arn:aws:iam::123456789012:role/core",
        "tags": None,
        "detector_model_definition": {
            "initial_state_name": "closed",
            "states": [
                {
                    "state_name": "closed",
                    "on_input": {
                        "events": [
                            {
                                "event_name": "tell",
                                "condition": "$input.window_input.temperature > 25",
                                "actions": [
                                    {"dynamo_db": None, "dynamo_d_bv_2": {"table_name": "'t'"}, "sqs": None},
                                    {"sqs": {"queue_url": "q", "use_base_64": True}, "iot_site_wise": None},
                                ],
                            }
                        ],
                        "transition_events": None,
                    },
                }
            ],
        },
    },
}
ACTIONS = [
    {"dynamoDB": None, "dynamoDBv2": {"tableName": "'t'"}, "sqs": None},
    {"sqs": {"queueUrl": "q", "useBase64": True}, "iotSiteWise": None},
]
INPUT = {
    "type": "awscc_iotevents_input",
    "name": "window_input",
    "address": "module.house.awscc_iotevents_input.window_input",
    "values": {"input_name": "window_input", "input_definition": {"attributes": [{"json_path": "temperature"}]}},
}
ROLE = {"type": "aws_iam_role", "name": "core", "address": "aws_iam_role.core", "values": {"name": "core"}}
TEMPLATE = {
    "Parameters": {"Limit": {"Type": "Number"}, "Mail": {"Type": "String"}},
    "Resources": {
        "Hot": {
            "Type": "AWS::IoTEvents::AlarmModel",
            "Properties": {
                "AlarmModelName": "hot",
                "AlarmRule": {"SimpleRule": {"InputProperty": "$input.In.t", "Threshold": {"Ref": "Limit"}}},
            },
        }
    },
}
STACK = {
    "type": "aws_cloudformation_stack",
    "name": "alarms",
    "address": "aws_cloudformation_stack.alarms",
    "values": {"template_body": json.dumps(TEMPLATE), "parameters": {"Limit": "70", "Mail": "a@example.com"}},
}
ROOT = {"resources": [WINDOW, ROLE], "child_modules": [{"resources": [INPUT]}]}


def instance(resource: dict[str, Any]) -> dict[str, Any]:
    return {"type": resource["type"], "name": resource["name"], "instances": [{"attributes": resource["values"]}]}


@pytest.mark.parametrize(
    "document",
    [
        {"terraform_version": "1.9.0", "values": {"root_module": ROOT}},
        {"terraform_version": "1.9.0", "planned_values": {"root_module": ROOT}},
        {"version": 4, "terraform_version": "1.9.0", "resources": [instance(each) for each in (WINDOW, ROLE, INPUT)]},
    ],
    ids=["state", "plan", "state file"],
)
def test_what_the_provider_holds_becomes_the_body_of_a_create_request(document: dict[str, Any]):
    found = read_document(document, name="terraform")

    (model,) = found.detector_models
    event = model["detectorModelDefinition"]["states"][0]["onInput"]["events"][0]
    assert (model["detectorModelName"], model["evaluationMethod"], model["key"]) == ("window_events", "SERIAL", None)
    assert event["actions"] == ACTIONS
    assert found.inputs[0]["inputDefinition"] == {"attributes": [{"jsonPath": "temperature"}]}
    assert [str(remark) for remark in found.remarks] == [
        "aws_iam_role.core: left out: aws_iam_role is not an IoT Events resource"
    ]


def test_a_stack_is_read_with_the_parameters_that_it_was_given():
    document = {"terraform_version": "1.9.0", "values": {"root_module": {"resources": [STACK]}}}

    found = read_document(document, name="terraform")
    other = read_document(document, name="terraform", parameters={"Limit": "80"})

    assert found.alarm_models[0]["alarmRule"]["simpleRule"]["threshold"] == "70"
    assert other.alarm_models[0]["alarmRule"]["simpleRule"]["threshold"] == "80"
    assert found.remarks == []


def test_terraforms_own_language_is_refused_with_its_remedy():
    text = 'resource "awscc_iotevents_input" "device" {\n  input_definition = {\n    attributes = []\n  }\n}\n'

    with pytest.raises(DefinitionError, match="main: is in Terraform's own language; give what `terraform show -json`"):
        read_text(text, name="main")


@pytest.mark.parametrize(
    "document",
    [
        {"terraform_version": 1},
        {"planned_values": []},
        {"planned_values": {"root_module": {"resources": [None, {"type": []}, {"values": {}}], "child_modules": 1}}},
        {
            "terraform_version": "1",
            "resources": [{"type": "aws_cloudformation_stack", "instances": [{"attributes": {}}]}],
        },
    ],
)
def test_what_holds_no_definition_is_refused(document: dict[str, Any]):
    with pytest.raises(DefinitionError, match="holds no detector model"):
        read_document(document, name="terraform")
