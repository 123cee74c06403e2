"""
A definition laid out flat for analysis: every event, action and expression with its place.

Tolerant where the engine is strict: whatever is broken is left out here and reported by the analyses of structure and
syntax.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from wheeltapper.detector import expression as ex
from wheeltapper.detector.model import ACTION_TYPES
from wheeltapper.errors import DefinitionError

LifeCycle = Literal["onEnter", "onInput", "onExit"]

# Text parameters that stand for themselves where they are no expression.
_LITERAL_OR_EXPRESSION = {
    "sns": ("targetArn",),
    "iotTopicPublish": ("mqttTopic",),
    "lambda": ("functionArn",),
    "sqs": ("queueUrl",),
    "firehose": ("deliveryStreamName",),
    "iotEvents": ("inputName",),
}
_ALL_EXPRESSIONS = ("dynamoDB", "dynamoDBv2", "iotSiteWise")


class Text(msgspec.Struct, frozen=True):
    """One expression of an action: the member it stands in, its text, its tree; None where it does not parse."""

    field: str
    text: str
    tree: ex.Expression | None
    must_parse: bool


class Step(msgspec.Struct, frozen=True):
    """One action of a rule."""

    path: str
    kind: str
    body: Mapping[str, Any]
    texts: tuple[Text, ...]

    def name(self, member: str) -> str:
        """A text member of the action; empty where it is missing."""
        found = self.body.get(member)
        return found if isinstance(found, str) else ""

    def tree(self, field: str) -> ex.Expression | None:
        """The parsed expression in a member."""
        return next((each.tree for each in self.texts if each.field == field), None)


class Rule(msgspec.Struct, frozen=True):
    """One event or transition event; ``condition`` is None where its text does not parse."""

    path: str
    state: str
    life_cycle: LifeCycle
    name: str
    text: str
    condition: ex.Expression | None
    next_state: str | None
    steps: tuple[Step, ...]

    @property
    def title(self) -> str:
        """The rule as people name it."""
        kind = "transition" if self.next_state is not None else "event"
        return f"{kind} {self.name!r} of state {self.state!r}"


class Survey(msgspec.Struct, frozen=True):
    """A whole definition."""

    states: tuple[str, ...]
    initial: str
    rules: tuple[Rule, ...]

    def of(self, state: str, life_cycle: LifeCycle, *, transitions: bool = False) -> list[Rule]:
        """The rules of one group, in order."""
        return [
            rule
            for rule in self.rules
            if rule.state == state and rule.life_cycle == life_cycle and (rule.next_state is not None) == transitions
        ]

    def trees(self) -> Iterator[tuple[str, Rule, ex.Expression]]:
        """Every expression with its place and its rule."""
        for rule in self.rules:
            if rule.condition is not None:
                yield rule.path, rule, rule.condition
            for step in rule.steps:
                for text in step.texts:
                    if text.tree is not None:
                        yield step.path, rule, text.tree

    def input_names(self) -> dict[str, list[str]]:
        """Every input that is read, with the places that read it."""
        found: dict[str, list[str]] = {}
        for _, rule, tree in self.trees():
            for name in inputs_of(tree):
                found.setdefault(name, [])
                if rule.path not in found[name]:
                    found[name].append(rule.path)
        return found


def inputs_of(tree: ex.Expression) -> list[str]:
    """The inputs that an expression reads, ``currentInput`` included."""
    found = []
    for node in ex.walk(tree):
        if isinstance(node, ex.Reference) and node.root == "input":
            found.append(node.name)
        if isinstance(node, ex.Call) and node.function == "currentInput":
            found.extend(
                each.value for each in node.arguments if isinstance(each, ex.Literal) and isinstance(each.value, str)
            )
    return list(dict.fromkeys(found))


def timers_of(tree: ex.Expression) -> list[str]:
    """The timers that an expression tests."""
    return [
        argument.value
        for node in ex.walk(tree)
        if isinstance(node, ex.Call) and node.function == "timeout"
        for argument in node.arguments
        if isinstance(argument, ex.Literal) and isinstance(argument.value, str)
    ]


def members(value: Any, name: str) -> list[Any]:
    """A list member; empty where it is missing, null or no list."""
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, list) else []


def survey(definition: Mapping[str, Any]) -> Survey:
    """Lay out a definition, as written, however broken."""
    names = []
    rules: list[Rule] = []
    for place, state in enumerate(members(definition, "states")):
        name = state.get("stateName") if isinstance(state, Mapping) else None
        if not isinstance(name, str):
            continue
        names.append(name)
        for life_cycle in ("onEnter", "onInput", "onExit"):
            rules.extend(_rules(name, life_cycle, state.get(life_cycle), f"states[{place}].{life_cycle}"))
    initial = definition.get("initialStateName")
    return Survey(tuple(names), initial if isinstance(initial, str) else "", tuple(rules))


def _rules(state: str, life_cycle: LifeCycle, group: Any, path: str) -> Iterator[Rule]:
    for kind in ("events", "transitionEvents"):
        if kind == "transitionEvents" and life_cycle != "onInput":
            continue
        for place, event in enumerate(members(group, kind)):
            if not isinstance(event, Mapping):
                continue
            here = f"{path}.{kind}[{place}]"
            text = event.get("condition")
            text = text if isinstance(text, str) and text.strip() else "true"
            next_state = event.get("nextState")
            next_state = next_state if isinstance(next_state, str) else ""
            yield Rule(
                here,
                state,
                life_cycle,
                str(event.get("eventName") or ""),
                text,
                ex.parse_or_none(text),
                next_state if kind == "transitionEvents" else None,
                tuple(_steps(members(event, "actions"), here)),
            )


def _steps(actions: list[Any], path: str) -> Iterator[Step]:
    for place, action in enumerate(actions):
        if not isinstance(action, Mapping):
            continue
        for kind, body in action.items():
            if kind in ACTION_TYPES and isinstance(body, Mapping):
                yield Step(f"{path}.actions[{place}]", kind, body, tuple(_texts(kind, body)))


def _texts(kind: str, body: Mapping[str, Any]) -> Iterator[Text]:
    required = {"setVariable": "value", "setTimer": "durationExpression"}.get(kind)
    if required and isinstance(body.get(required), str):
        yield _text(required, body[required], must_parse=True)
    for field in _LITERAL_OR_EXPRESSION.get(kind, ()):
        if isinstance(body.get(field), str):
            yield _text(field, body[field], must_parse=False)
    if kind in _ALL_EXPRESSIONS:
        for field, text in _leaves(body, ""):
            if not field.startswith("payload."):
                yield _text(field, text, must_parse=True)
    payload = body.get("payload")
    if isinstance(payload, Mapping) and isinstance(payload.get("contentExpression"), str):
        yield _text("payload.contentExpression", payload["contentExpression"], must_parse=True)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from _leaves(each, f"{path}.{name}" if path else str(name))


def _text(field: str, text: str, *, must_parse: bool) -> Text:
    try:
        tree = ex.parse(text)
    except DefinitionError:
        tree = None
    return Text(field, text, tree, must_parse)
