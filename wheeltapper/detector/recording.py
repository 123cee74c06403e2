"""
What a recording did to a model: a replay that counts instead of acting.

Every condition evaluated, every value that arrived, how long timers ran and what ended them: the numbers from which
``analysis_messages`` concludes. One detector's history does not touch another's, so timers run when their detector is
next looked at.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from wheeltapper.detector.action import Message
from wheeltapper.detector.engine import Engine
from wheeltapper.detector.expression import Expression, Reference
from wheeltapper.detector.instance import PENDING, RUNNING, Detector
from wheeltapper.detector.interpreter import Pass, enter_first, remember, run_pass
from wheeltapper.detector.plan import EventPlan, Plan, key_text, payload_path
from wheeltapper.detector.plan_actions import ActionPlan
from wheeltapper.detector.values import UNDEFINED, Operand, follow, is_number

# Different values remembered of one attribute; more than this is "many".
_MAX_VALUES = 20


class Seen(msgspec.Struct):
    """The values of one reference over a recording."""

    arrived: int = 0
    null: int = 0
    low: float = math.inf
    high: float = -math.inf
    values: set[Any] = msgspec.field(default_factory=set)

    def add(self, value: Operand) -> None:
        if value is UNDEFINED:
            return
        self.arrived += 1
        if value is None:
            self.null += 1
            return
        if is_number(value):
            self.low, self.high = min(self.low, value), max(self.high, value)
        if len(self.values) <= _MAX_VALUES:
            self.values.add((type(value).__name__, value))

    def __str__(self) -> str:
        if not self.arrived:
            return "never arrived"
        if len(self.values) == 1 and not self.null:
            return f"was always {next(iter(self.values))[1]!r}"
        if self.low <= self.high:
            return f"was {self.low:g} to {self.high:g}"
        return "was " + ", ".join(sorted(repr(value) for _, value in self.values)[:5])


class Counts(msgspec.Struct):
    """How often one condition was true, false and undefined."""

    true: int = 0
    false: int = 0
    undefined: int = 0

    @property
    def total(self) -> int:
        return self.true + self.false + self.undefined


class InputSeen(msgspec.Struct):
    """The messages of one input, over all keys."""

    messages: int = 0
    gaps: int = 0
    gap_seconds: float = 0.0
    members: Counter[str] = msgspec.field(default_factory=Counter)
    last: dict[str, float] = msgspec.field(default_factory=dict)

    def interval(self) -> float:
        """Mean seconds between two messages of one key; infinite where there is none."""
        return self.gap_seconds / self.gaps if self.gaps else math.inf


class TimerSeen(msgspec.Struct):
    """One timer, over all keys; by input: messages it stood through, and those that cut it short."""

    starts: int = 0
    expired: int = 0
    running_seconds: float = 0.0
    longest: float = 0.0
    exposed: Counter[str] = msgspec.field(default_factory=Counter)
    cut: Counter[str] = msgspec.field(default_factory=Counter)
    durations: set[int] = msgspec.field(default_factory=set)


class Recording(msgspec.Struct):
    """The counts of one replay; ``actions`` by place in the definition, ``states[0].onEnter.events[0].actions[0]``."""

    messages: int = 0
    keyless: int = 0
    first: float = math.inf
    last: float = -math.inf
    keys: int = 0
    inputs: dict[str, InputSeen] = msgspec.field(default_factory=dict)
    references: dict[Reference, Seen] = msgspec.field(default_factory=dict)
    rules: dict[str, Counts] = msgspec.field(default_factory=dict)
    actions: Counter[str] = msgspec.field(default_factory=Counter)
    timers: dict[str, TimerSeen] = msgspec.field(default_factory=dict)
    entered: Counter[str] = msgspec.field(default_factory=Counter)

    @property
    def seconds(self) -> float:
        """From the first message to the last."""
        return max(self.last - self.first, 0.0)


def replay(engine: Engine, messages: Iterable[Message], testers: dict[str, set[str]]) -> Recording:
    """
    Run a recording through a model and count.

    Args:
        engine: the model.
        messages: in order of time, each with ``time_ms``.
        testers: timer → the states that test it.
    """
    replayed = _Replay(engine, testers)
    for message in messages:
        replayed.take(message)
    replayed.finish()
    return replayed.recording


class _Notes:
    """Counts what a pass says."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def value(self, tree: Expression, value: Operand) -> None:
        """Values are not counted."""

    def condition(self, event: EventPlan, result: Operand) -> None:
        counts = self._recording.rules.setdefault(event.path, Counts())
        if result is True:
            counts.true += 1
        elif result is False:
            counts.false += 1
        else:
            counts.undefined += 1

    def skipped(self, event: EventPlan, because: EventPlan) -> None:
        """A transition that was not asked."""

    def action(self, action: ActionPlan, event: EventPlan) -> None:
        self._recording.actions[action.path.rpartition(".")[0]] += 1


