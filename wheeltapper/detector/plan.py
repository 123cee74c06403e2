"""
A model made ready to run: names resolved to numbers, expressions parsed once, structure checked.

Both ways of running a detector, the interpreter and the compiler, start from a ``Plan``; so does analysis. What blocks a
model here is what would make it meaningless: broken structure, broken syntax, inputs that do not exist. Everything else
that AWS reports is for the analysis to say.
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from wheeltapper.detector.expression import (
    Call,
    Expression,
    Literal,
    Reference,
    parse,
    references,
    show,
    show_reference,
    walk,
)
from wheeltapper.detector.handle import handle_of
from wheeltapper.detector.model import (
    OPERATOR_SIGNS,
    AlarmModel,
    DetectorModel,
    Event,
    State,
    TransitionEvent,
)
from wheeltapper.detector.plan_actions import (
    ActionPlan,
    ClearTimerPlan,
    ExternalPlan,
    ResetTimerPlan,
    SetTimerPlan,
    SetVariablePlan,
    check_length,
    plan_action,
    plan_external,
    trees_of,
)
from wheeltapper.detector.settings import DEFAULTS, EngineSettings
from wheeltapper.errors import DefinitionError

KEY_VALUE = re.compile(r"[a-zA-Z0-9\-_:]{1,128}")
_MODEL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_PATH_STEP = re.compile(r"`([\w\- ]+)`|([\w\-]+)", re.ASCII)


class EventPlan(Struct, frozen=True):
    """
    An event or, with ``next_state`` (else -1), a transition.

    ``condition`` is None where it is always true; ``text`` is how it was written; ``reads`` are the references in it and
    the timers that it may ask for, each with its text.
    """

    path: str
    name: str
    condition: Expression | None
    text: str
    actions: tuple[ActionPlan, ...]
    next_state: int = -1
    reads: tuple[tuple[str, Reference | str], ...] = ()


class StatePlan(Struct, frozen=True):
    name: str
    path: str
    enter: tuple[EventPlan, ...]
    input: tuple[EventPlan, ...]
    transitions: tuple[EventPlan, ...]
    exit: tuple[EventPlan, ...]

    def events(self) -> Iterator[EventPlan]:
        """All events and transitions, in the order enter, input, transitions, exit."""
        yield from (*self.enter, *self.input, *self.transitions, *self.exit)


class InputPlan(Struct, frozen=True):
    """An input that the model references, and the references into its payload."""

    name: str
    references: tuple[Reference, ...]

    def paths(self) -> tuple[tuple[str | int, ...], ...]:
        """Where the references lie in the payload."""
        return tuple(payload_path(reference) for reference in self.references)


class Plan(Struct, frozen=True):
    """
    A detector model made ready.

    Attributes:
        hash: of everything that decides what a detector does: definition, key, evaluation method.
        key: steps to the key in a payload; None for a single detector.
        variables: every variable that an action sets or an expression reads.
        timers: every timer that an action or a ``timeout`` names.
    """

    name: str
    version: str
    hash: str
    key: tuple[str, ...] | None
    serial: bool
    states: tuple[StatePlan, ...]
    initial: int
    inputs: tuple[InputPlan, ...]
    variables: tuple[str, ...]
    timers: tuple[str, ...]
    model: DetectorModel

    @property
    def handle(self) -> str:
        return handle_of("detector", self.name)

    def state_index(self, name: str) -> int:
        """
        Place of a state.

        Raises:
            DefinitionError: the model has no such state.
        """
        for place, state in enumerate(self.states):
            if state.name == name:
                return place
        raise DefinitionError(f"detector model {self.name!r} has no state {name!r}")


class AlarmPlan(Struct, frozen=True):
    """An alarm model made ready; ``condition`` is its rule as an expression, ``text`` as people read it."""

    name: str
    version: str
    hash: str
    key: tuple[str, ...] | None
    input_property: Expression
    sign: str
    threshold: Expression
    text: str
    inputs: tuple[InputPlan, ...]
    actions: tuple[ExternalPlan, ...]
    disabled_on_initialization: bool
    acknowledge_flow: bool
    model: AlarmModel

    @property
    def handle(self) -> str:
        return handle_of("alarm", self.name)


Declared: TypeAlias = Mapping[str, Collection[str]]


def make_plan(
    model: DetectorModel,
    version: str = "1",
    *,
    settings: EngineSettings = DEFAULTS,
    inputs: Declared | None = None,
) -> Plan:
    """
    Check a detector model and make it ready.

    Args:
        model: as ``model.read_detector_model`` gives it.
        version: the version that actions will name.
        settings: whether undeclared attributes are visible.
        inputs: input → declared attribute paths; None when they are not known.

    Raises:
        DefinitionError: the model is not valid; ``path`` says where.
    """
    _check_structure(model)
    places = {state.state_name: place for place, state in enumerate(model.states)}
    states = tuple(_plan_state(state, f"states[{place}]", places) for place, state in enumerate(model.states))
    found = list(_expressions(states))
    used = _inputs_of(found)
    if not used:
        raise DefinitionError("Detector Model Definition must use at least one Input in a condition.")
    _check_inputs(used, inputs, "Detector")
    return Plan(
        name=model.name,
        version=version,
        hash=_hash_of(model.name, model.source, "detectorModelDefinition", "key", "evaluationMethod"),
        key=key_steps(model.key),
        serial=model.evaluation_method == "SERIAL",
        states=states,
        initial=places[model.initial_state],
        inputs=_visible(used, inputs, settings),
        variables=_variables_of(states, found),
        timers=_timers_of(states, found),
        model=model,
    )


def make_alarm_plan(
    model: AlarmModel,
    version: str = "1",
    *,
    settings: EngineSettings = DEFAULTS,
    inputs: Declared | None = None,
) -> AlarmPlan:
    """Check an alarm model and make it ready; arguments and errors as for ``make_plan``."""
    _check_name(model.name, "alarmModelName")
    rule_path = "alarmRule.simpleRule"
    measured = parse(model.input_property, path=f"{rule_path}.inputProperty")
    threshold = parse(model.threshold, path=f"{rule_path}.threshold")
    actions = tuple(
        plan_external(action, f"alarmEventActions.alarmActions[{place}]") for place, action in enumerate(model.actions)
    )
    rule_inputs = _inputs_of([measured, threshold])
    if not rule_inputs:
        raise DefinitionError("an alarm rule must read at least one input", path=rule_path)
    used = _inputs_of([measured, threshold, *(tree for action in actions for tree in trees_of(action))])
    _check_inputs(used, inputs, "Alarm")
    sign = OPERATOR_SIGNS[model.comparison_operator]
    disabled, flow = model.disabled_on_initialization, model.acknowledge_flow
    return AlarmPlan(
        name=model.name,
        version=version,
        hash=_hash_of(
            model.name, model.source, "alarmRule", "key", "alarmEventActions", "alarmCapabilities", "severity"
        ),
        key=key_steps(model.key),
        input_property=measured,
        sign=sign,
        threshold=threshold,
        text=f"{model.input_property} {sign} {model.threshold}",
        inputs=_visible(used, inputs, settings),
        actions=actions,
        disabled_on_initialization=settings.alarm_disabled_by_default if disabled is None else disabled,
        acknowledge_flow=settings.alarm_acknowledge_flow_by_default if flow is None else flow,
        model=model,
    )


def key_steps(key: str | None) -> tuple[str, ...] | None:
    """
    The steps of a key's or an attribute's path.

    >>> key_steps("device.`serial no`")
    ('device', 'serial no')
    """
    if key is None:
        return None
    steps, place = [], 0
    while True:
        match = _PATH_STEP.match(key, place)
        if match is None or len(key) > 128:
            raise DefinitionError(f"{key[:40]!r} is not a path such as device.id", path="key")
        steps.append(match[1] or match[2])
        place = match.end()
        if place == len(key):
            return tuple(steps)
        if key[place] != ".":
            raise DefinitionError(f"{key[:40]!r} is not a path such as device.id", path="key")
        place += 1


def key_text(value: Any) -> str | None:
    """
    The key value that a payload's member stands for; None where it is no key.

    >>> key_text(42), key_text("motor-1"), key_text("a b/c"), key_text(None)
    ('42', 'motor-1', None, None)
    """
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, int | float):
        value = repr(value) if abs(value) < 1e128 else ""
    return value if isinstance(value, str) and KEY_VALUE.fullmatch(value) else None


def input_name_of(reference: Reference) -> str:
    """The input whose messages fill a reference; a SiteWise property counts as an input of its own."""
    if reference.root == "input":
        return reference.name
    return show_reference(Reference("sitewise", reference.name, reference.path[:2]))


def payload_path(reference: Reference) -> tuple[str | int, ...]:
    """Where a reference lies in its input's payload."""
    return reference.path if reference.root == "input" else reference.path[2:]


