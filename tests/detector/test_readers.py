"""Definitions are read from every form people keep them in, verbatim, and nothing vanishes without a word."""

import json
from pathlib import Path

import pytest

from wheeltapper.detector.readers import read_bytes, read_document, read_text
from wheeltapper.errors import DefinitionError

TEMPLATE = """
Parameters:
  Limit: {Type: Number, Default: 80}
  Stage: {Type: String}
Mappings:
  Topics:
    prod: {name: alarms/prod}
    test: {name: alarms/test}
Conditions:
  IsProd: !Equals [!Ref Stage, prod]
  Never: !And [!Condition IsProd, !Not [!Condition IsProd]]
Resources:
  Pump:
    Type: AWS::IoTEvents::Input
    Properties:
      InputName: PumpData
      InputDefinition: {Attributes: [{JsonPath: temperature}]}
  Alerts: {Type: AWS::SNS::Topic, Properties: {TopicName: alerts}}
  Unwanted:
    Type: AWS::IoTEvents::Input
    Condition: Never
    Properties: {InputDefinition: {Attributes: [{JsonPath: x}]}}
  Watch:
    Type: AWS::IoTEvents::DetectorModel
    Properties:
      RoleArn: !Sub arn:${AWS::Partition}:iam::${AWS::AccountId}:role/events
      Key: !If [IsProd, pumpId, !Ref AWS::NoValue]
      DetectorModelDefinition:
        InitialStateName: normal
        States:
          - StateName: normal
            OnEnter:
              Events:
                - EventName: start
                  Actions:
                    - SetTimer: {TimerName: awake, Seconds: "300"}
                    - SetVariable: {VariableName: count, Value: 0}
            OnInput:
              TransitionEvents:
                - EventName: hot
                  Condition: !Sub "$input.${Pump}.temperature > ${Limit} && '${!literal}' != 'x'"
                  NextState: hot
                  Actions:
                    - Sns: {TargetArn: !Ref Alerts}
                    - IotTopicPublish: {MqttTopic: !FindInMap [Topics, !Ref Stage, name]}
                    - Sqs: {QueueUrl: !Select [1, !Split ["|", "a|b"]], UseBase64: "true"}
          - StateName: hot
"""


def _watch(stage: str) -> dict:
    found = read_text(TEMPLATE, name="template", parameters={"Stage": stage})
    return found.detector_models[0]


def test_a_template_becomes_the_body_of_a_create_request():
    body = _watch("prod")

    transition = body["detectorModelDefinition"]["states"][0]["onInput"]["transitionEvents"][0]
    assert body["detectorModelName"] == "Watch"
    assert body["key"] == "pumpId"
    assert body["roleArn"] == "arn:aws:iam::123456789012:role/events"
    assert transition["condition"] == "$input.PumpData.temperature > 80 && '${literal}' != 'x'"
    assert [next(iter(action.values())) for action in transition["actions"]] == [
        {"targetArn": "arn:aws:sns:us-east-1:123456789012:alerts"},
        {"mqttTopic": "alarms/prod"},
        {"queueUrl": "b", "useBase64": True},
    ]


def test_scalars_get_the_types_of_the_api():
    actions = _watch("prod")["detectorModelDefinition"]["states"][0]["onEnter"]["events"][0]["actions"]

    assert actions[0]["setTimer"] == {"timerName": "awake", "seconds": 300}
    assert actions[1]["setVariable"] == {"variableName": "count", "value": "0"}


def test_conditions_leave_out_resources_and_properties():
    found = read_text(TEMPLATE, name="template", parameters={"Stage": "test"})

    assert "key" not in found.detector_models[0]
    assert [each["inputName"] for each in found.inputs] == ["PumpData"]
    assert any("Unwanted" in each.where and "condition" in each.what for each in found.remarks)
    assert any("Alerts" in each.where and "AWS::SNS::Topic" in each.what for each in found.remarks)


def test_a_parameter_without_a_value_is_named_with_its_remedy():
    with pytest.raises(DefinitionError, match="--parameter Stage"):
        read_text(TEMPLATE, name="template")


def test_a_condition_that_depends_on_itself_is_refused():
    text = TEMPLATE.replace("!Equals [!Ref Stage, prod]", "!Not [!Condition IsProd]")

    with pytest.raises(DefinitionError, match="depends on itself"):
        read_text(text, name="template", parameters={"Stage": "prod"})


def test_comments_are_read_past_and_strings_keep_their_slashes():
    text = '{ // a note\n "states": [{"stateName": "a//b" /* c */}], "initialStateName": "a//b"}'

    body = read_text(text, name="model").detector_models[0]

    assert body["detectorModelDefinition"]["initialStateName"] == "a//b"


def test_a_definition_is_handed_on_verbatim():
    definition = {
        "states": [{"stateName": "a", "onInput": {"events": None}, "onEnter": None, "unheard": 1}],
        "initialStateName": "a",
    }
    exported = {
        "detectorModel": {
            "detectorModelDefinition": definition,
            "detectorModelConfiguration": {"detectorModelName": "m", "key": "k", "status": "ACTIVE"},
        },
        "schemaVersion": 1,
    }

    found = read_document(exported, name="file")

    body = found.detector_models[0]
    assert json.dumps(body["detectorModelDefinition"]) == json.dumps(definition)
    assert (body["detectorModelName"], body["key"]) == ("m", "k")
    assert "status" in found.remarks[0].what


