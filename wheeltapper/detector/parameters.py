"""Parameters and payloads of external actions: from expressions to what a service is sent."""

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from wheeltapper.detector.expression import Expression, show
from wheeltapper.detector.plan_actions import ExternalPlan, Parameter
from wheeltapper.detector.values import UNDEFINED, Operand, convert, is_absent, is_number, text_of

Evaluate: TypeAlias = Callable[[Expression], Operand]
Fail: TypeAlias = Callable[[str, str], None]

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)


def evaluate_external(action: ExternalPlan, evaluate: Evaluate, fail: Fail) -> tuple[dict[str, Any], str | None] | None:
    """
    The parameters, nested as AWS nests them, and the text of the payload.

    Returns:
        None where the action cannot be carried out; ``fail(path, what)`` has then been told why. A JSON payload that is not
        JSON is sent all the same, and told.
    """
    parameters: dict[str, Any] = dict(action.defaults)
    for parameter in action.parameters:
        value = parameter.value if isinstance(parameter.value, bool) else evaluate(parameter.value)
        shaped = _shaped(value, parameter.kind)
        if is_absent(shaped):
            fail(f"{action.path}.{parameter.name}", _why_not(parameter, value))
            return None
        _place(parameters, parameter.name, shaped)
    if action.payload is None:
        return parameters, None
    payload = _payload(action, action.payload, evaluate, fail)
    return None if payload is None else (parameters, payload)


def _place(parameters: dict[str, Any], name: str, value: Any) -> None:
    *outer, last = name.split(".")
    for step in outer:
        parameters = parameters.setdefault(step, {})
    parameters[last] = value


def _shaped(value: Operand, kind: str) -> Operand:
    match kind:
        case "string":
            return value if type(value) is str else UNDEFINED
        case "text":
            return text_of(value)
        case "boolean":
            return convert("Boolean", value.lower() if type(value) is str else value)  # AWS writes 'TRUE' and 'FALSE'
        case "decimal":
            return convert("Decimal", value)
        case "integer":
            return _integer(value)
    return value


def _integer(value: Operand) -> Operand:
    if type(value) is str and _INTEGER.fullmatch(value):
        value = int(value)
    number = value if type(value) is int else convert("Decimal", value)
    return int(number) if is_number(number) and number == int(number) else UNDEFINED


def _why_not(parameter: Parameter, value: Operand) -> str:
    source = "" if isinstance(parameter.value, bool) else show(parameter.value) + " "
    what = "null" if value is None else "undefined" if value is UNDEFINED else repr(value)
    wanted = "a value" if parameter.kind == "any" else f"of kind {parameter.kind}"
    return f"{source}is {what}, must be {wanted}; the action is not carried out"


def _payload(action: ExternalPlan, content: Expression, evaluate: Evaluate, fail: Fail) -> str | None:
    path = f"{action.path}.payload.contentExpression"
    value = evaluate(content)
    if is_absent(value):
        fail(path, f"{show(content)} has no value; the action is not carried out")
        return None
    if action.payload_type == "STRING":
        text = text_of(value)
        return text if type(text) is str else None
    if type(value) is not str:
        fail(path, f"a JSON payload must be a string, {show(content)} is {value!r}; the action is not carried out")
        return None
    try:
        msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        fail(path, "the payload is not JSON; it is sent all the same")
    return value
