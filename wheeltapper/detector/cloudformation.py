"""
CloudFormation and SAM templates, and parts of them, to IoT Events API bodies.

Intrinsic functions are resolved from the template's parameters, mappings and conditions. What only a deployment could
know (an ARN of another resource, an export of another stack) is assumed, and each assumption is remarked upon.
"""

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from wheeltapper.detector.documents import Remark, parse_document
from wheeltapper.errors import DefinitionError

KINDS = {
    "AWS::IoTEvents::Input": "inputName",
    "AWS::IoTEvents::DetectorModel": "detectorModelName",
    "AWS::IoTEvents::AlarmModel": "alarmModelName",
}

PSEUDO_PARAMETERS = {
    "AWS::AccountId": "123456789012",
    "AWS::NotificationARNs": [],
    "AWS::Partition": "aws",
    "AWS::Region": "us-east-1",
    "AWS::StackId": "arn:aws:cloudformation:us-east-1:123456789012:stack/wheeltapper/0",
    "AWS::StackName": "wheeltapper",
    "AWS::URLSuffix": "amazonaws.com",
}

# Resource type → (property that names it, what Ref gives, what GetAtt Arn gives).
_ARN = "arn:{AWS::Partition}:"
_PLACE = "{AWS::Region}:{AWS::AccountId}:"
_NEIGHBOURS = {
    "AWS::SNS::Topic": ("TopicName", f"{_ARN}sns:{_PLACE}{{name}}", ""),
    "AWS::SQS::Queue": (
        "QueueName",
        "https://sqs.{AWS::Region}.{AWS::URLSuffix}/{AWS::AccountId}/{name}",
        f"{_ARN}sqs:{_PLACE}{{name}}",
    ),
    "AWS::Lambda::Function": ("FunctionName", "{name}", f"{_ARN}lambda:{_PLACE}function:{{name}}"),
    "AWS::Serverless::Function": ("FunctionName", "{name}", f"{_ARN}lambda:{_PLACE}function:{{name}}"),
    "AWS::DynamoDB::Table": ("TableName", "{name}", f"{_ARN}dynamodb:{_PLACE}table/{{name}}"),
    "AWS::Serverless::SimpleTable": ("TableName", "{name}", f"{_ARN}dynamodb:{_PLACE}table/{{name}}"),
    "AWS::KinesisFirehose::DeliveryStream": (
        "DeliveryStreamName",
        "{name}",
        f"{_ARN}firehose:{_PLACE}deliverystream/{{name}}",
    ),
    "AWS::IAM::Role": ("RoleName", "{name}", f"{_ARN}iam::{{AWS::AccountId}}:role/{{name}}"),
}

# What CloudFormation turns into numbers and booleans; every other scalar of these resources is a string.
_INTEGERS = {"seconds", "severity"}
_BOOLEANS = {"useBase64", "disabledOnInitialization", "enabled"}

# By which a resource is known that stands alone: its properties, and answers as SDKs whose names begin so print them.
_KNOWN_BY = ("DetectorModelDefinition", "InitialStateName", "AlarmRule", "InputDefinition", "DetectorModel", "Input")

_ABSENT = object()
_HOLE = re.compile(r"\$\{(!?)([^}]*)\}")


def is_template(document: Any) -> bool:
    """Whether a document is a template, what printed one, or the resources of one."""
    return _template_in(document) is not None


def _template_in(document: Any) -> Mapping[str, Any] | None:
    if not isinstance(document, dict):
        return None
    printed = document.get("TemplateBody")  # by `aws cloudformation get-template`: JSON as it is, YAML as text
    if printed is not None:
        return _template_in(parse_document(printed, "TemplateBody") if isinstance(printed, str) else printed)
    if isinstance(document.get("Resources"), dict):
        return document
    return {"Resources": document} if _is_resources(document) else None


def _is_resources(document: Mapping[str, Any]) -> bool:
    return any(isinstance(each, dict) and _has_type(each) for each in document.values())