CAPITALS = {
    "DetectorModelName": "freezer",
    "Key": {"Ref": "KeyPath"},
    "DetectorModelDefinition": {
        "InitialStateName": "idle",
        "States": [
            {
                "StateName": "idle",
                "OnEnter": {
                    "Events": [{"EventName": "wait", "Actions": [{"SetTimer": {"TimerName": "t", "Seconds": "60"}}]}]
                },
            }
        ],
    },
}
FREEZER = {
    "detectorModelName": "freezer",
    "key": "id",
    "detectorModelDefinition": {
        "initialStateName": "idle",
        "states": [
            {
                "stateName": "idle",
                "onEnter": {
                    "events": [{"eventName": "wait", "actions": [{"setTimer": {"timerName": "t", "seconds": 60}}]}]
                },
            }
        ],
    },
}
RESOURCE = {"Type": "AWS::IoTEvents::DetectorModel", "Properties": CAPITALS}


@pytest.mark.parametrize(
    "document",
    [
        {"Resources": {"Freezer": RESOURCE}},
        {"Freezer": RESOURCE},
        RESOURCE,
        CAPITALS,
        {"TemplateBody": {"Resources": {"Freezer": RESOURCE}}, "StagesAvailable": ["Original"]},
        {"TemplateBody": json.dumps({"Resources": {"Freezer": RESOURCE}})},
        {"DetectorModel": {"DetectorModelConfiguration": {"Key": "id"}, **CAPITALS}},
        [FREEZER],
    ],
    ids=["template", "resources", "resource", "properties", "printed", "printed as text", "described", "body"],
)
def test_a_definition_is_read_from_every_part_of_a_template_that_people_keep(document: object):
    parameters = {"KeyPath": "id"}

    found = read_bytes(json.dumps(document).encode(), name="file", parameters=parameters)

    assert found.detector_models == [FREEZER]


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ({"InputDefinition": {"Attributes": [{"JsonPath": "t"}]}}, "inputs"),
        ({"AlarmRule": {"SimpleRule": {"Threshold": 70}}, "Severity": "2"}, "alarm_models"),
        ({"InitialStateName": "a", "States": []}, "detector_models"),
    ],
)
def test_what_has_no_name_of_its_own_is_called_as_its_file(document: dict, kind: str):
    found = read_document(document, name="watch.v2")

    body = getattr(found, kind)[0]
    assert next(iter(body.values())) == "watch_v2"
    assert any("'watch_v2' is taken" in each.what for each in found.remarks)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_are_read_as_powershell_writes_them_too(encoding: str):
    text = json.dumps(FREEZER | {"detectorModelDescription": "Kühlung"}, ensure_ascii=False)

    found = read_bytes(text.encode(encoding), name="file")

    assert found.detector_models[0]["detectorModelDescription"] == "Kühlung"


def test_a_file_that_is_not_text_is_an_error_of_one_line():
    with pytest.raises(DefinitionError, match="file: not text: invalid start byte at byte 1; save it as UTF-8"):
        read_bytes(b"{\xff", name="file")


@pytest.mark.parametrize("document", [{"a": {"Type": ["b"]}}, {"Type": {}}, {"TemplateBody": 1}, {"Input": []}])
def test_what_only_looks_like_a_template_is_none(document: dict):
    with pytest.raises(DefinitionError, match="holds no detector model"):
        read_document(document, name="file")


def test_unknown_members_are_remarked_upon():
    found = read_document({"alarmModelName": "a", "alarmRule": {}, "colour": "red"}, name="file")

    assert "colour" not in found.alarm_models[0]
    assert any("'colour'" in each.what for each in found.remarks)


def test_a_repeated_member_is_remarked_upon():
    found = read_text('{"inputName": "a", "inputName": "b", "inputDefinition": {}}', name="file")

    assert found.inputs[0]["inputName"] == "b"
    assert "twice" in found.remarks[0].what


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"states": [}', "line 1 column 13"),
        ("a: [1", "not YAML"),
        ("[" * 100_000, "deeply"),
        ("a: &a [*a]", "deeply"),
        ("a: !!python/object/apply:os.system ['true']", "not YAML"),
        ('{"analysisResults": []}', "holds no"),
        ('{"inputName": "x", "inputDefinition": NaN}', "not JSON"),
    ],
    ids=["json", "yaml", "deep", "endless", "code", "nothing", "nan"],
)
def test_what_cannot_be_read_is_an_error_of_one_line(text: str, says: str):
    with pytest.raises(DefinitionError, match=says) as caught:
        read_text(text, name="file")

    assert "\n" not in str(caught.value)


def test_the_pollution_template_is_the_model_its_authors_deployed(shared: Path):
    folder = shared / "examples" / "detector-models"
    text = (folder / "seed003-forecast-accuracy.cfn.yaml").read_text()
    expected = json.loads((folder / "normalized-ForecastAccuracy.json").read_text())

    found = read_text(text, name="seed003")

    assert found.detector_models[0]["detectorModelDefinition"] == expected["detectorModelDefinition"]
