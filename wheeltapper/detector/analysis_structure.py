"""Analyses of form: structure, expression syntax, service limits and supported actions."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from wheeltapper.detector import expression as ex
from wheeltapper.detector.analysis_findings import Finding
from wheeltapper.detector.analysis_survey import Rule, Step, Survey, Text, inputs_of, members
from wheeltapper.detector.model import ACTION_TYPES

MAX_STATES = 20
MAX_EVENTS = 20
MAX_ACTIONS = 10
MAX_CONTENT_BYTES = 1024
MIN_TIMER_S = 60
MAX_TIMER_S = 31_622_400

_NAMES = {"setVariable": "variableName", "setTimer": "timerName", "resetTimer": "timerName", "clearTimer": "timerName"}
_VARIABLE = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*")


def structure(definition: Mapping[str, Any], laid_out: Survey) -> Iterator[Finding]:
    """What makes a definition meaningless."""
    states = members(definition, "states")
    if not states:
        yield _broken("The DetectorModelDefinition must have at least one State.")
    for place, state in enumerate(states):
        if not isinstance(state, Mapping) or not isinstance(state.get("stateName"), str) or not state["stateName"]:
            yield _broken("A State must have a stateName.", f"states[{place}]")
    for name, count in Counter(laid_out.states).items():
        if count > 1:
            places = [f"states[{place}]" for place, each in enumerate(states) if _get(each, "stateName") == name]
            yield _broken(
                f"The DetectorModelDefinition had a shared state name: found state {name} with {count} repetitions.",
                *places,
            )
    if laid_out.initial not in laid_out.states:
        yield _broken(
            f"The Definition's initialStateName {laid_out.initial} did not correspond to a defined State.",
            "initialStateName",
        )
    for rule in laid_out.rules:
        if not rule.name:
            yield _broken("An event must have an eventName.", rule.path)
        if rule.next_state is not None and rule.next_state not in laid_out.states:
            yield _broken(
                f"The TransitionEvent {rule.name} transitions to a non-existent state {rule.next_state}.", rule.path
            )
    yield from _raw_events(definition)
    yield from _steps(laid_out)
    if laid_out.states and not any(rule.condition is None or inputs_of(rule.condition) for rule in laid_out.rules):
        yield _broken("Detector Model Definition must use at least one Input in a condition.")


def _broken(message: str, *paths: str) -> Finding:
    return Finding("structure", "ERROR", message, paths)


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _raw_events(definition: Mapping[str, Any]) -> Iterator[Finding]:
    for path, event, is_transition in events_of(definition):
        if not isinstance(event, Mapping):
            yield _broken("An event must be an object.", path)
            continue
        condition = event.get("condition")
        if is_transition and not (isinstance(condition, str) and condition.strip()):
            yield _broken(f"The TransitionEvent {event.get('eventName')} must have a condition.", path)
        if condition is not None and not isinstance(condition, str):
            yield _broken("A condition must be a string.", path)
        for place, action in enumerate(members(event, "actions")):
            types = _types(action)
            if len(types) > 1:
                yield _broken(
                    f"Actions may only have one type defined, but found an action with {len(types)} types. "
                    "Please split into separate Actions.",
                    f"{path}.actions[{place}]",
                )


def events_of(definition: Mapping[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """Every event as written: its place, itself, whether it is a transition."""
    for place, state in enumerate(members(definition, "states")):
        for life_cycle in ("onEnter", "onInput", "onExit"):
            group = _get(state, life_cycle)
            for kind in ("events", "transitionEvents"):
                for number, event in enumerate(members(group, kind)):
                    yield f"states[{place}].{life_cycle}.{kind}[{number}]", event, kind == "transitionEvents"


def _types(action: Any) -> list[str]:
    return [name for name, body in action.items() if body is not None] if isinstance(action, Mapping) else []


def _steps(laid_out: Survey) -> Iterator[Finding]:
    for rule in laid_out.rules:
        for step in rule.steps:
            member = _NAMES.get(step.kind)
            if member and not step.name(member):
                yield _broken(f"The {step.kind} action must have a {member}.", step.path)
            if step.kind == "setVariable" and not isinstance(step.body.get("value"), str):
                yield _broken("The setVariable action must have a value.", step.path)
            if (
                step.kind == "setVariable"
                and step.name(member or "")
                and not _VARIABLE.fullmatch(step.name("variableName"))
            ):
                yield _broken(f"Invalid variableName: {step.name('variableName')}.", step.path)
            if step.kind == "setTimer":
                yield from _set_timer(step)


def _set_timer(step: Step) -> Iterator[Finding]:
    seconds, duration = step.body.get("seconds"), step.body.get("durationExpression")
    if seconds is not None and duration is not None:
        yield _broken("Only one of seconds and durationExpression can be set in SetTimer.", step.path)
    if seconds is None and duration is None:
        yield _broken("One of seconds and durationExpression must be set in SetTimer.", step.path)


def supported_actions(definition: Mapping[str, Any]) -> Iterator[Finding]:
    """Actions of a type that does not exist."""
    for path, event, _ in events_of(definition):
        for place, action in enumerate(members(event, "actions")):
            types = _types(action)
            if not types or any(name not in ACTION_TYPES for name in types):
                shown = ", ".join(name for name in types if name not in ACTION_TYPES) or "{}"
                yield Finding(
                    "supported-actions",
                    "ERROR",
                    f"Invalid action type present in action definition: {shown}.",
                    (f"{path}.actions[{place}]",),
                )


def limits(definition: Mapping[str, Any], laid_out: Survey) -> Iterator[Finding]:
    """AWS's quotas; Wheeltapper runs such definitions nevertheless."""

    def exceeded(message: str, *paths: str) -> Finding:
        return Finding("service-limits", "ERROR", message, paths)

    if len(laid_out.states) > MAX_STATES:
        yield exceeded(f"Number of states allowed in detector model definition exceeded the limit {MAX_STATES}.")
    for place, state in enumerate(laid_out.states):
        rules = [rule for rule in laid_out.rules if rule.state == state]
        transitions = sum(rule.next_state is not None for rule in rules)
        if transitions > MAX_EVENTS:
            yield exceeded(
                f"Number of transition events allowed per state exceeded the limit {MAX_EVENTS} in detector model "
                "definition.",
                f"states[{place}]",
            )
        if len(rules) - transitions > MAX_EVENTS:
            yield exceeded(
                f"Number of events allowed per state exceeded the limit {MAX_EVENTS} in detector model definition",
                f"states[{place}]",
            )
    for rule in laid_out.rules:
        if len(rule.steps) > MAX_ACTIONS:
            yield exceeded(
                f"Number of actions allowed per event exceeded the limit {MAX_ACTIONS} in detector model definition",
                rule.path,
            )
        for step in rule.steps:
            yield from _step_limits(rule, step)