def _has_type(resource: Mapping[str, Any]) -> bool:
    return str(resource.get("Type")) in KINDS


def is_resource(document: Mapping[str, Any]) -> bool:
    """Whether a document is one resource, or its properties: a body whose names begin with capitals."""
    return _has_type(document) or any(isinstance(document.get(name), dict | str) for name in _KNOWN_BY)


def read_resource(
    document: Mapping[str, Any], name: str, parameters: Mapping[str, str], remark: Remark
) -> dict[str, Any]:
    """
    The API body that a resource, or its properties, stand for; see ``read_template``.

    Args:
        document: what ``is_resource`` knows.
        name: what the document is called.
        parameters, remark: as for ``read_template``.
    """
    properties = document.get("Properties") if _has_type(document) else document
    return _Template({"Resources": {}}, parameters, remark, KINDS).properties(properties, name)


def read_template(
    document: Mapping[str, Any], parameters: Mapping[str, str], remark: Remark, kinds: Mapping[str, str] = KINDS
) -> list[tuple[str, dict[str, Any]]]:
    """
    The IoT Events resources of a template.

    Args:
        document: what ``is_template`` knows.
        parameters: values for the template's parameters and pseudo parameters (``AWS::Region``).
        remark: told of (where, what) for each assumption and each thing left out.
        kinds: the resource types wanted, each with the member that names one.

    Returns:
        (resource type, API body) in the order of the template.

    Raises:
        DefinitionError: an intrinsic function is malformed, or refers to what the template does not have.
    """
    return _Template(_template_in(document) or {"Resources": {}}, parameters, remark, kinds).bodies()


