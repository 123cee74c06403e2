"""
The models people need most, ready to deploy: heartbeat, threshold, rate of change, deviation.

Each is a plain CreateDetectorModel body, valid on AWS IoT Events as well, beside the CreateInput body it reads.
"""

import re
from typing import Any

import msgspec

from wheeltapper.errors import SettingsError

ROLE = "arn:aws:iam::123456789012:role/wheeltapper"
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,127}")
_ATTRIBUTE = re.compile(r"[A-Za-z_][A-Za-z0-9_ -]*(\.[A-Za-z_][A-Za-z0-9_ -]*)*")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Made(msgspec.Struct):
    """A detector model and the input it reads."""

    model: dict[str, Any]
    input: dict[str, Any]


class Shape(msgspec.Struct, kw_only=True):
    """
    What all templates ask.

    Attributes:
        name: of the model; the input is called like ``input_name``.
        attributes: what the model reads, besides the key.
        topic: where alarms are published, an MQTT topic; ``sns`` is an ARN instead.
    """

    name: str
    input_name: str
    key: str = ""
    topic: str = ""
    sns: str = ""


def heartbeat(shape: Shape, *, seconds: int) -> Made:
    """An alarm when a machine has not reported for some seconds."""
    _check(shape, (), seconds=seconds)
    arrived = f'currentInput("{shape.input_name}")'
    alive = _state(
        "reporting",
        enter=[_event("start", "true", _set_timer("silence", seconds))],
        events=[_event("report", arrived, {"resetTimer": {"timerName": "silence"}})],
        transitions=[_transition("went_silent", 'timeout("silence")', "silent")],
    )
    silent = _state(
        "silent",
        enter=[_event("alarm", "true", _tell(shape))],
        transitions=[_transition("came_back", arrived, "reporting")],
    )
    return _made(shape, [alive, silent], [])


def threshold(
    shape: Shape, *, attribute: str, above: float | None = None, below: float | None = None,
    clear: float | None = None, seconds: int = 0,
) -> Made:  # fmt: skip
    """
    An alarm when a value passes a limit, for some seconds if asked, until it is back beyond ``clear``.

    Args:
        attribute: what is compared.
        above, below: exactly one of them is the limit.
        clear: where the alarm ends, on the good side of the limit; the limit itself if missing.
        seconds: how long the limit must be passed without a break; 0 is at once.
    """
    _check(shape, (attribute,), seconds=seconds or 1)
    if (above is None) == (below is None):
        raise SettingsError("threshold: give either --above or --below")
    limit = above if above is not None else below
    assert limit is not None  # noqa: S101 one of them is given
    clear = limit if clear is None else clear
    if clear > limit if above is not None else clear < limit:
        raise SettingsError(f"threshold: --clear {clear:g} must lie on the good side of {limit:g}")
    bad, good = (">", "<=") if above is not None else ("<", ">=")
    value = _reference(shape, attribute)
    breached, relieved = f"{value} {bad} {_number(limit)}", f"{value} {good} {_number(limit)}"
    return _watched(shape, [attribute], breached, relieved, f"{value} {good} {_number(clear)}", seconds)


def rate_of_change(shape: Shape, *, attribute: str, change: float) -> Made:
    """
    An alarm when a value differs from the last message's by more than ``change``; it ends with the first small step.

    Args:
        attribute: what is compared.
        change: the largest step between two messages that is normal, > 0.
    """
    _check(shape, (attribute,), seconds=1)
    if change <= 0:
        raise SettingsError("rate-of-change: --change must be greater than 0")
    value, step = _reference(shape, attribute), _number(change)
    arrived = f'currentInput("{shape.input_name}")'
    moved = f"({value} - $variable.last > {step} || $variable.last - {value} > {step})"
    calm = f"({value} - $variable.last <= {step} && $variable.last - {value} <= {step})"
    remember = _event("remember", f"{arrived} && !isUndefined({value})", _assign("last", value))
    steady = _state(
        "steady", events=[remember], transitions=[_transition("jumped", f"{arrived} && {moved}", "jumping")]
    )
    jumping = _state(
        "jumping",
        enter=[_event("alarm", "true", _tell(shape))],
        events=[remember],
        transitions=[_transition("settled", f"{arrived} && {calm}", "steady")],
    )
    return _made(shape, [steady, jumping], [attribute])


def deviation(shape: Shape, *, attribute: str, reference: str, tolerance: float, seconds: int = 0) -> Made:
    """
    An alarm when a value is further from another attribute (a set point, a twin sensor) than the tolerance.

    Args:
        attribute, reference: the two attributes.
        tolerance: the largest distance that is normal, > 0.
        seconds: how long the distance must be exceeded without a break; 0 is at once.
    """
    _check(shape, (attribute, reference), seconds=seconds or 1)
    if tolerance <= 0:
        raise SettingsError("deviation: --tolerance must be greater than 0")
    value, wanted, width = _reference(shape, attribute), _reference(shape, reference), _number(tolerance)
    bad = f"({value} - {wanted} > {width} || {wanted} - {value} > {width})"
    good = f"({value} - {wanted} <= {width} && {wanted} - {value} <= {width})"
    return _watched(shape, [attribute, reference], bad, good, good, seconds)


