"""
Which states, events and actions can ever happen: exploration of a definition with sets of values.

A configuration is a state, what each variable may hold and which timers exist. From the initial state every trigger is
tried; inputs may be anything. The exploration over-estimates, so what it does not reach cannot be reached (short of
BatchUpdateDetector, which may put a detector anywhere). Repetition ends by widening: a variable that takes many values
is rounded out to the constants that the definition compares with.
"""

from collections.abc import Iterable
from functools import reduce
from typing import Literal, NamedTuple

import msgspec

from wheeltapper.detector import expression as ex
from wheeltapper.detector import intervals as iv
from wheeltapper.detector.analysis_survey import Rule, Step, Survey, timers_of
from wheeltapper.detector.intervals import Possible
from wheeltapper.detector.outcomes import (
    Fact,
    Facts,
    Outcome,
    Trigger,
    cases,
    checked_of,
    join_facts,
    known,
    timeout_of,
    value,
)
from wheeltapper.detector.plan_actions import MAX_TIMER_S

# Absent: never set, or cleared. Pending: expired, and no condition has asked yet. Spent: expired, and one has.
TimerState = Literal["absent", "running", "pending", "spent"]
Timers = dict[str, frozenset[TimerState]]

ABSENT: frozenset[TimerState] = frozenset(("absent",))
RUNNING: frozenset[TimerState] = frozenset(("running",))
PENDING: frozenset[TimerState] = frozenset(("pending",))

# How finely alternatives are kept apart, and after how many conditions evaluated they are joined instead.
_MAX_PATHS = 64
_MAX_PER_STATE = 24
_WIDEN_AFTER = 5
# Work is counted in nodes of conditions; beyond the last bound nothing is claimed any more.
_FINE_WORK = 15_000
_MOST_WORK = 45_000


class Configuration(msgspec.Struct, frozen=True):
    """Where a detector may stand between two passes; ``timers`` lists what may be the case."""

    state: str
    variables: tuple[tuple[str, Possible], ...]
    timers: tuple[tuple[str, frozenset[TimerState]], ...]


class _Path(NamedTuple):
    """One way through a pass so far."""

    facts: Facts
    timers: Timers


# Facts and the rules that fired, in order; False where a rule may or may not have fired.
_Fired = tuple[tuple[Rule, bool], ...]
_Way = tuple[Facts, _Fired]


class Reach(msgspec.Struct):
    """
    What may happen.

    Attributes:
        states: states that can be entered.
        outcomes: rule path → the outcomes its condition can have.
        found: (action path, what it found): of resetTimer and clearTimer the timer's states, of setVariable whether the
            value may be ``value`` or ``undefined``.
        unset_reads: (rule path, variable) → whether it may be set when it is read ("unset", "set").
        leaving: (rule path, timer) where a live timer is left behind by a transition.
        timer_passes: (state, timer) where a timer may expire.
        overtaken: actions of SERIAL models that may set, reset or clear a timer in the pass of its own expiry.
        exact: whether the exploration stayed within its limits; even if not, it still over-estimates.
    """

    states: set[str] = msgspec.field(default_factory=set)
    outcomes: dict[str, set[Outcome]] = msgspec.field(default_factory=dict)
    found: dict[str, set[str]] = msgspec.field(default_factory=dict)
    unset_reads: dict[tuple[str, str], set[str]] = msgspec.field(default_factory=dict)
    leaving: set[tuple[str, str]] = msgspec.field(default_factory=set)
    timer_passes: set[tuple[str, str]] = msgspec.field(default_factory=set)
    overtaken: set[str] = msgspec.field(default_factory=set)
    exact: bool = True


def explore(survey: Survey, *, serial: bool = False, fine_work: int | None = None) -> Reach:
    """
    Everything that may happen to a detector from its creation on.

    Args:
        survey: a definition without structural errors.
        serial: its evaluation method.
        fine_work: how much work to spend before alternatives are joined; more is more exact.
    """
    try:
        return _Explorer(survey, serial, _FINE_WORK if fine_work is None else fine_work).run()
    except _TooMuchError:
        return _everything(survey)


