"""
Definitions of Terraform, from ``terraform show -json`` or a state file.

The ``awscc`` provider has them as resources, in names of its own; others give CloudFormation a template.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from wheeltapper.detector.cloudformation import is_template
from wheeltapper.detector.documents import parse_document

KINDS = {
    "awscc_iotevents_detector_model": "AWS::IoTEvents::DetectorModel",
    "awscc_iotevents_alarm_model": "AWS::IoTEvents::AlarmModel",
    "awscc_iotevents_input": "AWS::IoTEvents::Input",
}
_STACK = "aws_cloudformation_stack"
_STEP = re.compile(r"_([a-z0-9])")


class Resource(NamedTuple):
    """One resource: its address, type and attributes."""

    address: str
    type: str
    values: dict[str, Any]


def is_terraform(document: Any) -> bool:
    """Whether a document is what ``terraform show -json`` prints of a state or a plan, or a state file."""
    return isinstance(document, dict) and ("terraform_version" in document or "planned_values" in document)


def resources(document: Mapping[str, Any]) -> Iterator[Resource]:
    """Every resource, those of modules included."""
    shown = document.get("planned_values") or document.get("values")
    return _of_module(shown.get("root_module")) if isinstance(shown, dict) else _of_state(document)


def _of_module(module: Any) -> Iterator[Resource]:
    if not isinstance(module, dict):
        return
    for resource in objects(module.get("resources")):
        if isinstance(resource.get("values"), dict):
            kind = str(resource.get("type"))
            yield Resource(str(resource.get("address", kind)), kind, resource["values"])
    for child in objects(module.get("child_modules")):
        yield from _of_module(child)


def _of_state(document: Mapping[str, Any]) -> Iterator[Resource]:
    for resource in objects(document.get("resources")):
        kind = str(resource.get("type"))
        for instance in objects(resource.get("instances")):
            if isinstance(instance.get("attributes"), dict):
                yield Resource(f"{kind}.{resource.get('name', '')}", kind, instance["attributes"])


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects in a list; none where it is no list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def stack_template(kind: str, values: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    """The template that a resource hands to CloudFormation, with what it says of the parameters as their defaults."""
    text, given = values.get("template_body"), values.get("parameters")
    if kind != _STACK or not isinstance(text, str):
        return None
    template = parse_document(text, where)
    if not is_template(template):
        return None
    declared = template.get("Parameters")
    for name, value in given.items() if isinstance(given, dict) else ():
        if isinstance(declared, dict) and isinstance(declared.get(name), dict):
            declared[name]["Default"] = value
    found: dict[str, Any] = template
    return found


def api_body(values: Mapping[str, Any]) -> dict[str, Any]:
    """
    A resource's attributes under the API's names.

    >>> api_body({"id": "m", "key": "k", "actions": [{"dynamo_d_bv_2": {"table_name": "t"}, "dynamo_db": None}]})
    {'key': 'k', 'actions': [{'dynamoDBv2': {'tableName': 't'}, 'dynamoDB': None}]}
    """
    body: dict[str, Any] = _renamed({name: value for name, value in values.items() if name != "id"})
    return body


def _renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {_api_name(name): _renamed(member) for name, member in value.items()}
    return [_renamed(each) for each in value] if isinstance(value, list) else value


def _api_name(name: str) -> str:
    return "dynamoDB" if name == "dynamo_db" else _STEP.sub(lambda step: step[1].upper(), name)
