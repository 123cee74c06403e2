"""Random detector models and message streams: nonsense that is valid, for comparing two ways of running it."""

import random
from typing import Any

from wheeltapper.detector.action import Message

INPUTS = ("A", "B")
PATHS = ("x", "y", "flag", "text", "obj.`deep er`", "list[1]", "obj", "none")
VARIABLES = ("u", "v", "w")
TIMERS = ("t1", "t 2", "t'3")
OPERATORS = ("||", "&&", "|", "^", "&", "==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/")
CONSTANTS = ("0", "1", "2", "7", "-3", "0.0", "1.0", "2.5", "1e3", "true", "false", "'a'", '"b c"', "'7'", "''")


class Maker:
    """Makes models from one source of randomness."""

    def __init__(self, source: random.Random) -> None:
        self.source = source

    def reference(self) -> str:
        choose = self.source.choice
        if self.source.random() < 0.4:
            return f"$variable.{choose(VARIABLES)}"
        return f"$input.{choose(INPUTS)}.{choose(PATHS)}"

    def expression(self, depth: int = 3) -> str:
        """Any expression, mostly ill-typed."""
        choose, roll = self.source.choice, self.source.random()
        if depth == 0 or roll < 0.25:
            return self.reference() if self.source.random() < 0.6 else choose(CONSTANTS)
        if roll < 0.32:
            return choose("!~-") + f"({self.expression(depth - 1)})"
        if roll < 0.42:
            return self.question()
        if roll < 0.5:
            return self.call(depth)
        if roll < 0.55:
            return f"'<${{{self.expression(depth - 1)}}}, ${{{self.reference()}}}>'"
        return f"({self.expression(depth - 1)} {choose(OPERATORS)} {self.expression(depth - 1)})"

    def question(self) -> str:
        choose = self.source.choice
        return choose(
            (
                f'timeout("{choose(TIMERS)}")',
                f'triggerType("{choose(("Message", "timer", "x"))}")',
                f'currentInput("{choose(INPUTS)}")',
                f"timeout({self.reference()})",
            )
        )

    def call(self, depth: int) -> str:
        name = self.source.choice(("isNull", "isUndefined", "bitnot", "convert", "contains", "startsWith", "bitand"))
        one, two = self.expression(depth - 1), self.expression(depth - 1)
        if name == "convert":
            return f"convert({self.source.choice(('String', 'decimal', 'Boolean'))}, {one})"
        return f"{name}({one})" if name in ("isNull", "isUndefined", "bitnot") else f"{name}({one}, {two})"

    def condition(self) -> str:
        """An expression that is a Boolean more often than not."""
        roll = self.source.random()
        if roll < 0.15:
            return "true"
        if roll < 0.35:
            return self.question()
        if roll < 0.5:
            # The same few references against numbers, again and again: what the compiler keeps in local variables.
            reference = self.source.choice(("$input.A.x", "$input.B.x", "$variable.u", "$variable.v"))
            return f"{reference} {self.source.choice(('<', '<=', '>', '>=', '=='))} {self.source.randint(0, 7)}"
        sides = self.reference(), self.source.choice((*CONSTANTS, self.reference()))
        if self.source.random() < 0.3:
            sides = sides[::-1]
        comparison = f"{sides[0]} {self.source.choice(('==', '!=', '<', '<=', '>', '>='))} {sides[1]}"
        if roll < 0.65:
            return comparison
        if roll < 0.85:
            return f"{comparison} {self.source.choice(('&&', '||'))} {self.condition()}"
        return self.expression()

    def action(self) -> dict[str, Any]:
        choose, roll = self.source.choice, self.source.random()
        if roll < 0.4:
            value = self.expression(2) if self.source.random() < 0.5 else choose(CONSTANTS)
            return {"setVariable": {"variableName": choose(VARIABLES), "value": value}}
        if roll < 0.6:
            body: dict[str, Any] = {"timerName": choose(TIMERS)}
            if self.source.random() < 0.7:
                body["seconds"] = self.source.choice((*range(1, 20), 31_622_400))
            else:
                body["durationExpression"] = self.expression(1)
            return {"setTimer": body}
        if roll < 0.7:
            return {choose(("resetTimer", "clearTimer")): {"timerName": choose(TIMERS)}}
        if roll < 0.85:
            payload = {"contentExpression": self.expression(2), "type": choose(("JSON", "STRING"))}
            return {"sns": {"targetArn": choose(("arn", self.expression(1))), "payload": payload}}
        return {"iotTopicPublish": {"mqttTopic": choose(("a/b", "'t/' + $variable.u", "'${$input.A.x}'"))}}

    def event(self, number: int) -> dict[str, Any]:
        event: dict[str, Any] = {
            "eventName": f"e{number}",
            "actions": [self.action() for _ in range(self.source.randint(0, 3))],
        }
        if self.source.random() < 0.9:
            event["condition"] = self.condition()
        return event

    def events(self, most: int) -> list[dict[str, Any]]:
        return [self.event(number) for number in range(self.source.randint(0, most))]

    def model(self) -> dict[str, Any]:
        names = [f"s{place}" for place in range(self.source.randint(1, 4))]
        states = []
        for name in names:
            transitions = []
            for event in self.events(3):
                transitions.append({"condition": "true", **event, "nextState": self.source.choice(names)})
            states.append(
                {
                    "stateName": name,
                    "onEnter": {"events": self.events(2)},
                    "onInput": {"events": self.events(3), "transitionEvents": transitions},
                    "onExit": {"events": self.events(1)},
                }
            )
        # Whatever the dice said, both inputs are routed.
        states[0]["onInput"]["events"].append({"eventName": "r", "condition": "currentInput('A') && $input.B.x == 1"})
        return {
            "detectorModelName": "m",
            "key": "id",
            "evaluationMethod": self.source.choice(("BATCH", "SERIAL")),
            "detectorModelDefinition": {"initialStateName": names[0], "states": states},
        }

    def value(self) -> Any:
        roll = self.source.random()
        if roll < 0.3:
            return self.source.randint(-3, 9)
        if roll < 0.6:
            return round(self.source.uniform(-5, 10), 1)
        return self.source.choice((None, True, False, "a", "b c", "7", "2.5", "true", "", "t1", 2**62, 1e200, 10**25))

    def message(self, number: int) -> Message:
        payload: dict[str, Any] = {"id": self.source.choice("kl"), "none": None}
        for name in ("x", "y", "flag", "text"):
            if self.source.random() < 0.8:
                payload[name] = self.value()
        if self.source.random() < 0.7:
            payload["obj"] = {"deep er": self.value()} if self.source.random() < 0.8 else self.value()
            payload["list"] = [self.value() for _ in range(self.source.randint(0, 3))]
        return Message(self.source.choice(INPUTS), payload, f"m{number}")

    def delay(self) -> float:
        return self.source.choice((0.0, 0.25, 1.0, 3.0, 12.0))
