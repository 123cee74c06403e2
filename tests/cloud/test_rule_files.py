"""Topic rules as AWS hands them out."""

import json
import logging

import pytest

from tests.companion import serving
from tests.loopback import wait_until
from wheeltapper.errors import SettingsError
from wheeltapper.transport.memory import MemoryBroker
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


BLOCK = {
    "input_name": "Pump",
    "message_id": "${topic(2)}-${seq}",
    "role_arn": "arn:aws:iam::1:role/r",
    "batch_mode": False,
}
RESOURCE = {
    "name": "Pumps",
    "enabled": True,
    "sql": PAYLOAD["sql"],
    "sql_version": "2016-03-23",
    "iot_events": [BLOCK],
    "s3": [],
    "tags": {},
}
ROOT = {"resources": [{"address": "aws_iot_topic_rule.pumps", "type": "aws_iot_topic_rule", "values": RESOURCE}]}
STATE = {
    "version": 4,
    "terraform_version": "1.9.0",
    "resources": [
        {"mode": "managed", "type": "aws_iam_role", "name": "r", "instances": [{"attributes": {"name": "r"}}]},
        {"mode": "managed", "type": "aws_iot_topic_rule", "name": "pumps", "instances": [{"attributes": RESOURCE}]},
    ],
}
CAPITALS = {
    "RuleName": "Pumps",
    "Sql": PAYLOAD["sql"],
    "Actions": [
        {
            "S3": None,
            "IotEvents": {"InputName": "Pump", "MessageId": "${topic(2)}-${seq}", "RoleArn": "r", "BatchMode": False},
        }
    ],
    "RuleDisabled": False,
    "AwsIotSqlVersion": "2016-03-23",
    "ErrorAction": None,
}
CLOUD_CONTROL = {
    "address": "awscc_iot_topic_rule.pumps",
    "type": "awscc_iot_topic_rule",
    "values": {
        "id": "Pumps",
        "rule_name": "Pumps",
        "topic_rule_payload": {
            "sql": PAYLOAD["sql"],
            "aws_iot_sql_version": "2016-03-23",
            "rule_disabled": False,
            "error_action": None,
            "actions": [{"iot_events": {k: v for k, v in BLOCK.items() if k != "batch_mode"}, "s3": None}],
        },
    },
}
STACK = {
    "address": "aws_cloudformation_stack.plant",
    "type": "aws_cloudformation_stack",
    "values": {"template_body": TEMPLATE.replace(", Default: dt", ""), "parameters": {"Plant": "dt"}},
}
SYNTHESISED = {
    "Resources": {
        "PumpInput08947B23": {"Type": "AWS::IoTEvents::Input", "Properties": {"InputName": "Pump"}},
        "RuleRole246C4F77": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {}}},
        "Rule40A4EA44": {
            "Type": "AWS::IoT::TopicRule",
            "Properties": {
                "TopicRulePayload": {
                    "Actions": [
                        {
                            "IotEvents": {
                                "InputName": {"Ref": "PumpInput08947B23"},
                                "MessageId": "${topic(2)}-${seq}",
                                "RoleArn": {"Fn::GetAtt": ["RuleRole246C4F77", "Arn"]},
                            }
                        }
                    ],
                    "AwsIotSqlVersion": "2016-03-23",
                    "Sql": {"Fn::Join": ["", ["SELECT *, topic(2) AS pump FROM '", {"Ref": "Plant"}, "/+/data'"]]},
                }
            },
            "Metadata": {"aws:cdk:path": "Plant/Rule/Resource"},
        },
        "CDKMetadata": {"Type": "AWS::CDK::Metadata", "Condition": "CDKMetadataAvailable"},
    },
    "Parameters": {
        "BootstrapVersion": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/cdk-bootstrap/version"},
        "Plant": {"Type": "String", "Default": "dt"},
    },
    "Conditions": {"CDKMetadataAvailable": {"Fn::Or": [{"Fn::Equals": [{"Ref": "AWS::Region"}, "eu-west-1"]}]}},
    "Rules": {"CheckBootstrapVersion": {"Assertions": []}},
}
SEEN = {
    "StateName": "On",
    "OnInput": {"Events": [{"EventName": "seen", "Condition": "$input.Pump.account != 'nobody'"}]},
}
AS_YAML = """
rule:
  actions:
  - iotEvents:
      inputName: Pump
      messageId: ${topic(2)}-${seq}
      roleArn: arn:aws:iam::1:role/r
  awsIotSqlVersion: 2016-03-23
  createdAt: '2024-01-01T00:00:00+00:00'
  ruleDisabled: false
  ruleName: Pumps
  sql: >-
    SELECT *, topic(2) AS pump
    FROM 'dt/+/data'
ruleArn: arn:aws:iot:eu-west-1:1:rule/Pumps
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
        {"topicRulePayload": PAYLOAD},
        "// the pumps\n" + json.dumps(PAYLOAD, indent=2),
        AS_YAML,
        SYNTHESISED,
        "Transform: AWS::Serverless-2016-10-31\nGlobals: {Function: {Runtime: python3.12}}\n" + TEMPLATE,
        {"format_version": "1.0", "terraform_version": "1.9.0", "values": {"root_module": ROOT}},
        {"terraform_version": "1.9.0", "values": {"root_module": {"child_modules": [{"child_modules": [ROOT]}]}}},
        {"planned_values": {"root_module": ROOT}, "resource_changes": []},
        STATE,
        {"planned_values": {"root_module": {"resources": [CLOUD_CONTROL]}}},
        {"values": {"root_module": {"resources": [STACK]}}, "terraform_version": "1.9.0"},
        {"TemplateBody": TEMPLATE, "StagesAvailable": ["Original"]},
        {"PumpRule": {"Type": "AWS::IoT::TopicRule", "Properties": {"TopicRulePayload": PAYLOAD}}},
        {"RuleArn": "arn:aws:iot:eu-west-1:1:rule/Pumps", "Rule": CAPITALS},
        {"RuleName": "Pumps", "TopicRulePayload": CAPITALS},
        CAPITALS,
    ],
    ids=[
        *(
            "payload",
            "get-topic-rule",
            "create-topic-rule",
            "list",
            "template",
            "resource",
            "payload-within",
            "comment",
        ),
        *("get-topic-rule-as-yaml", "cdk-synth", "sam", "terraform-show", "terraform-modules", "terraform-plan"),
        *("terraform-state", "terraform-cloud-control", "terraform-stack", "get-template", "resources", "powershell"),
        *("properties", "capitals"),
    ],
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


def test_rules_printed_one_after_the_other_are_all_read(tmp_path):
    other = {"rule": {**PAYLOAD, "ruleName": "Lines", "actions": [{"iotEvents": {"inputName": "Line"}}]}}

    found = read(tmp_path, json.dumps(SHOWN, indent=4) + "\n" + json.dumps(other, indent=4) + "\n")

    assert [rule.input for rule in found] == ["Pump", "Line"]


def test_what_terraform_has_beside_the_inputs_is_named_and_a_disabled_rule_feeds_nothing(tmp_path, caplog):
    busy = {**RESOURCE, "iot_events": [BLOCK, {"input_name": "Line", "message_id": "", "batch_mode": True}]}
    busy |= {"republish": [{"topic": "debug"}], "error_action": [{"sqs": [{}]}]}
    resources = [{"type": "aws_iot_topic_rule", "values": {**busy, "enabled": on}} for on in (True, False)]
    with caplog.at_level(logging.WARNING):
        found = read(tmp_path, {"terraform_version": "1.9.0", "values": {"root_module": {"resources": resources}}})

    assert [(rule.input, rule.batch, rule.message_id) for rule in found] == [
        ("Pump", False, "${topic(2)}-${seq}"), ("Line", True, "message_id"),
    ]  # fmt: skip
    for named in ("republish is not carried out", "errorAction is not carried out", "it is disabled"):
        assert named in caplog.text


def test_the_language_of_terraform_itself_is_refused(tmp_path):
    path = tmp_path / "rules.tf"
    path.write_text('resource "aws_iot_topic_rule" "pumps" {}')

    with pytest.raises(SettingsError, match="terraform show -json"):
        expand([RuleSettings(file=path)])


@pytest.mark.parametrize("kind", ["aws_iot_topic_rule", "awscc_iot_topic_rule"])
def test_what_a_plan_leaves_unset_is_null_and_counts_as_not_given(tmp_path, kind):
    action = {**BLOCK, "batch_mode": None, "message_id": None}
    values = {**RESOURCE, "sql_version": None, "iot_events": [action]}
    if kind.startswith("awscc"):
        payload = {**CLOUD_CONTROL["values"]["topic_rule_payload"], "actions": [{"iot_events": action}]}
        values = {"rule_name": None, "topic_rule_payload": {**payload, "rule_disabled": None}}

    (found,) = read(tmp_path, {"planned_values": {"root_module": {"resources": [{"type": kind, "values": values}]}}})

    assert (found.input, found.batch, found.message_id) == ("Pump", False, "message_id")


def test_no_rule_of_a_template_is_left_out_without_a_word(tmp_path, caplog):
    rule = {"Type": "AWS::IoT::TopicRule", "Properties": {"TopicRulePayload": PAYLOAD}}
    template = {
        "Parameters": {"Stage": {"Type": "String", "Default": "test"}},
        "Conditions": {"Prod": {"Fn::Equals": [{"Ref": "Stage"}, "prod"]}},
        "Resources": {"One": rule, "Two": {**rule, "Condition": "Prod"}, "Role": {"Type": "AWS::IAM::Role"}},
    }
    with caplog.at_level(logging.WARNING):
        found = read(tmp_path, template)

    assert len(found) == 1
    assert "Resources.Two: left out: its condition 'Prod' is false" in caplog.text
    assert "AWS::IAM::Role" not in caplog.text
    template["Resources"]["Three"] = {**rule, "Properties": {"TopicRulePayload": {"Fn::Transform": {"Name": "Macro"}}}}
    with pytest.raises(SettingsError, match="rule Three: its TopicRulePayload is no object; write it out"):
        read(tmp_path, template)


def test_a_file_that_is_not_there_is_named_once(tmp_path):
    path = tmp_path / "rule.json"

    with pytest.raises(SettingsError, match=f"^{path}: cannot be read: No such file or directory$"):
        expand([RuleSettings(file=path)])


def test_what_a_statement_lacks_of_a_template_is_to_be_put_into_the_settings(tmp_path, caplog):
    (tmp_path / "rule.yaml").write_text(TEMPLATE.replace("${Plant}", "${Line}"))
    with caplog.at_level(logging.WARNING):
        expand([RuleSettings(file=tmp_path / "rule.yaml")])

    assert "the name itself stands in ([parameters] Line=… sets it)" in caplog.text


def test_a_template_is_filled_in_from_the_settings_and_the_account(tmp_path):
    (tmp_path / "rule.yaml").write_text(TEMPLATE.replace("'${Plant}/+/data'", "'${AWS::AccountId}/${Plant}/+'"))
    (tmp_path / "cloud.toml").write_text(
        '[parameters]\nPlant = "north"\n[server]\naccount = "111122223333"\n[[rules]]\nfile = "rule.yaml"\n'
    )
    settings = load(tmp_path / "cloud.toml")

    (found,) = expand(settings.rules, settings.template_parameters())

    assert Rule(found).filters == ["111122223333/north/+"]


def test_one_template_holds_the_inputs_the_models_and_the_rules_of_a_plant(tmp_path, caplog):
    payload = {
        "Sql": {"Fn::Sub": "SELECT *, accountid() AS account FROM '${Plant}/+'"},
        "Actions": [{"IotEvents": {"InputName": {"Ref": "In"}, "RoleArn": "arn:aws:iam::1:role/r"}}],
    }
    template = {
        "Parameters": {"Plant": {"Type": "String"}},
        "Resources": {
            "In": {
                "Type": "AWS::IoTEvents::Input",
                "Properties": {"InputName": "Pump", "InputDefinition": {"Attributes": [{"JsonPath": "account"}]}},
            },
            "Model": {
                "Type": "AWS::IoTEvents::DetectorModel",
                "Properties": {
                    "DetectorModelName": "pumps",
                    "Key": "account",
                    "RoleArn": "arn:aws:iam::1:role/r",
                    "DetectorModelDefinition": {"InitialStateName": "On", "States": [SEEN]},
                },
            },
            "Rule": {"Type": "AWS::IoT::TopicRule", "Properties": {"TopicRulePayload": payload}},
        },
    }
    (tmp_path / "plant.json").write_text(json.dumps(template))
    (tmp_path / "cloud.toml").write_text(
        'models = ["plant.json"]\n[parameters]\nPlant = "north"\n[server]\naccount = "111122223333"\n'
        '[[rules]]\nfile = "plant.json"\n'
    )
    broker = MemoryBroker()
    with serving(tmp_path / "data", load(tmp_path / "cloud.toml"), transport=broker.transport()) as cloud:
        publisher = broker.transport()
        publisher.start()
        publisher.publish("north/p1", b"{}")
        wait_until(
            lambda: broker.deliver() == 0 and cloud.companion.judge.detector("pumps", "111122223333") is not None
        )

    assert "Plant: given" not in caplog.text


def test_an_id_without_a_template_is_looked_for_in_the_message(tmp_path, caplog):
    document = {**PAYLOAD, "actions": [{"iotEvents": {"inputName": "Pump", "messageId": "seq"}}]}
    with caplog.at_level(logging.WARNING):
        (found,) = read(tmp_path, document)

    (message,) = Rule(found).read("dt/p1/data", b'{"seq": 7}', 0)

    assert message.message_id == "7"
    assert "messageId 'seq' is taken for the member" in caplog.text


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
        ({**PAYLOAD, "actions": [{"iotEvents": {"inputName": "pump-1"}}]}, {}, "'pump-1' is no input's name"),
        (TEMPLATE.replace("!Ref PumpInput", "!ImportValue Pumps"), {}, "Fn::ImportValue.*is no input's name"),
        (TEMPLATE.replace(", Default: dt", ""), {}, r"'Plant' has no default; put into \[parameters\] Plant="),
        ('{"sql": "SELECT * FROM \'a\'"} {', {}, "not JSON"),
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
