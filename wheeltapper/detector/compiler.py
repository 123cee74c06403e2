"""
A plan as Python functions, one for each state and kind of trigger.

Each is made when it is first needed, from source that a debugger can show: input attributes become local variables, typed
comparisons become Python's own, actions become assignments to slots. What is rare is left to the interpreter's ``Pass``:
external actions, failures, durations that are computed. The interpreter stays the reference; a property test holds both
against each other.
"""

import linecache
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from wheeltapper.detector import values
from wheeltapper.detector.action import Message
from wheeltapper.detector.expression import Binary, Expression, Literal, Reference, walk
from wheeltapper.detector.instance import SEEN, Detector, detector_class
from wheeltapper.detector.interpreter import Pass, evaluate
from wheeltapper.detector.plan import EventPlan, Plan, payload_path
from wheeltapper.detector.plan_actions import (
    MAX_TIMER_S,
    ActionPlan,
    ClearTimerPlan,
    ExternalPlan,
    ResetTimerPlan,
    SetTimerPlan,
    SetVariablePlan,
    trees_of,
)
from wheeltapper.detector.settings import EngineSettings
from wheeltapper.detector.translate import ORDER, Translator, checks_timers, is_never_absent

Handlers: TypeAlias = list[list[Callable[..., Pass | None]]]

_CACHE: dict[Any, "_Compilation"] = {}
_CACHE_SIZE = 256

_HELPERS: dict[str, Any] = {
    name: getattr(values, name)
    for name in (
        *(
            "add",
            "bit_and",
            "bit_not",
            "bit_or",
            "bit_xor",
            "both",
            "contains",
            "convert",
            "ends_with",
            "equal",
            "greater",
        ),
        *("greater_or_equal", "invert", "join", "less", "less_or_equal", "multiply", "negate", "not_equal"),
        *("starts_with", "subtract"),
    )
}


def compile_plan(plan: Plan, settings: EngineSettings) -> Handlers:
    """
    The handlers of ``engine.Engine``: per state one function per input and one for timers.

    A definition that was compiled before, under the same settings, is not compiled again.
    """
    key = (plan.hash, settings, plan.inputs)
    compilation = _CACHE.get(key)
    if compilation is None:
        if len(_CACHE) >= _CACHE_SIZE:
            _CACHE.pop(next(iter(_CACHE))).forget()
        compilation = _CACHE[key] = _Compilation(plan, settings)
    return compilation.handlers


def generated_source(plan: Plan, settings: EngineSettings) -> str:
    """All the Python that the plan becomes, for people to read."""
    compilation = _Compilation(plan, settings, shown=False)
    compilation.make_all()
    return "\n\n".join(compilation.sources)


def _see(detector: Detector, timer: str) -> bool:
    detector.mark_timer(timer, SEEN)
    return True


def _plain(value: Any) -> Any:
    return values.UNDEFINED if isinstance(value, dict | list) else value