class _TooMuchError(Exception):
    """The definition has too many alternatives to tell anything."""


def _everything(survey: Survey) -> Reach:
    """What may happen when nothing is known: all of it."""
    outcomes: tuple[Outcome, ...] = ("true", "false", "undefined")
    found = ("absent", "running", "pending", "spent", "value", "undefined")
    return Reach(
        states=set(survey.states),
        outcomes={rule.path: set(outcomes) for rule in survey.rules},
        found={step.path: set(found) for rule in survey.rules for step in rule.steps},
        exact=False,
    )


class _Explorer:
    def __init__(self, survey: Survey, serial: bool, fine_work: int) -> None:
        self._survey = survey
        self._serial = serial
        self._fine_work = fine_work
        self._reach = Reach()
        self._inputs = sorted(survey.input_names()) or [""]
        self._thresholds = _thresholds(survey)
        self._timer_names = list(dict.fromkeys(name for _, _, tree in survey.trees() for name in timers_of(tree)))
        self._groups = {
            (state, life_cycle, transitions): survey.of(state, life_cycle, transitions=transitions)
            for state in survey.states
            for life_cycle in ("onEnter", "onInput", "onExit")
            for transitions in (False, True)
        }
        self._taken: dict[str, set[Possible]] = {}
        self._known: dict[str, list[Configuration]] = {state: [] for state in survey.states}
        self._waiting: list[Configuration] = []
        self._work = 0
        self._sizes = {
            rule.path: sum(1 for _ in ex.walk(rule.condition)) for rule in survey.rules if rule.condition is not None
        }

    @property
    def _coarse(self) -> bool:
        return self._work > self._fine_work

    def run(self) -> Reach:
        for name in self._inputs:
            self._create(Trigger("Message", name))
        while self._waiting:
            configuration = self._waiting.pop()
            if not any(configuration is each for each in self._known[configuration.state]):
                continue  # covered by a wider one since
            for trigger in self._triggers(configuration):
                self._pass(configuration, trigger)
        return self._reach

    def _triggers(self, configuration: Configuration) -> Iterable[Trigger]:
        for name in self._inputs:
            yield Trigger("Message", name)
        for name, states in configuration.timers:
            if "running" in states:
                yield Trigger("Timer", name)

    def _create(self, trigger: Trigger) -> None:
        state = self._survey.initial
        self._reach.states.add(state)
        for path in self._group(self._groups[state, "onEnter", False], [_Path({}, {})], trigger):
            self._input_pass(state, path, trigger)

    def _pass(self, configuration: Configuration, trigger: Trigger) -> None:
        facts: dict[Fact, Possible] = {ex.Reference("variable", name): found for name, found in configuration.variables}
        self._input_pass(configuration.state, _Path(facts, dict(configuration.timers)), trigger)

    def _input_pass(self, state: str, start: _Path, trigger: Trigger) -> None:
        """One onInput pass, whatever made the detector stand there."""
        if trigger.kind == "Timer":
            self._reach.timer_passes.add((state, trigger.name))
        events = self._groups[state, "onInput", False]
        transitions = self._groups[state, "onInput", True]
        timers = {**start.timers, trigger.name: PENDING} if trigger.kind == "Timer" else start.timers
        start = _Path({**start.facts, **self._timeouts(timers)}, timers)
        if self._serial:
            paths = [(path, None) for path in self._group(events, [start], trigger)]
            ends = [end for path, _ in paths for end in self._choose(transitions, path, trigger)]
        else:
            ends = self._batch(events, transitions, start, trigger)
        for path, rule in ends:
            self._finish(state, path, rule, trigger)

    def _timeouts(self, timers: Timers) -> dict[Fact, Possible]:
        """What ``timeout`` of each timer may say at the start of a pass."""
        out: dict[Fact, Possible] = {}
        for name in self._timer_names:
            states = timers.get(name, ABSENT)
            out[timeout_of(name)] = Possible(true="pending" in states, false=states != PENDING)
            out[checked_of(name)] = iv.FALSE
        return out

    # -- conditions

    def _cases(self, rule: Rule, facts: Facts, trigger: Trigger) -> list[tuple[Outcome, Facts]]:
        if rule.condition is None:
            return [("false", facts)]
        self._work += self._sizes[rule.path]
        if self._work > _MOST_WORK:
            raise _TooMuchError
        self._note_reads(rule, rule.path, rule.condition, facts)
        found = cases(rule.condition, facts, trigger)
        self._reach.outcomes.setdefault(rule.path, set()).update(outcome for outcome, _ in found)
        merged: list[tuple[Outcome, Facts]] = []
        for outcome, then in found:
            plain: Outcome = "true" if outcome == "true" else "false"
            if (plain, then) not in merged:
                merged.append((plain, then))
        return merged

    def _note_reads(self, rule: Rule, path: str, tree: ex.Expression, facts: Facts) -> None:
        for reference in ex.references(tree):
            if reference.root == "variable":
                found = known(reference, facts)
                noted = self._reach.unset_reads.setdefault((path, reference.name), set())
                if found.undefined:
                    noted.add("unset")
                if found.is_value:
                    noted.add("set")

    def _batch(
        self, events: list[Rule], transitions: list[Rule], start: _Path, trigger: Trigger
    ) -> list[tuple[_Path, Rule | None]]:
        """All conditions on the snapshot, then the actions of the events that held."""
        ways: list[_Way] = [(start.facts, ())]
        for rule in events:
            ways = self._limited(
                [
                    (then, (*fired, (rule, True)) if outcome == "true" else fired)
                    for facts, fired in ways
                    for outcome, then in self._cases(rule, facts, trigger)
                ]
            )
        ends: list[tuple[_Path, Rule | None]] = []
        for facts, fired in ways:
            for then, chosen in self._first_true(transitions, facts, trigger):
                path = _Path(then, dict(start.timers))
                for rule, surely in fired:
                    acted = self._act(rule, path, trigger)
                    path = acted if surely else _join_paths(path, acted)
                ends.append((path, chosen))
        return ends

    def _choose(self, transitions: list[Rule], path: _Path, trigger: Trigger) -> list[tuple[_Path, Rule | None]]:
        return [
            (_Path(then, path.timers), chosen) for then, chosen in self._first_true(transitions, path.facts, trigger)
        ]

    def _first_true(self, transitions: list[Rule], facts: Facts, trigger: Trigger) -> list[tuple[Facts, Rule | None]]:
        ends: list[tuple[Facts, Rule | None]] = []
        open_ways: list[_Way] = [(facts, ())]
        for rule in transitions:
            still: list[_Way] = []
            for now, _ in open_ways:
                for outcome, then in self._cases(rule, now, trigger):
                    if outcome == "true":
                        ends.append((then, rule))
                    else:
                        still.append((then, ()))
            open_ways = self._limited(still)
        return ends + [(now, None) for now, _ in open_ways]

    def _limited(self, ways: list[_Way]) -> list[_Way]:
        """Each way once; too many are joined, first where the same rules fired, then altogether."""
        kept: list[_Way] = []
        for way in ways:
            if way not in kept:
                kept.append(way)
        limit = 1 if self._coarse else _MAX_PATHS
        if len(kept) <= limit:
            return kept
        self._reach.exact = False
        joined: dict[tuple[str, ...], _Way] = {}
        for facts, fired in kept:
            key = tuple(rule.path for rule, _ in fired)
            joined[key] = _join_ways(joined[key], (facts, fired)) if key in joined else (facts, fired)
        kept = list(joined.values())
        return kept if len(kept) <= limit else [reduce(_join_ways, kept)]

    # -- groups and actions

    def _group(self, events: list[Rule], paths: list[_Path], trigger: Trigger) -> list[_Path]:
        """The paths through one group of events, by the model's evaluation method."""
        if not self._serial:
            return [end for path in paths for end, _ in self._batch(events, [], path, trigger)]
        for rule in events:
            after: list[_Path] = []
            for path in paths:
                for outcome, then in self._cases(rule, path.facts, trigger):
                    here = _Path(then, path.timers)
                    after.append(self._act(rule, here, trigger) if outcome == "true" else here)
            paths = self._merged(after)
        return paths

    def _merged(self, paths: list[_Path]) -> list[_Path]:
        kept: list[_Path] = []
        for path in paths:
            if path not in kept:
                kept.append(path)
        if len(kept) <= (1 if self._coarse else _MAX_PATHS):
            return kept
        self._reach.exact = False
        return [reduce(_join_paths, kept)]

    def _finish(self, state: str, path: _Path, rule: Rule | None, trigger: Trigger) -> None:
        if rule is None:
            self._add(state, _consume(path))
            return
        path = self._act(rule, path, trigger)
        for left in self._group(self._groups[state, "onExit", False], [path], trigger):
            self._leave(rule, left)
            if rule.next_state not in self._known:
                continue
            self._reach.states.add(rule.next_state)
            for entered in self._group(self._groups[rule.next_state, "onEnter", False], [left], trigger):
                self._add(rule.next_state, _consume(entered))

    def _leave(self, rule: Rule, path: _Path) -> None:
        for name, states in _consume(path).timers.items():
            if states & (RUNNING | PENDING):
                self._reach.leaving.add((rule.path, name))

    def _act(self, rule: Rule, path: _Path, trigger: Trigger) -> _Path:
        for step in rule.steps:
            for text in step.texts:
                if text.tree is not None:
                    self._note_reads(rule, step.path, text.tree, path.facts)
            path = self._step(step, path, trigger)
        return path

    def _step(self, step: Step, path: _Path, trigger: Trigger) -> _Path:
        noted = self._reach.found.setdefault(step.path, set())
        if step.kind == "setVariable":
            return self._set_variable(step, path, trigger, noted)
        if step.kind not in ("setTimer", "resetTimer", "clearTimer"):
            return path
        timer = step.name("timerName")
        before = path.timers.get(timer, ABSENT)
        noted.update(before)
        if self._serial and trigger.kind == "Timer" and trigger.name == timer and "pending" in before:
            self._reach.overtaken.add(step.path)
        if step.kind == "clearTimer":
            return _timer_set(path, timer, ABSENT)
        if step.kind == "resetTimer":
            return _timer_set(path, timer, (RUNNING if before != ABSENT else ABSENT) | (before & ABSENT))
        duration = step.tree("durationExpression")
        started = _timer_set(path, timer, RUNNING)
        seconds = value(duration, path.facts, trigger) if duration is not None else iv.of(1)
        legal = Possible(number=iv.Interval(1, MAX_TIMER_S))
        return started if iv.covers(legal, seconds) else _join_paths(path, started)

    def _set_variable(self, step: Step, path: _Path, trigger: Trigger, noted: set[str]) -> _Path:
        tree = step.tree("value")
        if tree is None:
            return path
        found = value(tree, path.facts, trigger)
        fails = found.undefined or found.null or found.structure
        if fails:
            noted.add("undefined")
        if found.is_value:
            noted.add("value")
        reference = ex.Reference("variable", step.name("variableName"))
        new = iv.without_undefined(found)
        if fails:
            new = iv.join(new, known(reference, path.facts))
        return _Path({**path.facts, reference: new}, path.timers)

    # -- configurations

    def _add(self, state: str, path: _Path) -> None:
        configuration = Configuration(state, self._variables(path), _timers(path))
        listed = self._known[state]
        if any(_covers(each, configuration) for each in listed):
            return
        if len(listed) >= (1 if self._coarse else _MAX_PER_STATE):
            self._reach.exact = False
            for each in listed:
                configuration = self._join(each, configuration)
            listed.clear()
        listed[:] = [each for each in listed if not _covers(configuration, each)]
        listed.append(configuration)
        self._waiting.append(configuration)

    def _variables(self, path: _Path) -> tuple[tuple[str, Possible], ...]:
        out = []
        for fact, found in path.facts.items():
            if not isinstance(fact, ex.Reference) or fact.root != "variable" or found == iv.UNDEFINED:
                continue
            taken = self._taken.setdefault(fact.name, set())
            taken.add(found)
            out.append((fact.name, iv.widen(found, self._thresholds) if len(taken) > _WIDEN_AFTER else found))
        return tuple(sorted(out, key=lambda each: each[0]))

    def _join(self, left: Configuration, right: Configuration) -> Configuration:
        a, b = dict(left.variables), dict(right.variables)
        variables = tuple(
            (name, iv.widen(iv.join(a.get(name, iv.UNDEFINED), b.get(name, iv.UNDEFINED)), self._thresholds))
            for name in sorted(a.keys() | b.keys())
        )
        timers = _join_timers(dict(left.timers), dict(right.timers))
        return Configuration(left.state, variables, tuple(sorted(timers.items())))


