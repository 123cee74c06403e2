"""Detector models for tests of the edge."""

from typing import Any


def hot_motor() -> dict[str, Any]:
    """An alarm while the model says anomaly."""

    def state(name: str, condition: str, to: str, actions: list[Any]) -> dict[str, Any]:
        return {
            "stateName": name,
            "onInput": {
                "events": [],
                "transitionEvents": [{"eventName": f"to_{to}", "condition": condition, "actions": [], "nextState": to}],
            },
            "onEnter": {"events": [{"eventName": "enter", "condition": "true", "actions": actions}] if actions else []},
            "onExit": {"events": []},
        }

    ring = [{"iotTopicPublish": {"mqttTopic": "'wt/motor-1/notification'"}}]
    return {
        "detectorModelName": "hot_motor",
        "key": "thing",
        "evaluationMethod": "SERIAL",
        "detectorModelDefinition": {
            "initialStateName": "Well",
            "states": [
                state("Well", "$input.Prediction.anomaly == 1", "Hot", []),
                state("Hot", "$input.Prediction.anomaly == 0", "Well", ring),
            ],
        },
    }
