"""Topic rules of Terraform's providers, as ``aws iot get-topic-rule`` has them or as a template does."""

from collections.abc import Iterator, Mapping
from typing import Any

from wheeltapper.detector.terraform import api_body, objects, resources, stack_template


def terraform_rules(document: Mapping[str, Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    The topic rules of a state or a plan, each with its address.

    Raises:
        DefinitionError: the template of a stack cannot be read.
    """
    for resource in resources(document):
        place = f"{where}: {resource.address}"
        template = stack_template(resource.type, resource.values, place)
        if template is not None:
            yield place, template
        elif resource.type == "aws_iot_topic_rule":
            yield place, {"rule": _body(resource.values)}
        elif resource.type == "awscc_iot_topic_rule":
            yield place, api_body(resource.values)


def _body(values: Mapping[str, Any]) -> dict[str, Any]:
    actions: list[dict[str, Any]] = [{"iotEvents": api_body(action)} for action in objects(values.get("iot_events"))]
    for kind, blocks in values.items():
        if kind not in ("iot_events", "error_action"):
            actions += [{kind: block} for block in objects(blocks)]
    failing = objects(values.get("error_action"))
    return {
        "ruleName": values.get("name"),
        "sql": values.get("sql"),
        "awsIotSqlVersion": values.get("sql_version"),
        "ruleDisabled": values.get("enabled") is False,
        "actions": actions,
        "errorAction": failing[0] if failing else None,
    }
