"""Topic rules as AWS hands them out."""

import json
import logging

import pytest

from wheeltapper.errors import SettingsError
from wheeltapper_cloud.rule_files import expand
from wheeltapper_cloud.rules import Rule, RuleSettings
from wheeltapper_cloud.settings import load

ACTION = {"iotEvents": {"inputName": "Pump", "messageId": "${topic(2)}-${seq}", "roleArn": "arn:aws:iam::1:role/r"}}
PAYLOAD = {
    "sql": "SELECT *, topic(2) AS pump FROM 'dt/+/data'",
    "description": "",
    "actions": [ACTION],
    "ruleDisabled": False,
    "awsIotSqlVersion": "2016-03-23",
}
SHOWN = {
    "ruleArn": "arn:aws:iot:eu-west-1:1:rule/Pumps",
    "rule": {"ruleName": "Pumps", "createdAt": "2024-01-01", **PAYLOAD},
}
TEMPLATE = """
Parameters:
  Plant: {Type: String, Default: dt}
Resources:
  PumpInput:
    Type: AWS::IoTEvents::Input
    Properties: {InputName: Pump, InputDefinition: {Attributes: [{JsonPath: pump}]}}
  Bucket: {Type: AWS::S3::Bucket}
  Rule:
    Type: AWS::IoT::TopicRule
    Properties:
      TopicRulePayload:
        Sql: !Sub "SELECT *, topic(2) AS pump FROM '${Plant}/+/data'"
        RuleDisabled: 'false'
        AwsIotSqlVersion: '2016-03-23'
        Actions:
          - IotEvents: {InputName: !Ref PumpInput, MessageId: !Sub '${!topic(2)}-${!seq}', RoleArn: !GetAtt Role.Arn}
"""


def read(tmp_path, document, **settings):
    path = tmp_path / "rule.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return expand([RuleSettings(file=path, **settings)])


@pytest.mark.parametrize(
    "document",
    [
        PAYLOAD,
        SHOWN,
        {"ruleName": "Pumps", "topicRulePayload": PAYLOAD},
        [SHOWN],
        TEMPLATE,
        {"Type": "AWS::IoT::TopicRule", "Properties": {"TopicRulePayload": PAYLOAD}},
    ],
    ids=["payload", "get-topic-rule", "create-topic-rule", "list", "template", "resource"],
)
def test_every_form_in_which_aws_shows_a_rule_is_read(tmp_path, document):
    (found,) = read(tmp_path, document, timestamp="at", share="judges")

    assert found == RuleSettings(
        input="Pump", sql=PAYLOAD["sql"], message_id="${topic(2)}-${seq}", timestamp="at", share="judges"
    )
    assert Rule(found).filters == ["dt/+/data"]


def test_each_iot_events_action_is_a_rule_and_others_are_named(tmp_path, caplog):
    other = {"iotEvents": {"inputName": "Line", "batchMode": True, "messageId": None}}
    document = {**PAYLOAD, "actions": [ACTION, {"s3": {"bucketName": "b"}}, other], "errorAction": {"sqs": {}}}
    with caplog.at_level(logging.WARNING):
        found = read(tmp_path, document)

    assert [(rule.input, rule.batch, rule.message_id) for rule in found] == [
        ("Pump", False, "${topic(2)}-${seq}"), ("Line", True, "message_id"),
    ]  # fmt: skip
    assert "s3 is not carried out" in caplog.text
    assert "errorAction is not carried out" in caplog.text


def test_of_several_rules_those_that_feed_an_input_are_taken(tmp_path, caplog):
    archive = {"ruleName": "Archive", "topicRulePayload": {**PAYLOAD, "actions": [{"s3": {}}]}}
    with caplog.at_level(logging.WARNING):
        found = read(tmp_path, [archive, SHOWN])

    assert [rule.input for rule in found] == ["Pump"]
    assert "rule Archive: left out" in caplog.text


def test_a_disabled_rule_feeds_nothing(tmp_path):
    assert read(tmp_path, {**PAYLOAD, "ruleDisabled": True}) == []


@pytest.mark.parametrize(
    ("document", "settings", "named"),
    [
        ("{", {}, "not JSON"),
        ("{}", {}, "holds no topic rule"),
        ({"rules": [{"ruleName": "a"}]}, {}, "get-topic-rule"),
        ({"sql": "SELECT 1 FROM 'a'"}, {}, "actions"),
        ({**PAYLOAD, "actions": [{"s3": {}}]}, {}, "none of its rules has an iotEvents action"),
        ({**PAYLOAD, "actions": [{"iotEvents": {}}]}, {}, "inputName"),
        ({**PAYLOAD, "actions": [{"iotEvents": {"inputName": "${topic(2)}"}}]}, {}, r"\$\{topic\(2\)\}"),
        ({**PAYLOAD, "actions": [{"iotEvents": {**ACTION["iotEvents"], "batchMode": True}}]}, {}, "batchMode"),
        ({**PAYLOAD, "awsIotSqlVersion": "2030-01-01"}, {}, "2030-01-01"),
        (PAYLOAD, {"input": "Pump"}, "leave out"),
    ],
)
def test_what_cannot_be_taken_over_is_refused_by_name(tmp_path, document, settings, named):
    with pytest.raises(SettingsError, match=named) as refused:
        read(tmp_path, document, **settings)

    assert "\n" not in str(refused.value)
    assert "rule.json" in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"gone\.json"):
        expand([RuleSettings(file=tmp_path / "gone.json")])


def test_the_settings_name_a_file_in_their_own_folder(tmp_path):
    (tmp_path / "pumps.json").write_text(json.dumps(SHOWN))
    (tmp_path / "cloud.toml").write_text('[[rules]]\nfile = "pumps.json"\n')

    (found,) = expand(load(tmp_path / "cloud.toml").rules)

    assert found.input == "Pump"
