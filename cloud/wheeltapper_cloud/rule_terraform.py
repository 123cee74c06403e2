"""Topic rules of Terraform, from ``terraform show -json`` or a state file, as AWS would show them."""

from collections.abc import Iterator, Mapping
from typing import Any

_RESOURCE = "aws_iot_topic_rule"
_NAMES = {"input_name": "inputName", "message_id": "messageId", "batch_mode": "batchMode"}


def is_terraform(document: Any) -> bool:
    """Whether a document is what ``terraform show -json`` prints of a state or a plan, or a state file."""
    return isinstance(document, dict) and ("terraform_version" in document or "planned_values" in document)


def terraform_rules(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The topic rules, each with its address and as ``aws iot get-topic-rule`` has it."""
    shown = document.get("planned_values") or document.get("values")
    resources = _of_module(shown.get("root_module")) if isinstance(shown, dict) else _of_state(document)
    for address, values in resources:
        yield address, _body(values)


def _of_module(module: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rules of a module and of those within it."""
    if not isinstance(module, dict):
        return
    for resource in _objects(module.get("resources")):
        if resource.get("type") == _RESOURCE and isinstance(resource.get("values"), dict):
            yield str(resource.get("address", _RESOURCE)), resource["values"]
    for child in _objects(module.get("child_modules")):
        yield from _of_module(child)


def _of_state(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rules of a state file."""
    for resource in _objects(document.get("resources")):
        if resource.get("type") != _RESOURCE:
            continue
        for instance in _objects(resource.get("instances")):
            if isinstance(instance.get("attributes"), dict):
                yield f"{_RESOURCE}.{resource.get('name', '')}", instance["attributes"]


def _objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _body(values: Mapping[str, Any]) -> dict[str, Any]:
    actions: list[dict[str, Any]] = [
        {"iotEvents": {_NAMES[name]: value for name, value in action.items() if name in _NAMES}}
        for action in _objects(values.get("iot_events"))
    ]
    for kind, blocks in values.items():
        if kind not in ("iot_events", "error_action"):
            actions += [{kind: block} for block in _objects(blocks)]
    failing = _objects(values.get("error_action"))
    return {
        "ruleName": values.get("name"),
        "sql": values.get("sql"),
        "awsIotSqlVersion": values.get("sql_version"),
        "ruleDisabled": not values.get("enabled", True),
        "actions": actions,
        "errorAction": failing[0] if failing else None,
    }
