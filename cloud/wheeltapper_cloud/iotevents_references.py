"""
Which inputs and asset properties a definition reads: routing is derived from the expressions, not declared.
"""

from collections.abc import Iterator
from typing import Any

from wheeltapper.detector.expression import Call, Expression, Literal, Reference, parse_or_none, walk
from wheeltapper_cloud.store import Resource

# Members that name things and are never expressions.
_NAMES = frozenset({"stateName", "eventName", "nextState", "initialStateName", "timerName", "variableName", "type"})


def inputs_of(found: Resource) -> set[str]:
    """The inputs whose messages go to a model."""
    inputs = set()
    for node in _nodes(found):
        if isinstance(node, Reference) and node.root == "input":
            inputs.add(node.name)
        elif isinstance(node, Call) and node.function == "currentInput" and isinstance(node.arguments[0], Literal):
            inputs.add(str(node.arguments[0].value))
    return inputs


def properties_of(found: Resource) -> set[tuple[str, str]]:
    """The asset model properties, (model, property), that an alarm model judges."""
    return {
        (str(node.path[0]), str(node.path[1]))
        for node in _nodes(found)
        if isinstance(node, Reference) and node.root == "sitewise" and len(node.path) >= 2
    }


def _nodes(found: Resource) -> Iterator[Expression]:
    for text in _texts(found.body.get("detectorModelDefinition") or found.body.get("alarmRule")):
        tree = parse_or_none(text)
        if tree is not None:
            yield from walk(tree)


def _texts(value: Any, member: str = "") -> Iterator[str]:
    if isinstance(value, str):
        if member not in _NAMES:
            yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