def _timers(path: _Path) -> tuple[tuple[str, frozenset[TimerState]], ...]:
    return tuple(sorted((name, states) for name, states in path.timers.items() if states != ABSENT))


def _timer_set(path: _Path, timer: str, states: frozenset[TimerState]) -> _Path:
    """A timer set, reset or cleared: an expiry that nobody asked for is dropped."""
    facts = {**path.facts, timeout_of(timer): iv.FALSE, checked_of(timer): iv.FALSE}
    return _Path(facts, {**path.timers, timer: states})


def _consume(path: _Path) -> _Path:
    """The end of a pass: an expiry that some condition has asked for is spent."""
    timers: Timers = {}
    for name, states in path.timers.items():
        expired = path.facts.get(timeout_of(name), iv.ANY_BOOLEAN)
        checked = path.facts.get(checked_of(name), iv.FALSE)
        after: set[TimerState] = set(states - PENDING) if expired.false else set()
        if "pending" in states and expired.true:
            if checked.true:
                after.add("spent")
            if checked.false:
                after.add("pending")
        timers[name] = frozenset(after) or states
    return _Path(path.facts, timers)


def _join_paths(left: _Path, right: _Path) -> _Path:
    return _Path(join_facts(left.facts, right.facts), _join_timers(left.timers, right.timers))


