"""
How a detector behaves, in the plainest form: the reference for the compiler, and what runs when a trace is wanted.

A pass is one trigger given to one detector. Nothing here is clever; the order of its lines is the order of the
specification (§4).
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

from wheeltapper.detector.action import Action, Message, Trigger, action_id
from wheeltapper.detector.expression import (
    Binary,
    Call,
    Expression,
    Literal,
    Reference,
    Template,
    Unary,
    show,
)
from wheeltapper.detector.instance import PENDING, SEEN, UNSET, Detector
from wheeltapper.detector.parameters import evaluate_external
from wheeltapper.detector.plan import EventPlan, Plan, payload_path
from wheeltapper.detector.plan_actions import (
    MAX_TIMER_S,
    ActionPlan,
    ClearTimerPlan,
    ExternalPlan,
    ResetTimerPlan,
    SetTimerPlan,
    SetVariablePlan,
)
from wheeltapper.detector.settings import EngineSettings
from wheeltapper.detector.values import (
    BINARY,
    FUNCTIONS,
    UNARY,
    UNDEFINED,
    Operand,
    both,
    divider,
    follow,
    is_absent,
    is_number,
    join,
)


class Scope(Protocol):
    """What an expression can ask its surroundings."""

    settings: EngineSettings
    trigger: Trigger

    def reference(self, reference: Reference) -> Operand: ...

    def timeout(self, name: str) -> bool: ...

    def note(self, tree: Expression, value: Operand) -> None:
        """Hear of every value on the way, for a trace."""


def evaluate(tree: Expression, scope: Scope) -> Operand:
    """The value of an expression, None for a null, ``UNDEFINED`` where it has none."""
    value = _evaluate(tree, scope)
    scope.note(tree, value)
    return value


def _evaluate(tree: Expression, scope: Scope) -> Operand:
    match tree:
        case Literal(value):
            return value
        case Reference():
            return scope.reference(tree)
        case Template(parts):
            return join([part if isinstance(part, str) else evaluate(part, scope) for part in parts])
        case Unary(operator, operand):
            return UNARY[operator](evaluate(operand, scope))
        case Binary("&&", left, right):
            first = evaluate(left, scope)
            return False if first is False else both(first, evaluate(right, scope))
        case Binary("||"):
            return evaluate(tree.left, scope) is True or evaluate(tree.right, scope) is True
        case Binary(operator, left, right):
            function = divider(scope.settings.integer_division) if operator == "/" else BINARY[operator]
            return function(evaluate(left, scope), evaluate(right, scope))
        case Call(function, arguments):
            return _call(function, [evaluate(argument, scope) for argument in arguments], scope)


def _call(function: str, arguments: list[Operand], scope: Scope) -> Operand:
    if function in FUNCTIONS:
        return FUNCTIONS[function](*arguments)
    name = arguments[0]
    if type(name) is not str:
        return UNDEFINED
    if function == "timeout":
        return scope.timeout(name)
    if function == "triggerType":
        return scope.trigger.type.lower() == name.lower()
    return scope.trigger.type == "Message" and scope.trigger.input_name == name


class Pass:
    """
    One trigger given to one detector: what expressions see, and what comes of it.

    Attributes:
        time_ms: event time.
        event, condition, values: of the transition that was taken; ``event`` is None when none was.
        actions, failures: as in ``Outcome``.
    """

    def __init__(
        self,
        detector: Detector,
        now: float,
        settings: EngineSettings,
        message: Message | None = None,
        timer: str = "",
        notes: "Notes | None" = None,
    ) -> None:
        self.detector = detector
        self.plan: Plan = detector.plan
        self.now = now
        self.settings = settings
        if message is None:
            self.trigger = Trigger("Timer", timer_name=timer)
            self.time_ms = int(now * 1000)
        else:
            self.trigger = Trigger("Message", message.input_name, message.message_id)
            self.time_ms = int(now * 1000) if message.time_ms is None else message.time_ms
        self.event: EventPlan | None = None
        self.from_state = detector.s
        self.values: dict[str, Any] = {}
        self.actions: list[Action] = []
        self.failures: list[str] = []
        self.notes = notes

    def reference(self, reference: Reference) -> Operand:
        if reference.root == "variable":
            return UNDEFINED if reference.path else self.detector.variable(reference.name)
        slot = self.detector.input_slots.get(reference)
        return UNDEFINED if slot is None else getattr(self.detector, slot)

    def timeout(self, name: str) -> bool:
        status = self.detector.timer(name)[2]
        if status == PENDING:
            self.detector.mark_timer(name, SEEN)
        return status == PENDING or (status == SEEN and not self.settings.timeout_once_per_check)

    def note(self, tree: Expression, value: Operand) -> None:
        if self.notes is not None:
            self.notes.value(tree, value)

    def holds(self, event: EventPlan) -> bool:
        """Whether the event's condition is true, no more and no less."""
        result = True if event.condition is None else evaluate(event.condition, self)
        if self.notes is not None:
            self.notes.condition(event, result)
        return result is True

    def run(self, action: ActionPlan, event: EventPlan) -> None:
        match action:
            case SetVariablePlan():
                self.assign(action, evaluate(action.value, self))
            case SetTimerPlan(path, name, duration):
                self.start_timer(path, name, evaluate(duration, self))
            case ResetTimerPlan(path, name):
                _, duration_s, status = self.detector.timer(name)
                if status == UNSET:
                    self.fail(path, f"timer {name!r} is not set; nothing to reset")
                else:
                    self.detector.set_timer(name, self.timer_end(duration_s), duration_s)
            case ClearTimerPlan(_, name):
                self.detector.clear_timer(name)
            case ExternalPlan():
                self.emit(action, event)
        if self.notes is not None:
            self.notes.action(action, event)

    def assign(self, action: SetVariablePlan, value: Operand) -> None:
        """Set a variable; an absent value leaves it as it was."""
        if is_absent(value):
            what = "null" if value is None else "undefined"
            self.fail(action.path, f"{show(action.value)} is {what}; {action.name} stays as it was")
        else:
            self.detector.set_variable(action.name, value)

    def start_timer(self, path: str, name: str, duration: Operand) -> None:
        """Set a timer to a duration, rounded down to seconds."""
        if not is_number(duration) or not self.settings.minimum_timer_s <= duration < MAX_TIMER_S + 1:
            what = repr(duration) if is_number(duration) else "not a number"
            least = self.settings.minimum_timer_s
            self.fail(path, f"duration is {what}, must be from {least} to {MAX_TIMER_S} s; timer {name!r} is not set")
            return
        duration_s = math.floor(duration)
        self.detector.set_timer(name, self.timer_end(duration_s), duration_s)

    def timer_end(self, duration_s: int) -> float:
        return (float(self.now // 1) if self.settings.whole_second_timers else self.now) + duration_s

    def emit(self, action: ExternalPlan, event: EventPlan) -> None:
        """Evaluate an external action and keep it for the host."""
        detector = self.detector
        evaluated = evaluate_external(action, lambda tree: evaluate(tree, self), self.fail)
        if evaluated is None:
            return
        parameters, payload = evaluated
        detector.sequence += 1
        self.actions.append(
            Action(
                id=action_id(self.plan.hash, detector.key, self.time_ms, detector.sequence),
                model=self.plan.name,
                version=self.plan.version,
                key=detector.key,
                time_ms=self.time_ms,
                type=action.type,
                event=event.name,
                state=self.plan.states[detector.s].name,
                parameters=parameters,
                payload=payload,
                payload_type=action.payload_type,
                variables=detector.variables(),
                timers={timer.name: round(timer.due * 1000) for timer in detector.timers()},
                trigger=self.trigger,
            )
        )

    def fail(self, path: str, what: str) -> None:
        self.failures.append(f"{path}: {what}")

    def take(self, event: EventPlan) -> None:
        """Remember a transition, and the values that its condition read."""
        self.event = event
        self.values = values_of(event, self)


class Notes(Protocol):
    """What a trace wants to hear while a pass runs."""

    def value(self, tree: Expression, value: Operand) -> None: ...

    def condition(self, event: EventPlan, result: Operand) -> None: ...

    def skipped(self, event: EventPlan, because: EventPlan) -> None: ...

    def action(self, action: ActionPlan, event: EventPlan) -> None: ...


def remember(detector: Detector, message: Message) -> None:
    """Keep what expressions can read of a message; it replaces the whole last message of that input."""
    for given in detector.plan.inputs:
        if given.name == message.input_name:
            for reference in given.references:
                setattr(detector, detector.input_slots[reference], follow(message.payload, payload_path(reference)))


def enter_first(run: Pass) -> None:
    """The first half of a detector's creation: onEnter of its initial state."""
    _group(run, run.plan.states[run.detector.s].enter)
    run.detector.settle()


def run_pass(run: Pass) -> None:
    """One trigger through the detector's state, and through a transition if one is taken."""
    state = run.plan.states[run.detector.s]
    if run.plan.serial:
        _group(run, state.input)
        chosen = _first_true(run, state.transitions)
    else:
        true = [event for event in state.input if run.holds(event)]
        chosen = _first_true(run, state.transitions)
        _act(run, true)
    if chosen is not None:
        _act(run, [chosen])
        _group(run, state.exit)
        run.detector.s = chosen.next_state
        _group(run, run.plan.states[chosen.next_state].enter)
    run.detector.settle()


def _group(run: Pass, events: Sequence[EventPlan]) -> None:
    """The events of one lifecycle: conditions first (BATCH), or one event after the other (SERIAL)."""
    if run.plan.serial:
        for event in events:
            if run.holds(event):
                _act(run, [event])
    else:
        _act(run, [event for event in events if run.holds(event)])


def _first_true(run: Pass, transitions: Sequence[EventPlan]) -> EventPlan | None:
    chosen = None
    for event in transitions:
        if chosen is not None:
            if run.notes is not None:
                run.notes.skipped(event, chosen)
        elif run.holds(event):
            chosen = event
            run.take(event)
    return chosen


def _act(run: Pass, events: Sequence[EventPlan]) -> None:
    for event in events:
        for action in event.actions:
            run.run(action, event)


def values_of(event: EventPlan, run: Pass) -> dict[str, Any]:
    """Every reference of a condition and every timeout that it may have asked for, with its value now."""
    values: dict[str, Any] = {}
    for text, what in event.reads:
        if isinstance(what, str):
            values[text] = run.detector.timer(what)[2] in (PENDING, SEEN)
        else:
            value = run.reference(what)
            values[text] = None if value is UNDEFINED else value
    return values