class _Template:
    def __init__(
        self, template: Mapping[str, Any], parameters: Mapping[str, str], remark: Remark, kinds: Mapping[str, str]
    ) -> None:
        self._kinds = kinds
        self._resources: Mapping[str, Any] = template["Resources"]
        self._mappings = _object(template, "Mappings")
        self._conditions = _object(template, "Conditions")
        self._deciding: list[str] = []
        self._remark = remark
        self._declared = _object(template, "Parameters")
        self._values = self._parameter_values(parameters)
        self._unused = set(parameters)

    def bodies(self) -> list[tuple[str, dict[str, Any]]]:
        found = []
        others: dict[str, list[str]] = {}
        for logical_id, resource in self._resources.items():
            kind = str(resource.get("Type") if isinstance(resource, dict) else None)
            if kind not in self._kinds:
                others.setdefault(kind, []).append(logical_id)
                continue
            if "Condition" in resource and not self._decide(resource["Condition"], f"Resources.{logical_id}.Condition"):
                self._remark(f"Resources.{logical_id}", f"left out: its condition {resource['Condition']!r} is false")
                continue
            found.append((kind, self._body(logical_id, kind, resource)))
        for kind, logical_ids in others.items():
            self._remark(f"Resources.{', '.join(logical_ids)}", f"left out: {kind} is not an IoT Events resource")
        self._tell_unused()
        return found

    def properties(self, given: Any, where: str) -> dict[str, Any]:
        """Properties that stand alone, under the API's names."""
        body = self._renamed(given, where)
        self._tell_unused()
        return body

    def _tell_unused(self) -> None:
        for name in sorted(self._unused - set(PSEUDO_PARAMETERS)):
            self._remark(f"Parameters.{name}", "given, but no IoT Events resource uses it")

    def _body(self, logical_id: str, kind: str, resource: Mapping[str, Any]) -> dict[str, Any]:
        where = f"Resources.{logical_id}"
        for attribute in sorted(set(resource) - {"Type", "Properties", "Condition", "DependsOn", "Metadata"}):
            self._remark(f"{where}.{attribute}", "has no meaning outside CloudFormation; ignored")
        body = self._renamed(resource.get("Properties"), f"{where}.Properties")
        name = self._kinds[kind]
        if name not in body:
            body = {name: logical_id, **body}
            self._remark(where, f"names no {name}; its logical id {logical_id!r} is taken")
        return body

    def _renamed(self, properties: Any, where: str) -> dict[str, Any]:
        resolved = self._resolve(properties or {}, where)
        if not isinstance(resolved, dict):
            raise DefinitionError("must be an object", path=where)
        body: dict[str, Any] = _camel(resolved)
        return body

    def _parameter_values(self, given: Mapping[str, str]) -> dict[str, Any]:
        values: dict[str, Any] = dict(PSEUDO_PARAMETERS)
        values.update(given)
        for name, declaration in self._declared.items():
            if not isinstance(declaration, dict) or (name not in given and "Default" not in declaration):
                continue
            text = given.get(name, _text(declaration.get("Default")))
            is_list = "List" in str(declaration.get("Type"))
            values[name] = [each.strip() for each in text.split(",")] if is_list else text
        return values

    # -- intrinsic functions

    def _resolve(self, value: Any, where: str) -> Any:
        if isinstance(value, list):
            resolved = [self._resolve(each, f"{where}[{place}]") for place, each in enumerate(value)]
            return [each for each in resolved if each is not _ABSENT]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            name, argument = next(iter(value.items()))
            function = self._FUNCTIONS.get(name)
            if function is not None:
                return function(self, argument, where)
            if isinstance(name, str) and name.startswith("Fn::"):
                return self._assume(where, name, json.dumps(argument, default=str))
        out = {}
        for name, each in value.items():
            resolved = self._resolve(each, f"{where}.{name}")
            if resolved is not _ABSENT:
                out[name] = resolved
        return out

    def _assume(self, where: str, what: str, detail: str) -> str:
        assumed = f"{what}({detail})"
        self._remark(where, f"{what} {detail}: known only to a deployment; the text {assumed!r} stands in")
        return assumed

    def _ref(self, argument: Any, where: str) -> Any:
        name = _string(argument, where, "Ref")
        if name == "AWS::NoValue":
            return _ABSENT
        if name in self._values:
            self._unused.discard(name)
            return self._values[name]
        resource = self._resources.get(name)
        if isinstance(resource, dict):
            return self._neighbour(name, resource, "Ref", where)
        if name in self._declared:
            raise DefinitionError(f"parameter {name!r} has no default; pass --parameter {name}=…", path=where)
        self._remark(
            where, f"Ref {name!r} refers to nothing here; the name itself stands in (--parameter {name}=… sets it)"
        )
        return name

    def _get_att(self, argument: Any, where: str) -> str:
        parts = argument.split(".", 1) if isinstance(argument, str) else argument
        if not isinstance(parts, list) or len(parts) < 2 or not isinstance(parts[0], str):
            raise DefinitionError("Fn::GetAtt needs [resource, attribute]", path=where)
        name, attribute = parts[0], str(self._resolve(parts[1], where))
        resource = self._resources.get(name)
        if not isinstance(resource, dict):
            return self._assume(where, "GetAtt", f"{name}.{attribute}")
        return self._neighbour(name, resource, attribute, where)

    def _neighbour(self, logical_id: str, resource: Mapping[str, Any], attribute: str, where: str) -> str:
        """What another resource is called, by CloudFormation's own rule for its type."""
        kind = str(resource.get("Type"))
        properties = resource.get("Properties")
        properties = properties if isinstance(properties, dict) else {}
        if kind in KINDS:
            name_property = KINDS[kind][:1].upper() + KINDS[kind][1:]
            if attribute != "Ref":
                return self._assume(where, "GetAtt", f"{logical_id}.{attribute}")
            return str(self._resolve(properties.get(name_property, logical_id), where))
        name_property, ref, arn = _NEIGHBOURS.get(kind, ("", "{name}", ""))
        pattern = ref if attribute == "Ref" else arn if attribute in ("Arn", "TopicArn") else ""
        if attribute == "TopicArn":
            pattern = ref
        if attribute == name_property and name_property:
            pattern = "{name}"
        if not pattern:
            return self._assume(where, "GetAtt", f"{logical_id}.{attribute}")
        name = self._resolve(properties.get(name_property, logical_id), where) if name_property else logical_id
        assumed = pattern.replace("{name}", _text(name))
        for pseudo in ("AWS::Partition", "AWS::Region", "AWS::AccountId", "AWS::URLSuffix"):
            assumed = assumed.replace("{" + pseudo + "}", _text(self._values[pseudo]))
        if name_property not in properties:
            self._remark(where, f"{logical_id} ({kind}) gets its name from a deployment; {assumed!r} stands in")
        return assumed

    def _sub(self, argument: Any, where: str) -> str:
        local: Mapping[str, Any] = {}
        if isinstance(argument, list):
            if len(argument) != 2 or not isinstance(argument[1], dict):
                raise DefinitionError("Fn::Sub needs a text, or [text, {name: value}]", path=where)
            argument, local = argument[0], argument[1]
        text = _string(argument, where, "Fn::Sub")

        def fill(hole: re.Match[str]) -> str:
            literal, name = hole.group(1), hole.group(2).strip()
            if literal:
                return "${" + hole.group(2) + "}"
            if name in local:
                return _text(self._resolve(local[name], where))
            if "." in name and name not in self._values:
                return self._get_att(name, where)
            return _text(self._ref(name, where))

        return _HOLE.sub(fill, text)

    def _join(self, argument: Any, where: str) -> str:
        separator, values = self._pair(argument, where, "Fn::Join")
        if not isinstance(values, list):
            raise DefinitionError("Fn::Join needs [separator, [values]]", path=where)
        return _text(separator).join(_text(each) for each in values)

    def _split(self, argument: Any, where: str) -> list[str]:
        separator, text = self._pair(argument, where, "Fn::Split")
        if not separator:
            raise DefinitionError("Fn::Split needs a separator", path=where)
        return _text(text).split(_text(separator))

    def _select(self, argument: Any, where: str) -> Any:
        index, values = self._pair(argument, where, "Fn::Select")
        try:
            place = int(index)
            if place < 0:
                raise IndexError
            return values[place]
        except (TypeError, ValueError, IndexError, KeyError):
            raise DefinitionError(f"Fn::Select: no element {index!r}", path=where) from None

    def _find_in_map(self, argument: Any, where: str) -> Any:
        if not isinstance(argument, list) or len(argument) < 3:
            raise DefinitionError("Fn::FindInMap needs [map, key, key]", path=where)
        keys = [_text(self._resolve(each, where)) for each in argument[:3]]
        value: Any = self._mappings
        for key in keys:
            value = value.get(key, _ABSENT) if isinstance(value, dict) else _ABSENT
        if value is not _ABSENT:
            return value
        if len(argument) == 4 and isinstance(argument[3], dict) and "DefaultValue" in argument[3]:
            return self._resolve(argument[3]["DefaultValue"], where)
        raise DefinitionError(f"Fn::FindInMap: Mappings has no {'.'.join(keys)}", path=where)

    def _base64(self, argument: Any, where: str) -> str:
        return base64.b64encode(_text(self._resolve(argument, where)).encode()).decode()

    def _length(self, argument: Any, where: str) -> int:
        values = self._resolve(argument, where)
        if not isinstance(values, list):
            raise DefinitionError("Fn::Length needs a list", path=where)
        return len(values)

    def _to_json(self, argument: Any, where: str) -> str:
        return json.dumps(self._resolve(argument, where), separators=(",", ":"))

    def _if(self, argument: Any, where: str) -> Any:
        if not isinstance(argument, list) or len(argument) != 3:
            raise DefinitionError("Fn::If needs [condition, then, else]", path=where)
        return self._resolve(argument[1] if self._decide(argument[0], where) else argument[2], where)

    def _truth(self, argument: Any, where: str) -> Any:
        """A condition's function where a value is wanted: only conditions may hold one."""
        raise DefinitionError("condition functions belong in Conditions", path=where)

    def _pair(self, argument: Any, where: str, function: str) -> tuple[Any, Any]:
        if not isinstance(argument, list) or len(argument) != 2:
            raise DefinitionError(f"{function} needs two arguments", path=where)
        return self._resolve(argument[0], where), self._resolve(argument[1], where)

    # -- conditions

    def _decide(self, condition: Any, where: str) -> bool:
        if isinstance(condition, str):
            if condition not in self._conditions:
                raise DefinitionError(f"condition {condition!r} is not declared in Conditions", path=where)
            if condition in self._deciding:
                raise DefinitionError(f"condition {condition!r} depends on itself", path=where)
            self._deciding.append(condition)
            try:
                return self._decide(self._conditions[condition], f"Conditions.{condition}")
            finally:
                self._deciding.pop()
        if not isinstance(condition, dict) or len(condition) != 1:
            raise DefinitionError("a condition is a name or one condition function", path=where)
        name, argument = next(iter(condition.items()))
        if name == "Condition":
            return self._decide(argument, where)
        arguments = argument if isinstance(argument, list) else [argument]
        if name == "Fn::Equals" and len(arguments) == 2:
            left, right = (self._resolve(each, where) for each in arguments)
            return _text(left) == _text(right)
        if name == "Fn::Not" and len(arguments) == 1:
            return not self._decide(arguments[0], where)
        if name == "Fn::And":
            return all(self._decide(each, where) for each in arguments)
        if name == "Fn::Or":
            return any(self._decide(each, where) for each in arguments)
        raise DefinitionError(f"{name} is not a condition function", path=where)

    _FUNCTIONS = {  # noqa: RUF012 never changed
        "Ref": _ref,
        "Fn::Base64": _base64,
        "Fn::FindInMap": _find_in_map,
        "Fn::GetAtt": _get_att,
        "Fn::If": _if,
        "Fn::Join": _join,
        "Fn::Length": _length,
        "Fn::Select": _select,
        "Fn::Split": _split,
        "Fn::Sub": _sub,
        "Fn::ToJsonString": _to_json,
        "Fn::And": _truth,
        "Fn::Equals": _truth,
        "Fn::Not": _truth,
        "Fn::Or": _truth,
    }


