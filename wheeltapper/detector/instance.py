"""
One detector in memory: slots instead of dictionaries, so that a hundred thousand of them fit and generated code is fast.

Each plan gets its own class with one slot per variable (``v0``…), per remembered input reference (``i0``…) and three per
timer (``t0`` due, ``d0`` duration, ``f0`` status). Names of users never become names of Python. Variables and timers that
an operator adds and the definition does not know live in ``more``.
"""

import math
from collections.abc import Iterator
from typing import Any

from wheeltapper.detector.expression import show_reference
from wheeltapper.detector.plan import Plan
from wheeltapper.detector.state import DetectorState, TimerState, TimerStatus
from wheeltapper.detector.values import UNDEFINED, Operand, is_absent

# Timer status; every value above EXPIRED makes ``timeout`` true.
UNSET, RUNNING, EXPIRED, PENDING, SEEN = range(5)
_STATUS: dict[int, TimerStatus] = {RUNNING: "running", EXPIRED: "checked", PENDING: "pending", SEEN: "pending"}
_NUMBER: dict[str, int] = {"running": RUNNING, "checked": EXPIRED, "pending": PENDING}


class More:
    """What the definition does not know: variables by name, timers as [due, duration, status]."""

    __slots__ = ("timers", "variables")

    def __init__(self) -> None:
        self.variables: dict[str, Operand] = {}
        self.timers: dict[str, list[Any]] = {}


# Slots in the order in which they lie in memory: what every message touches is together, for the processor's cache. Python
# puts those of a base class first, hence three classes: these; values and statuses; the rest.
_FIRST = ("on", "s", "updated")
_LAST = ("created", "key", "more", "sequence", "wake")


