"""Actions made ready to run: expressions parsed, and what would make an action meaningless refused."""

import re
from collections.abc import Iterator
from typing import Any, TypeAlias

from msgspec import Struct

from wheeltapper.detector.expression import Expression, Literal, parse, parse_or_none
from wheeltapper.detector.model import ActionDefinition
from wheeltapper.errors import DefinitionError

MAX_TIMER_S = 31_622_400
_VARIABLE_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,127}")

# Parameters that are text unless they happen to be an expression; in every other service's action all are expressions.
_TEXT_PARAMETERS = ("targetArn", "mqttTopic", "functionArn", "inputName", "queueUrl", "deliveryStreamName", "separator")
_SITEWISE_TYPES = {
    "stringValue": "text",
    "integerValue": "integer",
    "doubleValue": "decimal",
    "booleanValue": "boolean",
    "timeInSeconds": "integer",
    "offsetInNanos": "integer",
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "sqs": {"useBase64": False},
    "dynamoDB": {"hashKeyType": "STRING", "operation": "INSERT", "payloadField": "payload"},
}


class SetVariablePlan(Struct, frozen=True):
    path: str
    name: str
    value: Expression


class SetTimerPlan(Struct, frozen=True):
    path: str
    name: str
    duration: Expression


class ResetTimerPlan(Struct, frozen=True):
    path: str
    name: str


class ClearTimerPlan(Struct, frozen=True):
    path: str
    name: str


class Parameter(Struct, frozen=True):
    """
    A parameter of an external action.

    Attributes:
        name: as AWS spells it, with dots where it is nested: ``propertyValue.value.integerValue``.
        value: an expression, or text or a Boolean that stands for itself.
        kind: what its value must be or is made into: text, integer, decimal, boolean, or any.
    """

    name: str
    value: Expression | bool
    kind: str


class ExternalPlan(Struct, frozen=True):
    """An action that leaves the engine; ``defaults`` are parameters that were not given."""

    path: str
    type: str
    parameters: tuple[Parameter, ...]
    payload: Expression | None
    payload_type: str
    defaults: dict[str, Any]


ActionPlan: TypeAlias = SetVariablePlan | SetTimerPlan | ResetTimerPlan | ClearTimerPlan | ExternalPlan


def check_length(name: str, path: str) -> None:
    """
    See that a name is not empty or too long.

    Raises:
        DefinitionError: it is.
    """
    if not 1 <= len(name) <= 128:
        raise DefinitionError(f"a name has 1 to 128 characters, this has {len(name)}", path=path)


def plan_action(action: ActionDefinition, path: str) -> ActionPlan:
    """
    An action at a place of its definition, made ready.

    Raises:
        DefinitionError: it is not valid; ``path`` says where.
    """
    body = action.body
    path = f"{path}.{action.type}"
    match action.type:
        case "setVariable":
            name = body["variableName"]
            if not _VARIABLE_NAME.fullmatch(name):
                raise DefinitionError(
                    f"{name[:40]!r} must begin with a letter and hold letters, digits and _ only",
                    path=f"{path}.variableName",
                )
            return SetVariablePlan(path, name, parse(body["value"], path=f"{path}.value"))
        case "setTimer":
            check_length(body["timerName"], f"{path}.timerName")
            return SetTimerPlan(path, body["timerName"], _duration(body, path))
        case "resetTimer":
            check_length(body["timerName"], f"{path}.timerName")
            return ResetTimerPlan(path, body["timerName"])
        case "clearTimer":
            check_length(body["timerName"], f"{path}.timerName")
            return ClearTimerPlan(path, body["timerName"])
    return plan_external(action, path.removesuffix(f".{action.type}"))


def _duration(body: dict[str, Any], path: str) -> Expression:
    seconds, text = body.get("seconds"), body.get("durationExpression")
    if (seconds is None) == (text is None):
        raise DefinitionError("a timer has either seconds or a durationExpression", path=path)
    if text is not None:
        return parse(text, path=f"{path}.durationExpression")
    if seconds is None or not 1 <= seconds <= MAX_TIMER_S:
        raise DefinitionError(f"must be from 1 to {MAX_TIMER_S}, not {seconds}", path=f"{path}.seconds")
    return Literal(seconds)


def plan_external(action: ActionDefinition, path: str) -> ExternalPlan:
    """An action that leaves the engine, made ready; errors as for ``plan_action``."""
    path = f"{path}.{action.type}"
    body = dict(action.body)
    payload = body.pop("payload", None)
    content = None
    if payload is not None:
        if not payload["contentExpression"].strip():
            raise DefinitionError("Customized Payloads must be non-empty.", path=f"{path}.payload.contentExpression")
        content = parse(payload["contentExpression"], path=f"{path}.payload.contentExpression")
    defaults = {name: value for name, value in _DEFAULTS.get(action.type, {}).items() if name not in body}
    return ExternalPlan(
        path=path,
        type=action.type,
        parameters=tuple(_parameters(body, path, "")),
        payload=content,
        payload_type=payload["type"] if payload is not None else "",
        defaults=defaults,
    )


def _parameters(body: dict[str, Any], path: str, prefix: str) -> Iterator[Parameter]:
    for name, value in body.items():
        where = f"{path}.{name}"
        if isinstance(value, dict):
            yield from _parameters(value, where, f"{prefix}{name}.")
        elif isinstance(value, bool):
            yield Parameter(prefix + name, value, "any")
        elif name in _TEXT_PARAMETERS:
            tree = parse_or_none(value)
            yield Parameter(prefix + name, Literal(value) if tree is None else tree, "string")
        else:
            kind = _SITEWISE_TYPES.get(name, "any" if name in ("hashKeyValue", "rangeKeyValue") else "string")
            yield Parameter(prefix + name, parse(value, path=where), kind)


def trees_of(action: ActionPlan) -> Iterator[Expression]:
    """The expressions of an action."""
    match action:
        case SetVariablePlan(_, _, value):
            yield value
        case SetTimerPlan(_, _, duration):
            yield duration
        case ExternalPlan():
            yield from (p.value for p in action.parameters if not isinstance(p.value, bool))
            if action.payload is not None:
                yield action.payload