def _step_limits(rule: Rule, step: Step) -> Iterator[Finding]:
    seconds = step.body.get("seconds") if step.kind == "setTimer" else None
    tree = step.tree("durationExpression")
    if isinstance(tree, ex.Literal) and isinstance(tree.value, int | float) and not isinstance(tree.value, bool):
        seconds = int(tree.value)
    if isinstance(seconds, int) and not MIN_TIMER_S <= seconds <= MAX_TIMER_S:
        bound = f"at least {MIN_TIMER_S}" if seconds < MIN_TIMER_S else f"at most {MAX_TIMER_S}"
        yield Finding(
            "service-limits",
            "ERROR",
            f"The duration for timer {step.name('timerName')} should be {bound} seconds long.",
            (step.path,),
        )
    content = next((each.text for each in step.texts if each.field == "payload.contentExpression"), "")
    if len(content.encode()) > MAX_CONTENT_BYTES:
        yield Finding(
            "service-limits",
            "ERROR",
            f"Content Expression allowed in payload exceeded the limit {MAX_CONTENT_BYTES} bytes in event {rule.name} "
            f"in state {rule.state}.",
            (step.path,),
        )


def syntax(laid_out: Survey) -> Iterator[Finding]:
    """Expressions that are none."""
    for rule in laid_out.rules:
        if rule.condition is None:
            yield _unparsed(f"Failed to parse expression '{rule.text}' for {rule.name}", rule.path)
        for step in rule.steps:
            payload = step.body.get("payload")
            if isinstance(payload, Mapping) and not str(payload.get("contentExpression") or "").strip():
                yield _unparsed("Customized Payloads must be non-empty.", step.path)
                continue
            for text in step.texts:
                if text.tree is None and text.must_parse:
                    yield _unparsed(_syntax_message(step, text), step.path)
            yield from _payload_type(step)


def _unparsed(message: str, path: str) -> Finding:
    return Finding("expression-syntax", "ERROR", message, (path,))


def _syntax_message(step: Step, text: Text) -> str:
    if text.field == "payload.contentExpression":
        return (
            f"We couldn't parse your content expression for the payload of {step.kind}. "
            "Enter a content expression with the correct syntax."
        )
    if step.kind == "setVariable":
        return f"SetVariableAction.value must be an expression. Failed to parse value '{text.text}'"
    if step.kind == "setTimer":
        return f"Failed to parse duration expression '{text.text}' for timer '{step.name('timerName')}'."
    if step.kind == "dynamoDB":
        return (
            f"We couldn't parse your expression of the attributes ({text.field}) for the DynamoDB action. "
            "Enter expression with the correct syntax."
        )
    if step.kind == "dynamoDBv2":
        return (
            "We couldn't parse your expression of the tableName for the DynamoDBv2 action. "
            "Enter expression with the correct syntax."
        )
    if step.kind == "iotSiteWise":
        return (
            f"Your {text.field} for IotSitewiseAction couldn't be parsed. "
            "You must use correct syntax in your expression."
        )
    return f"Failed to parse expression '{text.text}' for {step.kind}"


def _payload_type(step: Step) -> Iterator[Finding]:
    payload = step.body.get("payload")
    tree = step.tree("payload.contentExpression")
    if not isinstance(payload, Mapping) or tree is None:
        return
    if step.kind == "dynamoDBv2" and payload.get("type") != "JSON":
        yield _unparsed(
            "We couldn't evaluate your expression to valid JSON. The DynamoDBv2 action only supports the JSON payload "
            "type.",
            step.path,
        )
    is_no_text = isinstance(tree, ex.Literal) and not isinstance(tree.value, str)
    if payload.get("type") == "JSON" and is_no_text:
        yield _unparsed(
            f"Your payload expression {{{ex.show(tree)}}} isn't valid. The defined payload type is JSON, so you must "
            "specify an expression that AWS IoT Events would evaluate to a string.",
            step.path,
        )
