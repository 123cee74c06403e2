"""The payload that AWS IoT Events sends where an action does not say another."""

from typing import Any

import msgspec

from wheeltapper.detector.action import Action, Trigger


def default_payload(action: Action) -> dict[str, Any]:
    """
    The default object: event time, detector, trigger, and the state when the action ran.

    A detector without a key has no ``keyValue``; running or expired timers show their expiry in ms since the epoch.
    """
    detector = {"detectorModelName": action.model, "detectorModelVersion": action.version}
    if action.key:
        detector["keyValue"] = action.key
    return {
        "eventTime": action.time_ms,
        "payload": {
            "actionExecutionId": action.id,
            "detector": detector,
            "eventTriggerDetails": _trigger_details(action.trigger),
            "state": {"stateName": action.state, "variables": action.variables, "timers": action.timers},
        },
        "eventName": action.event,
    }


def payload_text(action: Action) -> str:
    """What to send: the action's own payload, or the default as JSON."""
    if action.payload is not None:
        return action.payload
    return msgspec.json.encode(default_payload(action)).decode()


def _trigger_details(trigger: Trigger) -> dict[str, str]:
    if trigger.type == "Message":
        return {"inputName": trigger.input_name, "messageId": trigger.message_id, "triggerType": "Message"}
    return {"triggerType": trigger.type, "timerName": trigger.timer_name}
