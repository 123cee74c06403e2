"""
Rules for ``accessControl``: what a component may hear and say by IPC.

A policy that a nucleus cannot read grants nothing, and says so only when the first call is refused.
"""

import re
from typing import Any

import msgspec

from wheeltapper_components.recipe import Findings, below, type_name

LITE_SERVICE_BYTES = 4_096
PUBSUB, MQTT = "aws.greengrass.ipc.pubsub", "aws.greengrass.ipc.mqttproxy"
# The operations of the services that every nucleus, or every classic one with its own components, offers.
OPERATIONS = {
    PUBSUB: ("SubscribeToTopic", "PublishToTopic"),
    MQTT: ("SubscribeToIoTCore", "PublishToIoTCore"),
    "aws.greengrass.ShadowManager": (
        "GetThingShadow",
        "UpdateThingShadow",
        "DeleteThingShadow",
        "ListNamedShadowsForThing",
    ),
    "aws.greengrass.SecretManager": ("GetSecretValue",),
}
_ON_LITE = (PUBSUB, MQTT)
_POLICY = {"policyDescription": False, "operations": True, "resources": True}
_PREFIX = "aws.greengrass#"
_ESCAPES = re.compile(r"\$\{[*?$]\}")
_VARIABLES = re.compile(r"\{iot:thingName\}")


def check_access(access: Any, component: str, where: str, findings: Findings) -> list[str]:
    """Check the policies of one component; the ids of its policies."""
    if not isinstance(access, dict):
        findings.error("access-control", where, f"is {type_name(access)}; an object of services is needed")
        return []
    ids: list[str] = []
    for service, policies in access.items():
        place = below(where, service)
        _check_service(str(service), policies, place, findings)
        if isinstance(policies, dict):
            for policy_id, policy in policies.items():
                inside = below(place, policy_id)
                if policy_id in ids:
                    findings.error("policy-id", inside, "is the id of another policy; ids are unique on a device")
                elif component and not str(policy_id).startswith(component):
                    findings.warn(
                        "policy-id",
                        inside,
                        f"ids are unique on a device; begin it with the component's name: {component}:pubsub:1",
                    )
                ids.append(str(policy_id))
                _check_policy(str(service), policy, inside, findings)
    return ids


def _check_service(service: str, policies: Any, where: str, findings: Findings) -> None:
    if not isinstance(policies, dict):
        findings.error("access-control", where, f"is {type_name(policies)}; an object of policies by id is needed")
        return
    size = len(msgspec.json.encode(policies))
    if size > LITE_SERVICE_BYTES:
        findings.error(
            "size", where, f"is {size} bytes; nucleus lite reads {LITE_SERVICE_BYTES} for a service", nucleus="lite"
        )
    same = next((known for known in OPERATIONS if known.lower() == service.lower()), None)
    if same not in (None, service):
        findings.error("key-case", where, f"is written {same}")
    elif service in OPERATIONS and service not in _ON_LITE:
        findings.warn("classic-only", where, "classic only; nucleus lite does not offer this service", "classic")
    elif service not in OPERATIONS:
        findings.note("access-control", where, "is no service of a nucleus; another component must offer it")


def _check_policy(service: str, policy: Any, where: str, findings: Findings) -> None:
    fields = findings.keys(policy, _POLICY, where)
    operations = _texts(fields, "operations", where, findings)
    resources = _texts(fields, "resources", where, findings)
    known = OPERATIONS.get(service)
    for operation in operations if known else ():
        if operation != "*" and operation not in {_PREFIX + name for name in known or ()}:
            allowed = ", ".join(_PREFIX + name for name in known or ())
            findings.error(
                "access-control", below(where, "operations"), f"{operation!r}: no operation of it: {allowed}"
            )
    for place, resource in enumerate(resources):
        _check_resource(service, resource, f"{where}.resources[{place}]", findings)


def _check_resource(service: str, resource: str, where: str, findings: Findings) -> None:
    plain = _ESCAPES.sub("", resource)
    if "?" in plain:
        findings.error("access-control", where, f"{resource!r}: ? is refused; write * or, for the sign itself, ${{?}}")
    if "{" in _VARIABLES.sub("", plain):
        findings.error("access-control", where, f"{resource!r}: only {{iot:thingName}} is a variable here")
    if service == PUBSUB and {"+", "#"} & set(plain.split("/")):
        findings.warn(
            "literal-topic",
            where,
            f"{resource!r}: local topics know the wildcard * only; this allows the very same filter and nothing else",
            nucleus="lite",
        )
    if service == MQTT and "#" in plain and not (plain == "#" or (plain.endswith("/#") and plain.count("#") == 1)):
        findings.error("access-control", where, f"{resource!r}: # stands alone as the last level of an MQTT filter")


def _texts(fields: dict[str, Any], key: str, where: str, findings: Findings) -> list[str]:
    if key not in fields:
        return []
    values = fields[key]
    if not isinstance(values, list) or not values or not all(isinstance(value, str) and value for value in values):
        findings.error(
            "access-control", below(where, key), "must be a list of texts, not empty; else it grants nothing"
        )
        return []
    return values
