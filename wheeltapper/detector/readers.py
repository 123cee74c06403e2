"""
Definitions from wherever they were kept: API bodies, console exports, CloudFormation and SAM templates or parts of them,
Terraform's states and plans.

A definition is handed on as it was written, nulls and order included; what cannot be honoured is listed in ``remarks``.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from wheeltapper.detector.cloudformation import (
    PSEUDO_PARAMETERS,
    is_resource,
    is_template,
    read_resource,
    read_template,
)
from wheeltapper.detector.documents import decode_text, parse_document
from wheeltapper.detector.terraform import KINDS as TERRAFORM_KINDS
from wheeltapper.detector.terraform import api_body, is_terraform, resources, stack_template
from wheeltapper.errors import DefinitionError

Body = dict[str, Any]

# How remarks on parameters that were not used begin.
PARAMETER = "Parameters."


class Remark(msgspec.Struct, frozen=True):
    """Something in a document that is not taken over, or that was assumed."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Definitions(msgspec.Struct):
    """What a document defines: Create bodies, verbatim, and what was left out or assumed."""

    detector_models: list[Body] = []
    alarm_models: list[Body] = []
    inputs: list[Body] = []
    remarks: list[Remark] = []

    def add(self, other: "Definitions") -> None:
        """Append another document's definitions."""
        self.detector_models.extend(other.detector_models)
        self.alarm_models.extend(other.alarm_models)
        self.inputs.extend(other.inputs)
        self.remarks.extend(other.remarks)

    def remark(self, where: str, what: str) -> None:
        """Note what was left out or assumed."""
        self.remarks.append(Remark(where, what))


_CREATE = {
    "detector_models": (
        *("detectorModelName", "detectorModelDefinition", "detectorModelDescription", "key", "roleArn"),
        *("evaluationMethod", "tags"),
    ),
    "alarm_models": (
        *("alarmModelName", "alarmModelDescription", "roleArn", "tags", "key", "severity", "alarmRule"),
        *("alarmNotification", "alarmEventActions", "alarmCapabilities"),
    ),
    "inputs": ("inputName", "inputDescription", "inputDefinition", "tags"),
}

_ASSIGNED = {
    "detectorModelVersion", "detectorModelArn", "alarmModelVersion", "alarmModelArn", "inputArn", "creationTime",
    "lastUpdateTime", "status", "statusMessage", "schemaVersion", "ResponseMetadata",
}  # fmt: skip

_KIND_LISTS = {
    "AWS::IoTEvents::DetectorModel": "detector_models",
    "AWS::IoTEvents::AlarmModel": "alarm_models",
    "AWS::IoTEvents::Input": "inputs",
}


def read_bytes(data: bytes, *, name: str, parameters: Mapping[str, str] | None = None) -> Definitions:
    """
    Every definition in a file's bytes; see ``read_text``.

    Raises:
        DefinitionError: also where the bytes are not text.
    """
    return read_text(decode_text(data, name), name=name, parameters=parameters)


def read_text(text: str, *, name: str, parameters: Mapping[str, str] | None = None) -> Definitions:
    """
    Every definition in a document's text.

    Args:
        text: JSON (comments allowed) or YAML.
        name: what the document is called, for errors, and what a nameless definition is called.
        parameters: values for a template's parameters.

    Raises:
        DefinitionError: not JSON or YAML, or holds no definition.
    """
    found = Definitions([], [], [], [])
    document = parse_document(text, name, found.remark)
    found.add(read_document(document, name=name, parameters=parameters))
    return found


def read_document(document: Any, *, name: str, parameters: Mapping[str, str] | None = None) -> Definitions:
    """
    Every definition in a parsed document; see ``read_text``.

    >>> found = read_document({"inputName": "Pump", "inputDefinition": {"attributes": [{"jsonPath": "TT01"}]}}, name="x")
    >>> found.inputs[0]["inputName"], found.remarks
    ('Pump', [])
    """
    found = Definitions([], [], [], [])
    _read(document, name, parameters or {}, found)
    if not (found.detector_models or found.alarm_models or found.inputs):
        raise DefinitionError(
            f"{name}: holds no detector model, alarm model or input; a Create or Describe body, a console export, a "
            "CloudFormation template or what `terraform show -json` prints is expected"
        )
    return found


def attributes_of(body: Body) -> list[str]:
    """The attribute paths that an input declares."""
    attributes = (body.get("inputDefinition") or {}).get("attributes") or []
    return [str(each["jsonPath"]) for each in attributes if isinstance(each, dict) and each.get("jsonPath")]