def _check_name(name: str, member: str) -> None:
    if name and not _MODEL_NAME.fullmatch(name):
        raise DefinitionError(f"{name[:40]!r} must be 1 to 128 of the characters A-Z a-z 0-9 _ -", path=member)


def _check_structure(model: DetectorModel) -> None:
    _check_name(model.name, "detectorModelName")
    if not model.states:
        raise DefinitionError("a detector model has at least one state", path="states")
    seen: set[str] = set()
    for place, state in enumerate(model.states):
        check_length(state.state_name, f"states[{place}].stateName")
        if state.state_name in seen:
            raise DefinitionError(f"state name {state.state_name!r} is repeated", path=f"states[{place}].stateName")
        seen.add(state.state_name)
    if model.initial_state not in seen:
        raise DefinitionError(f"{model.initial_state[:128]!r} is not a state", path="initialStateName")


def _plan_state(state: State, path: str, places: Mapping[str, int]) -> StatePlan:
    return StatePlan(
        name=state.state_name,
        path=path,
        enter=_plan_events(state.enter_events, f"{path}.onEnter.events", places),
        input=_plan_events(state.input_events, f"{path}.onInput.events", places),
        transitions=_plan_events(state.transition_events, f"{path}.onInput.transitionEvents", places),
        exit=_plan_events(state.exit_events, f"{path}.onExit.events", places),
    )


