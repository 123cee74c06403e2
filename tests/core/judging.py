"""A judge in virtual time and a small detector model, for the tests of the durable host."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from wheeltapper.clock import ManualClock
from wheeltapper.judge import Action, Deployment, Judge, JudgeSettings, Message

START_MS = 1_700_000_000_000

MODEL: dict[str, Any] = {
    "detectorModelName": "Motor",
    "roleArn": "arn:aws:iam::123456789012:role/r",
    "key": "id",
    "detectorModelDefinition": {
        "initialStateName": "cold",
        "states": [
            {
                "stateName": "cold",
                "onInput": {
                    "events": [
                        {
                            "eventName": "count",
                            "condition": 'currentInput("Reading")',
                            "actions": [{"setVariable": {"variableName": "seen", "value": "$input.Reading.n"}}],
                        }
                    ],
                    "transitionEvents": [
                        {
                            "eventName": "heat",
                            "condition": "$input.Reading.t > 80",
                            "nextState": "hot",
                            "actions": [{"setTimer": {"timerName": "cooling", "seconds": 60}}],
                        }
                    ],
                },
            },
            {
                "stateName": "hot",
                "onEnter": {
                    "events": [
                        {"eventName": "tell", "actions": [{"sns": {"targetArn": "arn:aws:sns:eu-west-1:1:alarms"}}]}
                    ]
                },
                "onInput": {
                    "transitionEvents": [
                        {"eventName": "cooled", "condition": 'timeout("cooling")', "nextState": "cold"}
                    ]
                },
            },
        ],
    },
}

ALARM: dict[str, Any] = {
    "alarmModelName": "Overheat",
    "roleArn": "arn:aws:iam::123456789012:role/r",
    "key": "id",
    "severity": 3,
    "alarmRule": {
        "simpleRule": {"inputProperty": "$input.Reading.t", "comparisonOperator": "GREATER", "threshold": "80"}
    },
    "alarmCapabilities": {
        "initializationConfiguration": {"disabledOnInitialization": False},
        "acknowledgeFlow": {"enabled": True},
    },
}


class Bench:
    """A judge without a thread of its own; ``crash`` drops it as kill -9 would."""

    def __init__(self, folder: Path, settings: JudgeSettings | None = None) -> None:
        self.folder = folder
        self.settings = settings or JudgeSettings()
        self.clock = ManualClock(START_MS)
        self.actions: list[Action] = []
        self.deliver: Callable[[list[Action]], None] | None = None
        self.judge = self._start()

    def _start(self) -> Judge:
        judge = Judge(self.folder, self.clock, self.settings, on_actions=self._take)
        judge.start(thread=False)
        return judge

    def _take(self, actions: list[Action]) -> None:
        self.actions.extend(actions)
        if self.deliver is not None:
            self.deliver(actions)

    def with_models(self) -> "Bench":
        self.judge.declare_inputs({"Reading": ["id", "t", "n"]})
        self.judge.deploy(deployment(MODEL))
        self.judge.deploy(deployment(ALARM))
        return self

    def crash(self) -> None:
        """Start again from what is on disk, without any farewell."""
        self.judge._core.journal.close()  # type: ignore[union-attr]
        self.actions.clear()
        self.judge = self._start()

    def put(
        self, t: float, key: str = "m1", message_id: str = "", n: int = 0, time_ms: int | None = None, pad: int = 0
    ) -> Any:
        payload = json.dumps({"id": key, "t": t, "n": n, "pad": "x" * pad}).encode()
        return self.judge.put([Message("Reading", payload, message_id, time_ms)])

    def state(self, key: str = "m1") -> str:
        found = self.judge.detector("Motor", key)
        return "" if found is None else found.state


def deployment(body: dict[str, Any], version: str = "1") -> Deployment:
    alarm = "alarmModelName" in body
    name = body["alarmModelName"] if alarm else body["detectorModelName"]
    raw = msgspec.Raw(json.dumps(body).encode())
    return Deployment(name=name, version=version, kind="alarm" if alarm else "detector", body=raw)