def _read(document: Any, name: str, parameters: Mapping[str, str], found: Definitions) -> None:
    if isinstance(document, list):
        for place, each in enumerate(document):
            _read(each, f"{name}[{place}]", parameters, found)
        return
    if not isinstance(document, dict):
        raise DefinitionError(f"{name}: a definition must be an object, not {type(document).__name__}")
    if is_terraform(document):
        _read_terraform(document, name, parameters, found)
        return
    if is_template(document):
        for kind, body in read_template(document, parameters, found.remark):
            getattr(found, _KIND_LISTS[kind]).append(_checked(body, _KIND_LISTS[kind], name, found))
        return
    if is_resource(document):
        document = read_resource(document, name, parameters, found.remark)
    else:
        _remark_parameters(parameters, name, found)
    kind, body = _unwrap(document)
    if not kind:
        found.remark(
            name, f"left out: members {', '.join(sorted(map(str, document))) or '(none)'} define nothing known"
        )
        return
    getattr(found, kind).append(_checked(body, kind, name, found))


def _remark_parameters(parameters: Mapping[str, str], name: str, found: Definitions) -> None:
    for parameter in sorted(set(parameters) - set(PSEUDO_PARAMETERS)):
        found.remark(f"{PARAMETER}{parameter}", f"given, but {name} is no template: only templates have parameters")


def _read_terraform(document: Mapping[str, Any], name: str, parameters: Mapping[str, str], found: Definitions) -> None:
    """The definitions of Terraform, and those of the templates that it hands to CloudFormation."""
    others: dict[str, list[str]] = {}
    stacks = 0
    for address, kind, values in resources(document):
        if kind in TERRAFORM_KINDS:
            members = _KIND_LISTS[TERRAFORM_KINDS[kind]]
            getattr(found, members).append(_checked(api_body(values), members, address, found))
        elif (template := stack_template(kind, values, address)) is not None:
            stacks += 1
            _read(template, address, parameters, found)
        else:
            others.setdefault(kind, []).append(address)
    for kind, addresses in others.items():
        found.remark(", ".join(addresses), f"left out: {kind} is not an IoT Events resource")
    if not stacks:
        _remark_parameters(parameters, name, found)


def _unwrap(document: Mapping[str, Any]) -> tuple[str, Body]:
    """The kind of an API body and its members, brought to the level of a Create request."""
    if isinstance(document.get("detectorModel"), dict):
        return "detector_models", _lift(document, "detectorModel", "detectorModelConfiguration")
    if isinstance(document.get("input"), dict):
        return "inputs", _lift(document, "input", "inputConfiguration")
    if "detectorModelDefinition" in document:
        return "detector_models", _lift({"": document}, "", "detectorModelConfiguration")
    if "states" in document and "initialStateName" in document:
        return "detector_models", {"detectorModelDefinition": dict(document)}
    if "alarmRule" in document:
        return "alarm_models", dict(document)
    if "inputDefinition" in document:
        return "inputs", _lift({"": document}, "", "inputConfiguration")
    return "", {}


def _lift(document: Mapping[str, Any], wrapper: str, configuration: str) -> Body:
    outer = {name: value for name, value in document.items() if name != wrapper}
    inner = dict(document[wrapper])
    settings = inner.pop(configuration, None)
    return {**outer, **(settings if isinstance(settings, dict) else {}), **inner}


def _checked(body: Body, kind: str, name: str, found: Definitions) -> Body:
    """Only what a Create request takes; everything else is remarked upon."""
    known = _CREATE[kind]
    name_member = known[0]
    where = str(body.get(name_member) or name)
    assigned = [member for member in body if member in _ASSIGNED]
    if assigned:
        found.remark(where, f"assigned anew, not taken over: {', '.join(assigned)}")
    for member in body:
        if member not in known and member not in _ASSIGNED:
            found.remark(where, f"member {member!r} is not part of the API; ignored")
    kept = {member: body[member] for member in body if member in known}
    if not kept.get(name_member):
        fallback = _identifier(name, kind)
        found.remark(where, f"names no {name_member}; {fallback!r} is taken")
        kept = {name_member: fallback, **{member: value for member, value in kept.items() if member != name_member}}
    return kept


def _identifier(name: str, kind: str) -> str:
    """A legal resource name from a document's name."""
    allowed = "_" if kind == "inputs" else "_-"
    text = "".join(each if each.isascii() and (each.isalnum() or each in allowed) else "_" for each in name).strip("_")
    text = text or "model"
    return (text if text[0].isalpha() or kind != "inputs" else f"input_{text}")[:128]