def _object(mapping: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = mapping.get(name)
    return value if isinstance(value, dict) else {}


def _string(value: Any, where: str, function: str) -> str:
    if not isinstance(value, str):
        raise DefinitionError(f"{function} needs a text, not {value!r}", path=where)
    return value


def _text(value: Any) -> str:
    """
    A scalar as CloudFormation passes it to a string property.

    >>> _text(True), _text(0), _text(0.5), _text(60.0)
    ('true', '0', '0.5', '60.0')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)


def _camel(value: Any, name: str = "") -> Any:
    """
    CloudFormation's property names and scalars to the API's.

    >>> _camel({"SetTimer": {"TimerName": "t", "Seconds": "60"}, "Value": 0})
    {'setTimer': {'timerName': 't', 'seconds': 60}, 'value': '0'}
    """
    if isinstance(value, dict):
        renamed = {str(each)[:1].lower() + str(each)[1:]: each for each in value}
        return {camel: _camel(value[each], camel) for camel, each in renamed.items()}
    if isinstance(value, list):
        return [_camel(each, name) for each in value]
    if value is None:
        return None
    if name in _INTEGERS and isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,18}\s*", value):
        return int(value)
    if name in _INTEGERS and isinstance(value, int) and not isinstance(value, bool):
        return value
    if name in _BOOLEANS:
        return {"true": True, "false": False}.get(_text(value).lower(), value)
    return _text(value)