class _Compilation:
    """The functions of one plan and the names that they see; ``shown`` lets debuggers find the source."""

    def __init__(self, plan: Plan, settings: EngineSettings, *, shown: bool = True) -> None:
        self._shown = shown
        self.plan = plan
        self.settings = settings
        self.sources: list[str] = []
        self._files: list[str] = []
        shape = detector_class(plan)
        self.slots: dict[Reference, str] = dict(shape.input_slots)
        self.slots |= {Reference("variable", name): slot for name, slot in shape.variable_slots.items()}
        self.timers = shape.timer_slots
        self._names: dict[str, Any] = {
            **_HELPERS,
            "U": values.UNDEFINED,
            "NAN": math.nan,
            "divide": values.divider(settings.integer_division),
            "plain": _plain,
            "see": _see,
            "begin": self._begin,
            "ask": self._ask,
        }
        self.handlers: Handlers = []
        for state in range(len(plan.states)):
            row = [self._stub_message(state, index) for index in range(len(plan.inputs))]
            self.handlers.append([*row, self._stub_timer(state)])
            self._names[f"ON{state}"] = self.handlers[state]
            for place in range(len(plan.states[state].transitions)):
                self._names[f"go{state}_{place}"] = self._stub_transition(state, place)

    def make_all(self) -> None:
        for state in range(len(self.plan.states)):
            for index in range(len(self.plan.inputs)):
                self._make_message(state, index)
                if f"on{state}_{index}_pending" in self._names:
                    self._make_pending(state, index)
            self._make_timer(state)
            for place in range(len(self.plan.states[state].transitions)):
                self._make_transition(state, place)

    def forget(self) -> None:
        for file in self._files:
            linecache.cache.pop(file, None)

    def constant(self, value: object, prefix: str) -> str:
        """A name for an object that generated code needs."""
        name = f"{prefix}{len(self._names)}"
        self._names[name] = value
        return name

    def _begin(self, detector: Detector, now: float, message: Message | None, timer: str) -> Pass:
        return Pass(detector, now, self.settings, message, timer)

    def _ask(self, tree: Expression, detector: Detector, now: float, message: Message | None, timer: str) -> Any:
        return evaluate(tree, Pass(detector, now, self.settings, message, timer))

    def _stub_message(self, state: int, index: int) -> Callable[..., Pass | None]:
        def first_time(d: Detector, p: dict[str, Any], now: float, m: Message) -> Pass | None:
            self.handlers[state][index] = made = self._make_message(state, index)
            result: Pass | None = made(d, p, now, m)
            return result

        return first_time

    def _stub_pending(self, state: int, index: int) -> Callable[..., Pass | None]:
        def first_time(d: Detector, p: dict[str, Any], now: float, m: Message) -> Pass | None:
            name = f"on{state}_{index}_pending"
            self._names[name] = made = self._make_pending(state, index)
            result: Pass | None = made(d, p, now, m)
            return result

        return first_time

    def _stub_timer(self, state: int) -> Callable[..., Pass | None]:
        def first_time(d: Detector, t: str, now: float) -> Pass | None:
            self.handlers[state][-1] = made = self._make_timer(state)
            result: Pass | None = made(d, t, now)
            return result

        return first_time

    def _stub_transition(self, state: int, place: int) -> Callable[..., Pass]:
        def first_time(out: Pass, d: Detector, now: float, m: Message | None, t: str) -> Pass:
            self._names[f"go{state}_{place}"] = made = self._make_transition(state, place)
            result: Pass = made(out, d, now, m, t)
            return result

        return first_time

    def _make_message(self, state: int, index: int) -> Callable[..., Any]:
        """The function for a message: where a state asks for expiries, the usual case that none is pending comes first."""
        body = self._message_body(state, index, quiet=True)
        if not body.is_sure:
            body = self._message_body(state, index, quiet=False)
        elif body.asks_for_expiries:
            self._names[f"on{state}_{index}_pending"] = self._stub_pending(state, index)
        return self._make(f"on{state}_{index}", "d, p, now, m", self._message_title(state, index), body.lines)

    def _make_pending(self, state: int, index: int) -> Callable[..., Any]:
        body = self._message_body(state, index, quiet=False)
        title = self._message_title(state, index) + ", an expiry pending"
        return self._make(f"on{state}_{index}_pending", "d, p, now, m", title, body.lines)

    def _message_body(self, state: int, index: int, *, quiet: bool) -> "_Function":
        given = self.plan.inputs[index]
        body = _Function(self, given.references, is_message=True, input_name=given.name, quiet=quiet)
        body.run_state(state, f"on{state}_{index}_pending")
        return body

    def _message_title(self, state: int, index: int) -> str:
        return f"state {self.plan.states[state].name!a} on a message of {self.plan.inputs[index].name!a}"

    def _make_timer(self, state: int) -> Callable[..., Any]:
        body = _Function(self, (), is_message=False, input_name="")
        body.run_state(state)
        title = f"state {self.plan.states[state].name!a} on a timer"
        return self._make(f"on{state}_timer", "d, t, now", title, ["d.mark_timer(t, 3)", *body.lines])

    def _make_transition(self, state: int, place: int) -> Callable[..., Any]:
        event = self.plan.states[state].transitions[place]
        body = _Function(self, (), is_message=None, input_name="")
        body.leave(state, event)
        title = f"transition {event.name!a} from state {self.plan.states[state].name!a}"
        return self._make(f"go{state}_{place}", "out, d, now, m, t", title, body.lines)

    def _make(self, name: str, arguments: str, title: str, lines: Sequence[str]) -> Callable[..., Any]:
        source = f"def {name}({arguments}):\n    # {title}\n" + "".join(f"    {line}\n" for line in lines)
        file = f"<{self.plan.name or 'detector model'} {self.plan.hash[:12]} {name}>"
        if self._shown:
            linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
            self._files.append(file)
        self.sources.append(source)
        exec(compile(source, file, "exec"), self._names)  # noqa: S102 - holds literals and our own names only
        function: Callable[..., Any] = self._names[name]
        return function