def _watched(shape: Shape, attributes: list[str], bad: str, relieved: str, good: str, seconds: int) -> Made:
    """Normal and alarm, with a state between them where the bad must last and any relief ends it."""
    alarm = _state(
        "alarm", enter=[_event("alarm", "true", _tell(shape))], transitions=[_transition("cleared", good, "normal")]
    )
    if not seconds:
        return _made(shape, [_state("normal", transitions=[_transition("breached", bad, "alarm")]), alarm], attributes)
    normal = _state("normal", transitions=[_transition("suspected", bad, "suspect")])
    suspect = _state(
        "suspect",
        enter=[_event("start", "true", _set_timer("lasting", seconds))],
        transitions=[
            _transition("recovered", f'triggerType("Message") && {relieved}', "normal"),
            _transition("breached", 'timeout("lasting")', "alarm"),
        ],
        leave=[_event("stop", "true", {"clearTimer": {"timerName": "lasting"}})],
    )
    return _made(shape, [normal, suspect, alarm], attributes)


def _check(shape: Shape, attributes: tuple[str, ...], *, seconds: int) -> None:
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", shape.name):
        raise SettingsError(f"--name {shape.name!r}: must be 1 to 128 of the characters A-Z a-z 0-9 _ -")
    if not _NAME.fullmatch(shape.input_name):
        raise SettingsError(f"--input {shape.input_name!r}: must be letters, digits and _, a letter first")
    for attribute in (*attributes, *((shape.key,) if shape.key else ())):
        if not _ATTRIBUTE.fullmatch(attribute):
            raise SettingsError(f"attribute {attribute!r}: must be a path such as temperature or motor.temperature")
    if bool(shape.topic) == bool(shape.sns):
        raise SettingsError("say where alarms go: either --topic TOPIC or --sns ARN")
    if not 1 <= seconds <= 31_622_400:
        raise SettingsError("--seconds must be from 1 to 31622400")


def _reference(shape: Shape, attribute: str) -> str:
    steps = [step if _IDENTIFIER.fullmatch(step) else f"`{step}`" for step in attribute.split(".")]
    return f"$input.{shape.input_name}.{'.'.join(steps)}"


def _number(value: float) -> str:
    """
    A number as a literal of the language.

    >>> _number(80.0), _number(-0.25)
    ('80', '-0.25')
    """
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def _event(name: str, condition: str, *actions: dict[str, Any]) -> dict[str, Any]:
    return {"eventName": name, "condition": condition, "actions": list(actions)}


def _transition(name: str, condition: str, target: str) -> dict[str, Any]:
    return {"eventName": name, "condition": condition, "actions": [], "nextState": target}


def _set_timer(name: str, seconds: int) -> dict[str, Any]:
    return {"setTimer": {"timerName": name, "seconds": seconds}}


def _assign(name: str, value: str) -> dict[str, Any]:
    return {"setVariable": {"variableName": name, "value": value}}


def _tell(shape: Shape) -> dict[str, Any]:
    return {"iotTopicPublish": {"mqttTopic": shape.topic}} if shape.topic else {"sns": {"targetArn": shape.sns}}


def _state(
    name: str,
    *,
    enter: list[dict[str, Any]] | None = None,
    events: list[dict[str, Any]] | None = None,
    transitions: list[dict[str, Any]] | None = None,
    leave: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    return {
        "stateName": name,
        "onEnter": {"events": enter or []},
        "onInput": {"events": events or [], "transitionEvents": transitions or []},
        "onExit": {"events": leave or []},
    }


def _made(shape: Shape, states: list[dict[str, Any]], attributes: list[str]) -> Made:
    model: dict[str, Any] = {
        "detectorModelName": shape.name,
        "roleArn": ROLE,
        "detectorModelDefinition": {"states": states, "initialStateName": states[0]["stateName"]},
        "evaluationMethod": "BATCH",
    }
    if shape.key:
        model["key"] = shape.key
    declared = dict.fromkeys([*([shape.key] if shape.key else []), *attributes]) or {"time_ms": None}
    paths = [{"jsonPath": _json_path(path)} for path in declared]
    return Made(model, {"inputName": shape.input_name, "inputDefinition": {"attributes": paths}})


def _json_path(path: str) -> str:
    return ".".join(step if re.fullmatch(r"[\w-]+", step) else f"`{step}`" for step in path.split("."))
