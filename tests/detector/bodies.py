"""Short ways to write detector and alarm models in tests."""

from typing import Any

from wheeltapper.detector.action import Message

Json = dict[str, Any]


def event(name: str, condition: str | None = None, *actions: Json, to: str | None = None) -> Json:
    """An event or, with ``to``, a transition."""
    body: Json = {"eventName": name, "actions": list(actions)}
    if condition is not None:
        body["condition"] = condition
    if to is not None:
        body["nextState"] = to
    return body


def state(
    name: str,
    *,
    enter: list[Json] | None = None,
    events: list[Json] | None = None,
    transitions: list[Json] | None = None,
    leave: list[Json] | None = None,
) -> Json:
    return {
        "stateName": name,
        "onEnter": {"events": enter},
        "onInput": {"events": events, "transitionEvents": transitions},
        "onExit": None if leave is None else {"events": leave},
    }


def detector_model(*states: Json, key: str | None = "id", method: str | None = None, name: str = "m") -> Json:
    definition = {"states": list(states), "initialStateName": states[0]["stateName"]}
    body: Json = {"detectorModelName": name, "detectorModelDefinition": definition, "roleArn": "r"}
    return {**body, "key": key, "evaluationMethod": method}


def set_variable(name: str, value: str) -> Json:
    return {"setVariable": {"variableName": name, "value": value}}


def set_timer(name: str, seconds: int) -> Json:
    return {"setTimer": {"timerName": name, "seconds": seconds, "durationExpression": None}}


def reset_timer(name: str) -> Json:
    return {"resetTimer": {"timerName": name}}


def sns(arn: str = "arn") -> Json:
    return {"sns": {"targetArn": arn, "payload": None}}


def alarm_model(*, threshold: str = "70", operator: str = "GREATER", **more: Any) -> Json:
    """An enabled alarm on ``$input.In.v`` with the acknowledge flow."""
    rule = {"inputProperty": "$input.In.v", "comparisonOperator": operator, "threshold": threshold}
    capabilities = {
        "initializationConfiguration": {"disabledOnInitialization": False},
        "acknowledgeFlow": {"enabled": True},
    }
    body: Json = {"alarmModelName": "am", "roleArn": "r", "key": "id", "severity": 2, "alarmRule": {"simpleRule": rule}}
    return {**body, "alarmCapabilities": capabilities, **more}


def message(input_name: str = "In", message_id: str = "", time_ms: int | None = None, **payload: Any) -> Message:
    """A message for key ``k`` unless the payload says another."""
    return Message(input_name, {"id": "k", **payload}, message_id, time_ms)