class _Function:
    """
    The lines of one function.

    Args:
        home: the names that it sees.
        local: references that it takes from the payload.
        is_message, input_name, quiet: as for ``Translator``.
    """

    def __init__(
        self,
        home: _Compilation,
        local: Iterable[Reference],
        *,
        is_message: bool | None,
        input_name: str,
        quiet: bool = False,
    ) -> None:
        self._home = home
        self._quiet = quiet
        self._serial = home.plan.serial
        self._settings = home.settings
        self._translator = Translator(
            home.slots,
            home.timers,
            local,
            is_message=is_message,
            input_name=input_name,
            once=home.settings.timeout_once_per_check,
            quiet=quiet,
            ask=lambda tree: f"ask({home.constant(tree, 'X')}, d, now, {self._trigger})",
        )
        self._own = tuple(local)
        # The message and the timer, of which the function has one, the other, or either.
        self._trigger = {True: "m, ''", False: "None, t", None: "m, t"}[is_message]
        self.lines: list[str] = []
        # Places of events whose condition is false as long as nothing is pending.
        self._never: set[int] = set()

    @property
    def is_sure(self) -> bool:
        """Whether every timer that it may ask for is known."""
        return not self._translator.checks

    @property
    def asks_for_expiries(self) -> bool:
        """Whether it differs while an expiry is pending."""
        return bool(self._translator.tested)

    def run_state(self, state: int, pending: str = "") -> None:
        """A whole pass through a state's onInput; ``pending`` is the function for pending expiries, where this is quiet."""
        plan = self._home.plan.states[state]
        hoisted = [] if self._serial else self._worth_hoisting([*plan.input, *plan.transitions])
        for reference in hoisted:
            self._translator.hoist(reference)
        if self._serial:
            self._serial_group(plan.input)
            self._choose(state, plan.transitions)
        else:
            self._conditions(plan.input)
            self._choose(state, plan.transitions)
            self._actions_if(plan.input)
        self._finish(plan.transitions)
        # What the body needs beforehand is known only now.
        body, self.lines = self.lines, []
        self._begin(hoisted, pending)
        self.lines += body

    def _begin(self, hoisted: Sequence[Reference], pending: str) -> None:
        if self._quiet and self._translator.tested:
            tests = " or ".join(f"d.f{slot} > 2" for slot in self._translator.tested)
            self._add(f"if {tests}:", f"    return {pending}(d, p, now, m)")
        self._add("d.updated = now", "out = None")
        if self._translator.checks:
            self._add(f"k = {self._translator.asks}")
        self._extract_all()
        for reference in hoisted:
            self._load(reference)

    def _finish(self, transitions: Sequence[EventPlan]) -> None:
        if transitions:
            self._add("if go is not None:", f"    return go(out, d, now, {self._trigger})")
        if self._translator.checks:
            self._add("if k:", "    d.settle()")
        self._add("return out")

    def leave(self, state: int, event: EventPlan) -> None:
        """What a transition does, once the actions of onInput have run."""
        states = self._home.plan.states
        self._act(event, "")
        self._group(states[state].exit)
        self._add(f"d.s = {event.next_state}  # {states[event.next_state].name!a}", f"d.on = ON{event.next_state}")
        self._group(states[event.next_state].enter)
        self._add("d.settle()", "return out")

    def _add(self, *lines: str) -> None:
        self.lines += lines

    def _worth_hoisting(self, events: Sequence[EventPlan]) -> list[Reference]:
        """References of elsewhere that are compared with numbers more than once."""
        uses: Counter[Reference] = Counter()
        for event in events:
            for node in () if event.condition is None else walk(event.condition):
                match node:
                    case Binary(operator, Reference() as ref, Literal()) | Binary(
                        operator, Literal(), Reference() as ref
                    ):
                        if operator in ORDER and ref not in self._own and ref in self._home.slots:
                            uses[ref] += 1
        return [reference for reference, count in uses.items() if count > 1]

    def _extract_all(self) -> None:
        """Take attributes from the payload into slots and, where they are compared, into local variables."""
        slots, plain = self._home.slots, [ref for ref in self._own if payload_path(ref)]
        firsts = [(slots[ref], ascii(payload_path(ref)[0])) for ref in plain]
        if firsts:
            # The usual message has them all, and this is the quickest way to them.
            self._add("try:", *(f"    {slot} = p[{name}]" for slot, name in firsts))
            self._add("except KeyError:", *(f"    {slot} = p.get({name}, U)" for slot, name in firsts))
        for reference in self._own:
            self._extract(reference, slots[reference])

    def _extract(self, reference: Reference, slot: str) -> None:
        if not payload_path(reference):
            self._add(f"{slot} = U")
        for step in payload_path(reference)[1:]:
            if isinstance(step, str):
                self._add(f"{slot} = {slot}.get({step!a}, U) if type({slot}) is dict else U")
            else:
                self._add(f"{slot} = {slot}[{step}] if type({slot}) is list and len({slot}) > {step} else U")
        if reference in self._translator.numbers:
            self._add(f"n{slot} = {slot}", f"if type({slot}) is not float and type({slot}) is not int:")
            self._add(f"    n{slot} = NAN", f"    {slot} = plain({slot})")
        else:
            self._add(f"if type({slot}) is not float:", f"    {slot} = plain({slot})")
        self._add(f"d.{slot} = {slot}")

    def _load(self, reference: Reference) -> None:
        slot = self._home.slots[reference]
        self._add(f"{slot} = n{slot} = d.{slot}")
        self._add(f"if type({slot}) is not float and type({slot}) is not int:", f"    n{slot} = NAN")

    def _conditions(self, events: Sequence[EventPlan]) -> None:
        self._never.clear()
        for place, event in enumerate(events):
            if event.condition is None:
                continue
            truth = self._truth_of(event, event.condition)
            if truth == "False":
                self._never.add(place)
            else:
                # As a choice, which Python compares more quickly for than for a value.
                self._add(f"c{place} = True if {truth} else False  # {event.name!a}")

    def _truth_of(self, event: EventPlan, condition: Expression) -> str:
        """Python for an event's condition; "False" where nothing comes of it that anybody sees."""
        if not event.actions and not checks_timers(condition):
            return "False"
        truth = self._translator.truth(condition)
        return "False" if self._quiet and not event.actions else truth

    def _actions_if(self, events: Sequence[EventPlan]) -> None:
        for place, event in enumerate(events):
            if event.condition is None:
                self._act(event, "")
            elif event.actions and place not in self._never:
                self._add(f"if c{place}:")
                self._act(event, "    ")

    def _group(self, events: Sequence[EventPlan]) -> None:
        if self._serial:
            self._serial_group(events)
        else:
            self._conditions(events)
            self._actions_if(events)

    def _serial_group(self, events: Sequence[EventPlan]) -> None:
        for event in events:
            if event.condition is None:
                self._act(event, "")
                continue
            truth = self._truth_of(event, event.condition)
            if truth == "False":
                continue
            self._add(f"if {truth}:  # {event.name!a}")
            if event.actions:
                self._act(event, "    ")
            else:
                self._add("    pass")

    def _choose(self, state: int, transitions: Sequence[EventPlan]) -> None:
        """Find the first transition whose condition holds, and keep the values that it read."""
        if transitions:
            self._add("go = None")
        word = "if"
        for place, event in enumerate(transitions):
            truth = "True" if event.condition is None else self._translator.truth(event.condition)
            if truth == "False":
                continue
            name = self._home.constant(event, "E")
            self._add(
                f"{word} {truth}:  # {event.name!a}",
                "    if out is None:",
                f"        out = begin(d, now, {self._trigger})",
                f"    out.take({name})",
                f"    go = go{state}_{place}",
            )
            word = "elif"

    def _act(self, event: EventPlan, indent: str) -> None:
        start = len(self.lines)
        for action in event.actions:
            self._action(action, event)
        self.lines[start:] = [indent + line for line in self.lines[start:]]

    def _action(self, action: ActionPlan, event: EventPlan) -> None:
        match action:
            case SetVariablePlan(_, name, value):
                self._set_variable(action, self._home.slots[Reference("variable", name)], value)
            case SetTimerPlan(path, name, duration):
                self._set_timer(path, name, duration)
            case ResetTimerPlan(_, name):
                slot = self._home.timers[name]
                self._add(f"if d.f{slot}:  # {name!a} is set", f"    d.t{slot} = x = {self._start()} + d.d{slot}")
                self._add(
                    f"    d.f{slot} = 1",
                    "    if x < d.wake and out is None:",
                    f"        out = begin(d, now, {self._trigger})",
                )
                self._add("else:")
                self._leave_to_pass(
                    f"run({self._home.constant(action, 'A')}, {self._home.constant(event, 'E')})", "    "
                )
            case ClearTimerPlan(_, name):
                self._add(f"d.f{self._home.timers[name]} = 0  # {name!a}")
            case ExternalPlan():
                self._leave_to_pass(f"emit({self._home.constant(action, 'A')}, {self._home.constant(event, 'E')})", "")
                if any(map(checks_timers, trees_of(action))):
                    self._translator.checks = True
                    self._add("k = True")

    def _set_variable(self, action: SetVariablePlan, slot: str, value: Expression) -> None:
        if is_never_absent(value):
            self._add(f"d.{slot} = {self._translator.value(value)}  # {action.name!a}")
            return
        self._add(f"x = {self._translator.value(value)}")
        self._add("if x is not U and x is not None:", f"    d.{slot} = x  # {action.name!a}", "else:")
        self._leave_to_pass(f"assign({self._home.constant(action, 'A')}, x)", "    ")

    def _set_timer(self, path: str, name: str, duration: Expression) -> None:
        slot = self._home.timers[name]
        seconds = duration.value if isinstance(duration, Literal) else None
        if type(seconds) is int and self._settings.minimum_timer_s <= seconds <= MAX_TIMER_S:
            self._add(f"d.t{slot} = x = {self._start()} + {seconds}  # {name!a}", f"d.d{slot} = {seconds}")
            self._add(f"d.f{slot} = 1", "if x < d.wake and out is None:", f"    out = begin(d, now, {self._trigger})")
        else:
            value = self._translator.value(duration)
            self._leave_to_pass(f"start_timer({path!a}, {name!a}, {value})", "")

    def _start(self) -> str:
        return "now // 1.0" if self._settings.whole_second_timers else "now"

    def _leave_to_pass(self, call: str, indent: str) -> None:
        for line in ("if out is None:", f"    out = begin(d, now, {self._trigger})", f"out.{call}"):
            self._add(indent + line)
