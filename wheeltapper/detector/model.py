"""
Detector and alarm models as AWS IoT Events writes them: JSON to frozen data.

Every lifecycle object and list may be missing, null or empty alike; nulls are accepted everywhere, as console exports
write them. What was given is kept verbatim in ``source``, and is what an API must answer with. Reading checks the shape
only; names, states and expressions are checked where the model is made into a ``plan``.
"""

import re
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from wheeltapper.errors import DefinitionError

ComparisonOperator = Literal["GREATER", "GREATER_OR_EQUAL", "LESS", "LESS_OR_EQUAL", "EQUAL", "NOT_EQUAL"]
OPERATOR_SIGNS = {
    "GREATER": ">",
    "GREATER_OR_EQUAL": ">=",
    "LESS": "<",
    "LESS_OR_EQUAL": "<=",
    "EQUAL": "==",
    "NOT_EQUAL": "!=",
}


class _Payload(Struct, rename="camel"):
    content_expression: str
    type: Literal["STRING", "JSON"]


class _SetVariable(Struct, rename="camel"):
    variable_name: str
    value: str


class _SetTimer(Struct, rename="camel"):
    timer_name: str
    seconds: int | None = None
    duration_expression: str | None = None


class _Timer(Struct, rename="camel"):
    timer_name: str


class _Sns(Struct, rename="camel"):
    target_arn: str
    payload: _Payload | None = None


class _IotTopicPublish(Struct, rename="camel"):
    mqtt_topic: str
    payload: _Payload | None = None


class _Lambda(Struct, rename="camel"):
    function_arn: str
    payload: _Payload | None = None


class _IotEvents(Struct, rename="camel"):
    input_name: str
    payload: _Payload | None = None


class _Sqs(Struct, rename="camel"):
    queue_url: str
    use_base64: bool | None = None
    payload: _Payload | None = None


class _Firehose(Struct, rename="camel"):
    delivery_stream_name: str
    separator: str | None = None
    payload: _Payload | None = None


class _DynamoDb(Struct, rename="camel"):
    hash_key_field: str
    hash_key_value: str
    table_name: str
    hash_key_type: str | None = None
    range_key_type: str | None = None
    range_key_field: str | None = None
    range_key_value: str | None = None
    operation: str | None = None
    payload_field: str | None = None
    payload: _Payload | None = None


class _DynamoDbV2(Struct, rename="camel"):
    table_name: str
    payload: _Payload | None = None


class _Variant(Struct, rename="camel"):
    string_value: str | None = None
    integer_value: str | None = None
    double_value: str | None = None
    boolean_value: str | None = None


class _Timestamp(Struct, rename="camel"):
    time_in_seconds: str
    offset_in_nanos: str | None = None


class _PropertyValue(Struct, rename="camel"):
    value: _Variant | None = None
    timestamp: _Timestamp | None = None
    quality: str | None = None


class _IotSiteWise(Struct, rename="camel"):
    entry_id: str | None = None
    asset_id: str | None = None
    property_id: str | None = None
    property_alias: str | None = None
    property_value: _PropertyValue | None = None


# The members of an action, in the order in which AWS lists them, and the shape of each.
_SHAPES: dict[str, type[Struct]] = {
    "setVariable": _SetVariable,
    "sns": _Sns,
    "iotTopicPublish": _IotTopicPublish,
    "setTimer": _SetTimer,
    "clearTimer": _Timer,
    "resetTimer": _Timer,
    "lambda": _Lambda,
    "iotEvents": _IotEvents,
    "sqs": _Sqs,
    "firehose": _Firehose,
    "dynamoDB": _DynamoDb,
    "dynamoDBv2": _DynamoDbV2,
    "iotSiteWise": _IotSiteWise,
}
ACTION_TYPES = tuple(_SHAPES)
INTERNAL_TYPES = ("setVariable", "setTimer", "clearTimer", "resetTimer")


class _Event(Struct, rename="camel"):
    event_name: str
    condition: str | None = None
    actions: list[dict[str, Any]] | None = None


class _TransitionEvent(Struct, rename="camel"):
    event_name: str
    condition: str
    next_state: str
    actions: list[dict[str, Any]] | None = None


class _Group(Struct, rename="camel"):
    events: list[_Event] | None = None
    transition_events: list[_TransitionEvent] | None = None


class _State(Struct, rename="camel"):
    state_name: str
    on_enter: _Group | None = None
    on_input: _Group | None = None
    on_exit: _Group | None = None


