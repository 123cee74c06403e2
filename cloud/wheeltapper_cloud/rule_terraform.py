"""Topic rules of Terraform, from ``terraform show -json`` or a state file, as AWS would show them."""

from collections.abc import Iterator, Mapping
from typing import Any

from wheeltapper.detector.terraform import objects, resources

_RESOURCE = "aws_iot_topic_rule"
_NAMES = {"input_name": "inputName", "message_id": "messageId", "batch_mode": "batchMode"}


def terraform_rules(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The topic rules, each with its address and as ``aws iot get-topic-rule`` has it."""
    for address, kind, values in resources(document):
        if kind == _RESOURCE:
            yield address, _body(values)


def _body(values: Mapping[str, Any]) -> dict[str, Any]:
    actions: list[dict[str, Any]] = [
        {"iotEvents": {_NAMES[name]: value for name, value in action.items() if name in _NAMES}}
        for action in objects(values.get("iot_events"))
    ]
    for kind, blocks in values.items():
        if kind not in ("iot_events", "error_action"):
            actions += [{kind: block} for block in objects(blocks)]
    failing = objects(values.get("error_action"))
    return {
        "ruleName": values.get("name"),
        "sql": values.get("sql"),
        "awsIotSqlVersion": values.get("sql_version"),
        "ruleDisabled": not values.get("enabled", True),
        "actions": actions,
        "errorAction": failing[0] if failing else None,
    }