def _plan_events(
    events: Sequence[Event | TransitionEvent], path: str, places: Mapping[str, int]
) -> tuple[EventPlan, ...]:
    return tuple(_plan_event(event, f"{path}[{place}]", places) for place, event in enumerate(events))


def _plan_event(event: Event | TransitionEvent, path: str, places: Mapping[str, int]) -> EventPlan:
    check_length(event.event_name, f"{path}.eventName")
    text = event.condition or ""
    blank = not text.strip()
    next_state = -1
    if isinstance(event, TransitionEvent):
        if blank:
            raise DefinitionError("a transition needs a condition; 'true' is one", path=f"{path}.condition")
        if event.next_state not in places:
            raise DefinitionError(
                f"transition to a state that does not exist: {event.next_state[:128]!r}", path=f"{path}.nextState"
            )
        next_state = places[event.next_state]
    condition = None if blank else parse(text, path=f"{path}.condition")
    return EventPlan(
        path=path,
        name=event.event_name,
        condition=None if isinstance(condition, Literal) and condition.value is True else condition,
        text=text or "true",
        actions=tuple(plan_action(action, f"{path}.actions[{n}]") for n, action in enumerate(event.actions)),
        next_state=next_state,
        reads=() if condition is None else tuple(_reads(condition)),
    )


def _reads(condition: Expression) -> Iterator[tuple[str, Reference | str]]:
    yield from ((show_reference(reference), reference) for reference in references(condition))
    for node in walk(condition):
        match node:
            case Call("timeout", (Literal(str(name)),)):
                yield show(node), name


def _expressions(states: tuple[StatePlan, ...]) -> Iterator[Expression]:
    for state in states:
        for event in state.events():
            if event.condition is not None:
                yield event.condition
            for action in event.actions:
                yield from trees_of(action)


def _inputs_of(trees: list[Expression]) -> dict[str, dict[Reference, None]]:
    """Input → the references into it, each in the order of first use."""
    used: dict[str, dict[Reference, None]] = {}
    for tree in trees:
        for node in walk(tree):
            match node:
                case Reference(root) if root != "variable":
                    used.setdefault(input_name_of(node), {})[node] = None
                case Call("currentInput", (Literal(str(name)),)):
                    used.setdefault(name, {})
    return used


def _check_inputs(used: Mapping[str, Any], declared: Declared | None, kind: str) -> None:
    for name in used:
        if declared is not None and name not in declared and not name.startswith("$"):
            raise DefinitionError(f"{kind} Model Definition contains reference to Input '{name}' that does not exist.")


def _visible(
    used: dict[str, dict[Reference, None]], declared: Declared | None, settings: EngineSettings
) -> tuple[InputPlan, ...]:
    """The inputs; a reference that may not be seen is left out, and so never gets a value."""
    plans = []
    for name, found in used.items():
        seen = list(found)
        if settings.declared_attributes_only and declared is not None and name in declared:
            paths = [key_steps(path) for path in declared[name]]
            seen = [ref for ref in seen if any(path == payload_path(ref)[: len(path or ())] for path in paths)]
        plans.append(InputPlan(name, tuple(seen)))
    return tuple(plans)


def _variables_of(states: tuple[StatePlan, ...], trees: list[Expression]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for state in states:
        for event in state.events():
            names.update((a.name, None) for a in event.actions if isinstance(a, SetVariablePlan))
    for tree in trees:
        names.update((ref.name, None) for ref in references(tree) if ref.root == "variable" and not ref.path)
    return tuple(names)


def _timers_of(states: tuple[StatePlan, ...], trees: list[Expression]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for state in states:
        for event in state.events():
            for action in event.actions:
                if isinstance(action, SetTimerPlan | ResetTimerPlan | ClearTimerPlan):
                    names[action.name] = None
    for tree in trees:
        for node in walk(tree):
            match node:
                case Call("timeout", (Literal(str(name)),)):
                    names[name] = None
    return tuple(names)


def _hash_of(name: str, source: dict[str, Any], *members: str) -> str:
    """Independent of the order of members and of anything that does not decide what happens."""
    chosen = [name, *(source.get(member) for member in members)]
    try:
        text = msgspec.json.encode(chosen, order="deterministic")
    except (UnicodeEncodeError, OverflowError, RecursionError, TypeError) as error:
        raise DefinitionError(f"the definition cannot be written as JSON: {error}") from error
    return hashlib.sha256(text).hexdigest()