class _Definition(Struct, rename="camel"):
    states: list[_State]
    initial_state_name: str


class _DetectorBody(Struct, rename="camel"):
    detector_model_definition: _Definition
    detector_model_name: str = ""
    key: str | None = None
    evaluation_method: Literal["BATCH", "SERIAL"] | None = None


class _SimpleRule(Struct, rename="camel"):
    input_property: str
    comparison_operator: ComparisonOperator
    threshold: str


class _Rule(Struct, rename="camel"):
    simple_rule: _SimpleRule


class _EventActions(Struct, rename="camel"):
    alarm_actions: list[dict[str, Any]] | None = None


class _Notification(Struct, rename="camel"):
    notification_actions: list[dict[str, Any]] | None = None


class _Initialization(Struct, rename="camel"):
    disabled_on_initialization: bool


class _Flow(Struct, rename="camel"):
    enabled: bool


class _Capabilities(Struct, rename="camel"):
    initialization_configuration: _Initialization | None = None
    acknowledge_flow: _Flow | None = None


class _AlarmBody(Struct, rename="camel"):
    alarm_rule: _Rule
    alarm_model_name: str = ""
    key: str | None = None
    severity: int | None = None
    alarm_event_actions: _EventActions | None = None
    alarm_notification: _Notification | None = None
    alarm_capabilities: _Capabilities | None = None


_Shape = TypeVar("_Shape")
_AT = re.compile(r" - at `\$\.?(.*)`$")


class ActionDefinition(Struct, frozen=True):
    """One action: its type as AWS spells it and its body as written, nulls removed."""

    type: str
    body: dict[str, Any]


class Event(Struct, frozen=True, rename="camel"):
    """Actions under a condition; no condition is ``true``."""

    event_name: str
    condition: str | None = None
    actions: tuple[ActionDefinition, ...] = ()


class TransitionEvent(Struct, frozen=True, rename="camel"):
    """A condition that leads to another state."""

    event_name: str
    condition: str
    next_state: str
    actions: tuple[ActionDefinition, ...] = ()


class State(Struct, frozen=True, rename="camel"):
    """A state; its lifecycle groups are flattened."""

    state_name: str
    enter_events: tuple[Event, ...] = ()
    input_events: tuple[Event, ...] = ()
    transition_events: tuple[TransitionEvent, ...] = ()
    exit_events: tuple[Event, ...] = ()


class DetectorModel(Struct, frozen=True):
    """A CreateDetectorModel body; ``source`` is that body verbatim."""

    name: str
    states: tuple[State, ...]
    initial_state: str
    key: str | None
    evaluation_method: Literal["BATCH", "SERIAL"]
    source: dict[str, Any]


class AlarmModel(Struct, frozen=True):
    """
    A CreateAlarmModel body; ``source`` is that body verbatim.

    ``disabled_on_initialization`` and ``acknowledge_flow`` are None where the body does not say.
    """

    name: str
    key: str | None
    severity: int | None
    input_property: str
    comparison_operator: ComparisonOperator
    threshold: str
    actions: tuple[ActionDefinition, ...]
    notifications: tuple[dict[str, Any], ...]
    disabled_on_initialization: bool | None
    acknowledge_flow: bool | None
    source: dict[str, Any]


def read_model(source: dict[str, Any] | bytes) -> DetectorModel | AlarmModel:
    """
    Read a CreateDetectorModel or CreateAlarmModel body.

    Raises:
        DefinitionError: the body is neither, or its shape is wrong; ``path`` says where.
    """
    body = _decode(source)
    if body.get("alarmRule") is not None:
        return read_alarm_model(body)
    if body.get("detectorModelDefinition") is not None:
        return read_detector_model(body)
    raise DefinitionError("neither a detector model (detectorModelDefinition) nor an alarm model (alarmRule)")


def read_detector_model(source: dict[str, Any] | bytes) -> DetectorModel:
    """Read a CreateDetectorModel body."""
    source = _decode(source)
    body = _convert(source, _DetectorBody, "")
    definition = body.detector_model_definition
    return DetectorModel(
        name=body.detector_model_name,
        states=tuple(_read_state(state, f"states[{place}]") for place, state in enumerate(definition.states)),
        initial_state=definition.initial_state_name,
        key=body.key,
        evaluation_method=body.evaluation_method or "BATCH",
        source=source,
    )