class Detector:
    """
    A detector; use ``detector_class`` to get the class for a plan.

    Attributes:
        s: place of its state in the plan.
        on: what to call for each kind of trigger, set by whoever runs it.
        wake: when its shard will look at its timers again.
        created, updated: seconds since the epoch.
        sequence: actions so far.
    """

    __slots__ = _FIRST

    plan: Plan
    variable_slots: dict[str, str]
    input_slots: dict[Any, str]
    timer_slots: dict[str, str]
    status_slots: tuple[str, ...]
    blank: tuple[tuple[str, Any], ...]

    key: str
    s: int
    on: Any
    wake: float
    created: float
    updated: float
    sequence: int
    more: More | None

    def __init__(self, key: str, now: float) -> None:
        self.key = key
        self.s = self.plan.initial
        self.on = None
        self.wake = math.inf
        self.created = self.updated = now
        self.sequence = 0
        self.more = None
        for slot, value in self.blank:
            setattr(self, slot, value)

    def variable(self, name: str) -> Operand:
        slot = self.variable_slots.get(name)
        if slot is not None:
            return getattr(self, slot)
        return UNDEFINED if self.more is None else self.more.variables.get(name, UNDEFINED)

    def set_variable(self, name: str, value: Operand) -> None:
        slot = self.variable_slots.get(name)
        if slot is not None:
            setattr(self, slot, value)
        else:
            self._extra().variables[name] = value

    def variables(self) -> dict[str, Any]:
        """Those that have a value."""
        found = {name: getattr(self, slot) for name, slot in self.variable_slots.items()}
        if self.more is not None:
            found.update(self.more.variables)
        return {name: value for name, value in found.items() if value is not UNDEFINED}

    def timer(self, name: str) -> tuple[float, int, int]:
        """Due, duration and status."""
        slot = self.timer_slots.get(name)
        if slot is not None:
            return getattr(self, "t" + slot), getattr(self, "d" + slot), getattr(self, "f" + slot)
        found = None if self.more is None else self.more.timers.get(name)
        return (0.0, 0, UNSET) if found is None else (found[0], found[1], found[2])

    def set_timer(self, name: str, due: float, duration_s: int, status: int = RUNNING) -> None:
        slot = self.timer_slots.get(name)
        if slot is not None:
            setattr(self, "t" + slot, due)
            setattr(self, "d" + slot, duration_s)
            setattr(self, "f" + slot, status)
        else:
            self._extra().timers[name] = [due, duration_s, status]

    def mark_timer(self, name: str, status: int) -> None:
        slot = self.timer_slots.get(name)
        if slot is not None:
            setattr(self, "f" + slot, status)
        else:
            self._extra().timers.setdefault(name, [0.0, 0, status])[2] = status

    def clear_timer(self, name: str) -> None:
        if self.timer(name)[2] != UNSET:
            self.mark_timer(name, UNSET)

    def timer_names(self) -> Iterator[str]:
        yield from self.timer_slots
        if self.more is not None:
            yield from self.more.timers

    def timers(self) -> list[TimerState]:
        """Those that are set: running, or expired and not cleared since."""
        found = []
        for name in self.timer_names():
            due, duration_s, status = self.timer(name)
            if status != UNSET:
                found.append(TimerState(name=name, due=due, duration_s=duration_s, status=_STATUS[status]))
        return found

    def next_due(self) -> float:
        """When the first running timer ends; infinity when none runs."""
        due = math.inf
        for name in self.timer_names():
            end, _, status = self.timer(name)
            if status == RUNNING and end < due:
                due = end
        return due

    def due_timer(self, now: float) -> str | None:
        """The running timer that ended first, at or before ``now``."""
        ended = [(timer.due, timer.name) for timer in self.timers() if timer.status == "running" and timer.due <= now]
        return min(ended)[1] if ended else None

    def settle(self) -> None:
        """Consume the expiries that the pass has seen."""
        for slot in self.status_slots:
            if getattr(self, slot) == SEEN:
                setattr(self, slot, EXPIRED)
        for timer in () if self.more is None else self.more.timers.values():
            if timer[2] == SEEN:
                timer[2] = EXPIRED

    def export(self) -> DetectorState:
        plan = self.plan
        inputs = {show_reference(ref): getattr(self, slot) for ref, slot in self.input_slots.items()}
        return DetectorState(
            model=plan.name,
            version=plan.version,
            hash=plan.hash,
            key=self.key,
            state=plan.states[self.s].name,
            variables=self.variables(),
            timers=self.timers(),
            inputs={text: value for text, value in inputs.items() if value is not UNDEFINED},
            created=self.created,
            updated=self.updated,
            sequence=self.sequence,
        )

    def adopt(self, state: DetectorState) -> None:
        """
        Take over a state; input references that this plan does not have are dropped.

        Raises:
            DefinitionError: the plan has no such state.
        """
        self.s = self.plan.state_index(state.state)
        self.created, self.updated, self.sequence = state.created, state.updated, state.sequence
        for name, value in state.variables.items():
            if not is_absent(value):
                self.set_variable(name, value)
        for timer in state.timers:
            self.set_timer(timer.name, timer.due, timer.duration_s, _NUMBER[timer.status])
        for reference, slot in self.input_slots.items():
            setattr(self, slot, state.inputs.get(show_reference(reference), UNDEFINED))

    def _extra(self) -> More:
        if self.more is None:
            self.more = More()
        return self.more


def detector_class(plan: Plan) -> type[Detector]:
    """The class of a plan's detectors."""
    variable_slots = {name: f"v{place}" for place, name in enumerate(plan.variables)}
    timer_slots = {name: str(place) for place, name in enumerate(plan.timers)}
    references = [reference for given in plan.inputs for reference in given.references]
    input_slots = {reference: f"i{place}" for place, reference in enumerate(references)}
    values = (*variable_slots.values(), *input_slots.values())
    statuses = tuple("f" + place for place in timer_slots.values())
    times = tuple(letter + place for place in timer_slots.values() for letter in "td")
    blank: list[tuple[str, Any]] = [(slot, UNDEFINED) for slot in values]
    blank += [(slot, UNSET) for slot in statuses]
    blank += [(slot, 0.0 if slot[0] == "t" else 0) for slot in times]
    base = type("Detector", (Detector,), {"__slots__": (*values, *statuses)})
    members = {
        "__slots__": (*times, *_LAST),
        "plan": plan,
        "variable_slots": variable_slots,
        "input_slots": input_slots,
        "timer_slots": timer_slots,
        "status_slots": statuses,
        "blank": tuple(blank),
    }
    return type("Detector", (base,), members)