def _join_ways(left: _Way, right: _Way) -> _Way:
    """Both ways as one: a rule that fired in only one of them may have fired."""
    sure = {rule.path for rule, surely in left[1] if surely} & {rule.path for rule, surely in right[1] if surely}
    fired = {rule.path: rule for rule, _ in (*left[1], *right[1])}
    in_order = sorted(fired.values(), key=lambda rule: int(rule.path.rsplit("[", 1)[1][:-1]))
    return join_facts(left[0], right[0]), tuple((rule, rule.path in sure) for rule in in_order)


def _join_timers(left: Timers, right: Timers) -> Timers:
    return {name: left.get(name, ABSENT) | right.get(name, ABSENT) for name in left.keys() | right.keys()}


def _covers(outer: Configuration, inner: Configuration) -> bool:
    a, b = dict(outer.variables), dict(inner.variables)
    p, q = dict(outer.timers), dict(inner.timers)
    return all(iv.covers(a.get(name, iv.UNDEFINED), b.get(name, iv.UNDEFINED)) for name in a.keys() | b.keys()) and all(
        p.get(name, ABSENT) >= q.get(name, ABSENT) for name in p.keys() | q.keys()
    )


def _thresholds(survey: Survey) -> list[float]:
    """The numbers that the definition names; widening stops at them."""
    found = {0.0}
    for _, _, tree in survey.trees():
        for node in ex.walk(tree):
            if (
                isinstance(node, ex.Literal)
                and isinstance(node.value, int | float)
                and not isinstance(node.value, bool)
            ):
                found |= {float(node.value), -float(node.value)}
    return sorted(found)
