"""
What can happen next to a detector: its conditions with everything but the columns filled in.

While rows are skipped, variables, timers and the last values of other inputs stand still; conditions are folded with the
engine's own operators, and remembered per combination of the values they depend on.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from wheeltapper.detector import expression as ex
from wheeltapper.detector.analysis_survey import timers_of
from wheeltapper.detector.columns import Residual
from wheeltapper.detector.engine import Engine
from wheeltapper.detector.instance import PENDING, RUNNING, UNSET, Detector
from wheeltapper.detector.plan import EventPlan, input_name_of, payload_path
from wheeltapper.detector.plan_actions import MAX_TIMER_S, ClearTimerPlan, ResetTimerPlan, SetTimerPlan, SetVariablePlan
from wheeltapper.detector.values import BINARY, FUNCTIONS, UNARY, UNDEFINED, Operand, divider, is_absent

_MAX_CACHED = 50_000


class _Constant(msgspec.Struct, frozen=True):
    """A value in a residual; equal only to the same value of the same type."""

    type: str
    value: Any


def _constant(value: Operand) -> Residual:
    return ("value", _Constant(type(value).__name__, value))


TRUE, FALSE = _constant(True), _constant(False)


class Soft(NamedTuple):
    """An event that does nothing but start a running timer anew."""

    condition: Residual
    timer: str
    duration_s: int


class Conditions(msgspec.Struct, eq=False):
    """Conditions of which any may hold; equal only to itself, so that it is quickly found again."""

    residuals: tuple[Residual, ...]


class Outlook(NamedTuple):
    """What can happen next to a detector: rows that need the engine, rows that only restart timers."""

    hard: Conditions
    soft: tuple[Soft, ...]


class Watch:
    """
    What is to be watched of a state, for messages of one input.

    Everything an outlook depends on is read from a detector's slots in one go, so that outlooks can be remembered.
    """

    def __init__(self, engine: Engine, state: int, index: int) -> None:
        plan = engine.plan.states[state]
        self.events = plan.input
        self.transitions = plan.transitions
        self.known: dict[Any, Outlook | None] = {}
        self._conditions: dict[tuple[Residual, ...], Conditions] = {}
        detector_class = engine.detector_class
        name = self._input_name = engine.plan.inputs[index].name
        self._settings = engine.settings
        trees = [event.condition for event in (*plan.input, *plan.transitions) if event.condition is not None]
        actions = [action for event in plan.input for action in event.actions]
        trees += [action.value for action in actions if isinstance(action, SetVariablePlan)]
        self.tested = tuple(dict.fromkeys(timer for tree in trees for timer in timers_of(tree)))
        references = [reference for tree in trees for reference in ex.references(tree)]
        variables = [reference.name for reference in references if reference.root == "variable"]
        variables += [action.name for action in actions if isinstance(action, SetVariablePlan)]
        timers = [
            *self.tested,
            *(a.name for a in actions if isinstance(a, ClearTimerPlan | ResetTimerPlan | SetTimerPlan)),
        ]
        slots = [detector_class.variable_slots[each] for each in variables if each in detector_class.variable_slots]
        slots += [
            detector_class.input_slots[each]
            for each in references
            if each in detector_class.input_slots and input_name_of(each) != name
        ]
        slots += [letter + detector_class.timer_slots[each] for each in timers for letter in "fd"]
        # Two at least, so that the getter gives a tuple.
        self.slots: Callable[[Any], tuple[Any, ...]] = attrgetter(*dict.fromkeys(("s", "key", *slots)))
        self.dynamic = any(
            isinstance(node, ex.Call) and node.function == "timeout" and not isinstance(node.arguments[0], ex.Literal)
            for tree in trees
            for node in ex.walk(tree)
        )

    def outlook(self, detector: Detector) -> Outlook | None:
        """What the next rows can do to a detector as it stands; None where the next row needs the engine anyway."""
        values = self.slots(detector)[2:]
        key = (values, tuple(map(type, values)))
        try:
            return self.known[key]
        except KeyError:
            if len(self.known) >= _MAX_CACHED:
                self.known.clear()
                self._conditions.clear()
            found = self.known[key] = self._look(detector)
            return found

    def _look(self, detector: Detector) -> Outlook | None:
        if self.dynamic or any(detector.timer(name)[2] == PENDING for name in self.tested):
            return None
        hard: list[Residual] = []
        soft: list[Soft] = []
        for event in self.transitions:
            residual = self._residual(event, detector)
            if residual == TRUE:
                return None
            if residual[0] != "value":
                hard.append(residual)
        for event in self.events:
            residual = self._residual(event, detector)
            if residual != TRUE and residual[0] == "value":
                continue
            restarted = self._effects(event, detector)
            if restarted is None:
                if residual == TRUE:
                    return None
                hard.append(residual)
            else:
                soft.extend(Soft(residual, timer, duration) for timer, duration in restarted)
        kept = tuple(dict.fromkeys(soft))
        if len({(each.timer, each.duration_s) for each in kept}) != len({each.timer for each in kept}):
            return None  # one timer restarted with two durations: the order of events decides
        residuals = tuple(dict.fromkeys(hard))
        return Outlook(self._conditions.setdefault(residuals, Conditions(residuals)), kept)

    def _residual(self, event: EventPlan, detector: Detector) -> Residual:
        """The event's condition with all but the columns filled in."""
        return TRUE if event.condition is None else self._fold(event.condition, detector)

    def _effects(self, event: EventPlan, detector: Detector) -> list[tuple[str, int]] | None:
        """The running timers that the event's actions restart; None where they do anything else."""
        restarted: list[tuple[str, int]] = []
        whole = self._settings.whole_second_timers
        for action in event.actions:
            match action:
                case SetVariablePlan(_, name, tree):
                    residual = self._fold(tree, detector)
                    if residual[0] != "value" or is_absent(residual[1].value):
                        return None
                    if residual != _constant(detector.variable(name)):
                        return None
                case ClearTimerPlan(_, name):
                    if detector.timer(name)[2] != UNSET:
                        return None
                case ResetTimerPlan(_, name):
                    _, duration_s, status = detector.timer(name)
                    if status != RUNNING or not whole:
                        return None
                    restarted.append((name, duration_s))
                case SetTimerPlan(_, name, ex.Literal(int() as seconds)):
                    legal = type(seconds) is int and self._settings.minimum_timer_s <= seconds <= MAX_TIMER_S
                    if detector.timer(name)[2] != RUNNING or not whole or not legal:
                        return None
                    restarted.append((name, seconds))
                case _:
                    return None
        return restarted

    def _other(self, reference: ex.Reference, detector: Detector) -> Operand:
        slot = detector.input_slots.get(reference)
        return UNDEFINED if slot is None else getattr(detector, slot)

    def _fold(self, tree: ex.Expression, detector: Detector) -> Residual:
        match tree:
            case ex.Literal(value):
                return _constant(value)
            case ex.Reference("variable", name, path):
                return _constant(UNDEFINED if path else detector.variable(name))
            case ex.Reference():
                if input_name_of(tree) != self._input_name:
                    return _constant(self._other(tree, detector))
                if any(isinstance(step, int) for step in payload_path(tree)):
                    return ("unsupported",)
                return ("column", tuple(str(step) for step in payload_path(tree)))
            case ex.Unary(operator, operand):
                inner = self._fold(operand, detector)
                if inner[0] == "value":
                    return _constant(UNARY[operator](inner[1].value))
                return ("negate" if operator == "-" else operator, inner)
            case ex.Binary(operator, left, right):
                return self._binary(operator, self._fold(left, detector), self._fold(right, detector))
            case ex.Call(function, arguments):
                return self._call(function, [self._fold(each, detector) for each in arguments])
        return ("unsupported",)

    def _binary(self, operator: str, left: Residual, right: Residual) -> Residual:
        if operator == "&&" and FALSE in (left, right):
            return FALSE
        if operator == "||" and TRUE in (left, right):
            return TRUE
        if left[0] != "value" or right[0] != "value":
            return (operator, left, right)
        a, b = left[1].value, right[1].value
        if operator == "&&":
            return TRUE if a is True and b is True else _constant(UNDEFINED)
        if operator == "||":
            return FALSE
        if operator == "/":
            return _constant(divider(self._settings.integer_division)(a, b))
        return _constant(BINARY[operator](a, b))

    def _call(self, function: str, arguments: list[Residual]) -> Residual:
        constants = [each[1].value for each in arguments if each[0] == "value"]
        if function in FUNCTIONS:
            if len(constants) == len(arguments):
                return _constant(FUNCTIONS[function](*constants))
            return (function, *arguments)
        if len(constants) != 1 or type(constants[0]) is not str:
            return _constant(UNDEFINED) if len(constants) == 1 else ("unsupported",)
        if function == "timeout":
            return FALSE  # a pending expiry would have stopped the look ahead
        if function == "triggerType":
            return _constant(constants[0].lower() == "message")
        return _constant(constants[0] == self._input_name)
