"""The CloudFormation template: what cfn-lint says, and what a deployment would refuse later."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from wheeltapper import topics

TEMPLATE = Path(__file__).resolve().parents[2] / "cloud" / "greengrass.yaml"
# The longest names that resolved policies may meet.
VALUES = {
    "AWS::Partition": "aws",
    "AWS::Region": "ap-southeast-1",
    "AWS::AccountId": "123456789012",
    "AWS::StackName": "s",
    "GatewayNames": "gateway-*",
}
POLICY_CHARACTERS = 2_048


class _Loader(yaml.SafeLoader):
    """Reads the short forms of intrinsic functions."""


def _function(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _function)


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(TEMPLATE.read_text(), _Loader)  # noqa: S506
    return found


def resolved(value: Any) -> Any:
    if isinstance(value, dict) and "Fn::Sub" in value:
        text = re.sub(
            r"\$\{([A-Za-z:]+)\}",
            lambda found: VALUES.get(found.group(1), found.group(1)),
            value["Fn::Sub"],
        )
        return text.replace("${!", "${")
    if isinstance(value, dict) and "Fn::GetAtt" in value:
        return "arn:aws:iot:ap-southeast-1:123456789012:rolealias/" + "x" * 40
    if isinstance(value, dict):
        return {key: resolved(inner) for key, inner in value.items()}
    return [resolved(inner) for inner in value] if isinstance(value, list) else value


def policies(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: resolved(resource["Properties"]["PolicyDocument"])
        for name, resource in template["Resources"].items()
        if resource["Type"] == "AWS::IoT::Policy"
    }


def allows(policy: dict[str, Any], action: str, resource: str, thing: str) -> bool:
    """Whether an AWS IoT policy allows an action, as AWS IoT Core matches it."""
    for statement in policy["Statement"]:
        actions, resources = statement["Action"], statement["Resource"]
        if action not in ([actions] if isinstance(actions, str) else actions):
            continue
        for pattern in [resources] if isinstance(resources, str) else resources:
            pattern = pattern.replace("${iot:Connection.Thing.ThingName}", thing).rpartition(":")[2]
            if re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), resource):
                return True
    return False


def test_cfn_lint_finds_nothing() -> None:
    run = subprocess.run(
        [str(Path(sys.executable).with_name("cfn-lint")), "--format", "parseable", str(TEMPLATE)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (run.returncode, run.stdout) == (0, ""), run.stdout + run.stderr


def test_policies_fit_into_what_aws_iot_stores(template: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VALUES, "GatewayNames", "g" * 32 + "*")
    sizes = {name: len(json.dumps(policy, separators=(",", ":"))) for name, policy in policies(template).items()}

    assert {name: size for name, size in sizes.items() if size > POLICY_CHARACTERS} == {}
    assert len(sizes) >= 3


def test_every_parameter_says_what_it_is(template: dict[str, Any]) -> None:
    grouped = [
        name
        for group in template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        for name in group["Parameters"]
    ]

    assert sorted(grouped) == sorted(template["Parameters"])
    assert all(len(parameter["Description"]) > 20 for parameter in template["Parameters"].values())
    assert all("Default" in parameter for parameter in template["Parameters"].values())


@pytest.mark.parametrize(
    ("who", "action", "topic", "allowed"),
    [
        ("DevicePolicy", "iot:Publish", "motor-1/reading", True),
        ("DevicePolicy", "iot:Publish", "motor-2/reading", False),
        ("DevicePolicy", "iot:Publish", "motor-1/prediction", False),
        ("DevicePolicy", "iot:Receive", "motor-1/trigger/ingest", True),
        ("DevicePolicy", "iot:Receive", "motor-2/trigger/ingest", False),
        ("DevicePolicy", "iot:Publish", "motor-1/trigger/ingest", False),
        ("GatewayPolicy", "iot:Publish", "motor-2/prediction", True),
        ("GatewayPolicy", "iot:Publish", "motor-2/trigger/infer/reply", True),
        ("GatewayPolicy", "iot:Receive", "motor-2/trigger/infer", True),
        ("GatewayPolicy", "iot:Publish", "motor-2/trigger/infer", False),
        ("GatewayPolicy", "iot:Publish", "motor-2/trigger/ingest", False),
        ("GatewayPolicy", "iot:Publish", "motor-2/reading", False),
        ("OperatorPolicy", "iot:Publish", "motor-2/trigger/ingest", True),
        ("OperatorPolicy", "iot:Publish", "motor-2/trigger/infer", True),
        ("OperatorPolicy", "iot:Publish", "motor-2/trigger/infer/reply", False),
        ("OperatorPolicy", "iot:Publish", "motor-2/prediction", False),
        ("OperatorPolicy", "iot:Receive", "motor-2/trigger/infer/reply", True),
        ("OperatorPolicy", "iot:Receive", "motor-2/alarm", True),
    ],
)
def test_who_may_say_and_hear_what(template: dict[str, Any], who: str, action: str, topic: str, allowed: bool) -> None:
    assert allows(policies(template)[who], action, f"topic/wt/{topic}", "motor-1") is allowed


def test_the_topics_are_those_that_wheeltapper_speaks_on(template: dict[str, Any]) -> None:
    spoken = (
        topics.PREDICTION,
        topics.ALARM,
        topics.STATE,
        topics.ACTION,
        topics.DRIFT,
        topics.HEALTH,
        "wt/{thing}/notification",
    )
    gateway, operator = policies(template)["GatewayPolicy"], policies(template)["OperatorPolicy"]

    for topic in spoken:
        assert allows(gateway, "iot:Publish", "topic/" + topics.topic_of(topic, "x"), "gateway-1"), topic
    for topic in spoken:
        assert allows(operator, "iot:Subscribe", "topicfilter/" + topics.filter_of(topic), ""), topic
    assert allows(gateway, "iot:Subscribe", "topicfilter/" + topics.filter_of(topics.TRIGGER_INFER), "gateway-1")
    assert allows(operator, "iot:Subscribe", "topicfilter/wt/motor-1/trigger/infer/reply", "")


def test_a_gateway_hears_its_own_heartbeat_and_jobs_and_nobody_elses(template: dict[str, Any]) -> None:
    core, gateway = policies(template)["CorePolicy"], policies(template)["GatewayPolicy"]

    assert allows(core, "iot:Connect", "client/gateway-1#2", "")
    assert not allows(core, "iot:Connect", "client/motor-1", "")
    assert allows(core, "iot:Receive", "topic/$aws/things/gateway-1/jobs/notify-next", "")
    assert not allows(core, "iot:Receive", "topic/$aws/things/motor-1/jobs/notify-next", "")
    assert allows(gateway, "iot:Subscribe", "topicfilter/wt/gateway-1/heartbeat/inference", "")
    assert not allows(gateway, "iot:Publish", "topic/wt/motor-1/heartbeat/inference", "")


def test_a_core_device_reads_artifacts_of_one_folder_and_no_more(template: dict[str, Any]) -> None:
    role = template["Resources"]["TokenRole"]["Properties"]
    statements = [one for policy in role["Policies"] for one in policy["PolicyDocument"]["Statement"]]

    assert [one["Resource"] for one in statements if one["Action"] == "s3:GetObject"] == [
        {"Fn::Sub": "${ArtifactBucket.Arn}/${ArtifactPrefix}/*"}
    ]
    assert not any("*" in str(one["Action"]) for one in statements)


def test_the_bucket_is_encrypted_private_and_refuses_plain_connections(template: dict[str, Any]) -> None:
    bucket = template["Resources"]["ArtifactBucket"]
    denied = template["Resources"]["ArtifactBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"][0]

    assert all(bucket["Properties"]["PublicAccessBlockConfiguration"].values())
    assert bucket["Properties"]["BucketEncryption"]
    assert bucket["DeletionPolicy"] == "Retain"
    assert (denied["Effect"], denied["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