class _Replay:
    def __init__(self, engine: Engine, testers: dict[str, set[str]]) -> None:
        self.recording = Recording(references={ref: Seen() for given in engine.plan.inputs for ref in given.references})
        self._engine = engine
        self._plan: Plan = engine.plan
        self._testers = testers
        self._detectors: dict[str, Detector] = {}
        self._started: dict[tuple[str, str], tuple[float, float]] = {}
        self._notes = _Notes(self.recording)
        self._timer_names = list(self._plan.timers)

    def take(self, message: Message) -> None:
        recording = self.recording
        now = (message.time_ms or 0) / 1000
        recording.messages += 1
        recording.first, recording.last = min(recording.first, now), max(recording.last, now)
        seen = recording.inputs.setdefault(message.input_name, InputSeen())
        seen.messages += 1
        seen.members.update(message.payload.keys())
        given = next((each for each in self._plan.inputs if each.name == message.input_name), None)
        if given is None:
            return
        for reference in given.references:
            recording.references[reference].add(follow(message.payload, payload_path(reference)))
        key = "" if self._plan.key is None else key_text(follow(message.payload, self._plan.key))
        if key is None:
            recording.keyless += 1
            return
        if key in seen.last:
            seen.gaps += 1
            seen.gap_seconds += now - seen.last[key]
        seen.last[key] = now
        self._deliver(key, message, now)

    def finish(self) -> None:
        """Run the timers that fall due before the recording ends."""
        for detector in self._detectors.values():
            self._run_timers(detector, self.recording.last)
        self.recording.keys = len(self._detectors)

    def _deliver(self, key: str, message: Message, now: float) -> None:
        detector = self._detectors.get(key)
        if detector is None:
            detector = self._detectors[key] = self._engine.create(key, now)
            remember(detector, message)
            self.recording.entered[self._state(detector)] += 1
            self._pass(
                detector, now, Pass(detector, now, self._engine.settings, message, notes=self._notes), enter_first
            )
        else:
            self._run_timers(detector, now)
            remember(detector, message)
        run = Pass(detector, now, self._engine.settings, message, notes=self._notes)
        self._pass(detector, now, run, run_pass, cause=message.input_name)

    def _run_timers(self, detector: Detector, now: float) -> None:
        while (name := detector.due_timer(now)) is not None:
            due = detector.timer(name)[0]
            detector.mark_timer(name, PENDING)
            timer = self.recording.timers.setdefault(name, TimerSeen())
            timer.expired += 1
            started = self._started.pop((detector.key, name), None)
            if started is not None:
                timer.running_seconds += due - started[0]
                timer.longest = max(timer.longest, due - started[0])
            run = Pass(detector, due, self._engine.settings, timer=name, notes=self._notes)
            self._pass(detector, due, run, run_pass)

    def _state(self, detector: Detector) -> str:
        return self._plan.states[detector.s].name

    def _pass(self, detector: Detector, now: float, run: Pass, execute: Any, cause: str = "") -> None:
        watched = {name: self._started.get((detector.key, name)) for name in self._timer_names}
        state = self._state(detector)
        execute(run)
        detector.updated = now
        if run.event is not None:
            self.recording.entered[self._state(detector)] += 1
        for name, started in watched.items():
            self._watch(detector, name, started, state, now, cause)

    def _watch(
        self, detector: Detector, name: str, started: tuple[float, float] | None, state: str, now: float, cause: str
    ) -> None:
        """Account for what a pass did to one timer."""
        due, duration_s, status = detector.timer(name)
        if started is None and status != RUNNING:
            return
        timer = self.recording.timers.setdefault(name, TimerSeen())
        testers = self._testers.get(name, set())
        goes_on = started is not None and status == RUNNING and started[1] == due
        if started is not None and now > started[0] and cause and state in testers:
            timer.exposed[cause] += 1
            if not goes_on or self._state(detector) not in testers:
                timer.cut[cause] += 1
                timer.longest = max(timer.longest, now - started[0])
        if started is not None and not goes_on:
            timer.running_seconds += now - started[0]
            timer.longest = max(timer.longest, now - started[0])
            del self._started[detector.key, name]
        if status == RUNNING and not goes_on:
            timer.starts += 1
            timer.durations.add(duration_s)
            self._started[detector.key, name] = (now, due)