def read_alarm_model(source: dict[str, Any] | bytes) -> AlarmModel:
    """Read a CreateAlarmModel body."""
    source = _decode(source)
    body = _convert(source, _AlarmBody, "")
    rule = body.alarm_rule.simple_rule
    given = (body.alarm_event_actions or _EventActions()).alarm_actions
    notification = (body.alarm_notification or _Notification()).notification_actions
    capabilities = body.alarm_capabilities or _Capabilities()
    initialization, flow = capabilities.initialization_configuration, capabilities.acknowledge_flow
    actions = _read_actions(given, "alarmEventActions.alarmActions")
    for place, action in enumerate(actions):
        if action.type in INTERNAL_TYPES:
            raise DefinitionError(
                f"an alarm has no {action.type} action", path=f"alarmEventActions.alarmActions[{place}]"
            )
    return AlarmModel(
        name=body.alarm_model_name,
        key=body.key,
        severity=body.severity,
        input_property=rule.input_property,
        comparison_operator=rule.comparison_operator,
        threshold=rule.threshold,
        actions=actions,
        notifications=tuple(notification or ()),
        disabled_on_initialization=initialization.disabled_on_initialization if initialization else None,
        acknowledge_flow=flow.enabled if flow else None,
        source=source,
    )


def without_nulls(value: Any) -> Any:
    """The same JSON without members that are null."""
    if isinstance(value, dict):
        return {name: without_nulls(member) for name, member in value.items() if member is not None}
    return value


def _decode(source: dict[str, Any] | bytes) -> dict[str, Any]:
    if isinstance(source, dict):
        return source
    if not isinstance(source, bytes):
        raise DefinitionError(f"a model is a JSON object, not {type(source).__name__}")
    try:
        return msgspec.json.decode(source, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DefinitionError(f"not a JSON object: {error}") from error
    except RecursionError:
        raise DefinitionError("nested too deep to be a model") from None


def _convert(value: Any, shape: type[_Shape], path: str) -> _Shape:
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        what = str(error)
        if where := _AT.search(what):
            path = f"{path}.{where[1]}".strip(".")
            what = what[: where.start()]
        what = what[:1].lower() + what[1:]
        raise DefinitionError(what, path=path.removeprefix("detectorModelDefinition.")) from error
    except (UnicodeEncodeError, RecursionError) as error:
        raise DefinitionError(f"not JSON: {error}", path=path) from error


def _read_state(state: _State, path: str) -> State:
    enter, given, leave = (group or _Group() for group in (state.on_enter, state.on_input, state.on_exit))
    for group, name in ((enter, "onEnter"), (leave, "onExit")):
        if group.transition_events:
            raise DefinitionError("transition events belong to onInput", path=f"{path}.{name}.transitionEvents")
    transitions = (
        TransitionEvent(
            event.event_name,
            event.condition,
            event.next_state,
            _read_actions(event.actions, f"{path}.onInput.transitionEvents[{place}].actions"),
        )
        for place, event in enumerate(given.transition_events or ())
    )
    return State(
        state_name=state.state_name,
        enter_events=_read_events(enter.events, f"{path}.onEnter"),
        input_events=_read_events(given.events, f"{path}.onInput"),
        transition_events=tuple(transitions),
        exit_events=_read_events(leave.events, f"{path}.onExit"),
    )


def _read_events(events: list[_Event] | None, path: str) -> tuple[Event, ...]:
    return tuple(
        Event(event.event_name, event.condition, _read_actions(event.actions, f"{path}.events[{place}].actions"))
        for place, event in enumerate(events or ())
    )


def _read_actions(actions: list[dict[str, Any]] | None, path: str) -> tuple[ActionDefinition, ...]:
    return tuple(_read_action(action, f"{path}[{place}]") for place, action in enumerate(actions or ()))


def _read_action(action: dict[str, Any], path: str) -> ActionDefinition:
    given = [name for name, body in action.items() if body is not None]
    if len(given) != 1:
        found = ", ".join(given) or "none"
        raise DefinitionError(f"an action has exactly one type, here: {found}", path=path)
    name = given[0]
    if name not in _SHAPES:
        raise DefinitionError(f"Invalid action type present in action definition: {name[:64]!r}.", path=path)
    _convert(action[name], _SHAPES[name], f"{path}.{name}")
    return ActionDefinition(name, without_nulls(action[name]))
