"""
Would it have fired? A model run over history in event time, its timers included.

Detectors do not see one another, so each runs its timers when its own next message arrives, or when history ends: a fleet
whose machines report late, in blocks, is judged by the machines' own time. Within one detector time never goes back: a
message older than the last is judged at the last one's time, and counted as late.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from wheeltapper.detector.action import Message
from wheeltapper.detector.alarm import Alarm
from wheeltapper.detector.engine import Engine
from wheeltapper.detector.instance import RUNNING, Detector
from wheeltapper.detector.interpreter import Pass
from wheeltapper.detector.model import AlarmModel, read_model
from wheeltapper.detector.plan import EventPlan, Plan, key_text, make_alarm_plan, make_plan
from wheeltapper.detector.settings import DEFAULTS, EngineSettings
from wheeltapper.detector.values import follow


class Change(msgspec.Struct, frozen=True, rename="camel"):
    """A detector was created (``from_state`` is then empty) or left a state for another."""

    time_ms: int
    from_state: str
    state: str
    event: str


class Raised(msgspec.Struct, frozen=True, rename="camel"):
    """A pass that sent something: the state it was sent in, the events that sent, the kinds of action."""

    time_ms: int
    state: str
    events: tuple[str, ...]
    actions: tuple[str, ...]

    @property
    def name(self) -> str:
        """The alarm as people name it: its event and state."""
        return f"{', '.join(self.events)} in {self.state}"


class KeyHistory(msgspec.Struct):
    """What one detector did; ``seconds`` is how long it was in each state."""

    key: str
    changes: list[Change]
    alarms: list[Raised]
    seconds: dict[str, float]
    state: str


class Report(msgspec.Struct):
    """
    What a model did over a history.

    Attributes:
        messages: those of inputs that the model reads; ``other`` were of none.
        keyless: those without a usable key.
        late: those older than the last message of their detector.
        failures: actions that could not be evaluated, as ``place: what`` → times; at most 100 different ones.
    """

    model: str
    keys: dict[str, KeyHistory]
    messages: int = 0
    other: int = 0
    keyless: int = 0
    late: int = 0
    failures: dict[str, int] = {}

    def totals(self) -> tuple[int, int, dict[str, float]]:
        """Alarms, state changes and seconds in each state, over all keys."""
        seconds: Counter[str] = Counter()
        for each in self.keys.values():
            seconds.update(each.seconds)
        alarms = sum(len(each.alarms) for each in self.keys.values())
        changes = sum(sum(1 for change in each.changes if change.from_state) for each in self.keys.values())
        return alarms, changes, dict(seconds)


class Ledger:
    """Collects what passes did in 16 bytes each, so that a history of any length fits."""

    def __init__(self, model: str, initial: str) -> None:
        self.model = model
        self.messages = self.other = self.keyless = self.late = 0
        self.last_ms = 0
        self._initial = initial
        self._kinds: dict[tuple[str, str, str], int] = {}
        self._changes: dict[str, array[int]] = {}
        self._alarms: dict[str, array[int]] = {}
        self._failures: Counter[str] = Counter()
        self._alarm_kinds: dict[tuple[str, tuple[str, ...], tuple[str, ...]], int] = {}

    def created(self, key: str, time_ms: int) -> None:
        """A detector came to be."""
        self._changes[key] = array("q", (time_ms, self._kind("", self._initial, "")))

    def changed(self, key: str, time_ms: int, from_state: str, state: str, event: str) -> None:
        """A transition was taken."""
        self._changes[key].extend((time_ms, self._kind(from_state, state, event)))

    def sent(self, key: str, time_ms: int, actions: Sequence[Any]) -> None:
        """A pass had external actions; those of one state are one alarm."""
        by_state: dict[str, list[Any]] = {}
        for action in actions:
            by_state.setdefault(action.state, []).append(action)
        for state, group in by_state.items():
            events = tuple(dict.fromkeys(action.event for action in group))
            kind = (state, events, tuple(action.type for action in group))
            self._raise(key, time_ms, kind)

    def raised(self, key: str, time_ms: int, state: str, event: str) -> None:
        """An alarm of an alarm model became active."""
        self._raise(key, time_ms, (state, (event,), ()))

    def _raise(self, key: str, time_ms: int, kind: tuple[str, tuple[str, ...], tuple[str, ...]]) -> None:
        number = self._alarm_kinds.setdefault(kind, len(self._alarm_kinds))
        self._alarms.setdefault(key, array("q")).extend((time_ms, number))

    def failed(self, failures: Iterable[str]) -> None:
        """Actions could not be evaluated."""
        for failure in failures:
            if failure in self._failures or len(self._failures) < 100:
                self._failures[failure] += 1

    def _kind(self, from_state: str, state: str, event: str) -> int:
        return self._kinds.setdefault((from_state, state, event), len(self._kinds))

    def report(self) -> Report:
        """The history so far; states last until the last message of all."""
        kinds, alarm_kinds = list(self._kinds), list(self._alarm_kinds)
        keys = {}
        for key, entries in self._changes.items():
            changes = [Change(entries[place], *kinds[entries[place + 1]]) for place in range(0, len(entries), 2)]
            raised = self._alarms.get(key, array("q"))
            alarms = [Raised(raised[place], *alarm_kinds[raised[place + 1]]) for place in range(0, len(raised), 2)]
            keys[key] = KeyHistory(key, changes, alarms, _seconds(changes, self.last_ms), changes[-1].state)
        return Report(self.model, keys, self.messages, self.other, self.keyless, self.late, dict(self._failures))


def _seconds(changes: Sequence[Change], end_ms: int) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for change, until in zip(changes, [*(each.time_ms for each in changes[1:]), end_ms], strict=True):
        seconds[change.state] = seconds.get(change.state, 0.0) + max(until - change.time_ms, 0) / 1000
    return seconds


class Runner:
    """
    One detector model over history.

    Args:
        body: a CreateDetectorModel body.
        only: the one key of interest; None for all.
        settings: what the engine does where AWS is silent.

    Raises:
        DefinitionError: the model is not valid.
    """

    def __init__(
        self, body: Mapping[str, Any], *, only: str | None = None, settings: EngineSettings = DEFAULTS
    ) -> None:
        model = read_model(dict(body))
        assert not isinstance(model, AlarmModel)  # noqa: S101 see make_runner
        self.plan: Plan = make_plan(model, settings=settings)
        self.engine = Engine(self.plan, settings)
        self.only = only
        self.ledger = Ledger(self.plan.name, self.plan.states[self.plan.initial].name)
        self.detectors: dict[str, Detector] = {}
        slots = self.engine.detector_class.timer_slots
        self._timer_names = tuple(slots)
        self._timer_slots: Callable[[Any], tuple[Any, ...]] | None = (
            attrgetter(*(letter + slot for slot in slots.values() for letter in "tf")) if slots else None
        )
        self._indexes = {given.name: place for place, given in enumerate(self.plan.inputs)}

    def feed(self, messages: Iterable[Message]) -> None:
        """Messages in order, each with ``time_ms``."""
        for message in messages:
            index = self._indexes.get(message.input_name)
            time_ms = message.time_ms or 0
            ledger = self.ledger
            ledger.last_ms = max(ledger.last_ms, time_ms)
            if index is None:
                ledger.other += 1
                continue
            ledger.messages += 1
            key = "" if self.plan.key is None else key_text(follow(message.payload, self.plan.key))
            if key is None:
                ledger.keyless += 1
            elif self.only is None or key == self.only:
                self.deliver(key, index, message, time_ms / 1000)

    def deliver(self, key: str, index: int, message: Message, now: float) -> None:
        """One message to one detector, after the timers that are due."""
        detector = self.detectors.get(key)
        if detector is None:
            detector = self.create(key, message, now)
        elif now < detector.updated:
            self.ledger.late += 1
            now = detector.updated
        else:
            self.run_timers(detector, now)
        self.give(detector, index, message, now)

    def create(self, key: str, message: Message, now: float) -> Detector:
        """A new detector that has entered its initial state."""
        detector = self.detectors[key] = self.engine.create(key, now)
        detector.wake = float("-inf")  # its timers are looked at here, not by a heap
        run = self.engine.enter(detector, message, now)
        self.ledger.created(key, run.time_ms)
        self.note(key, run)
        return detector

    def give(self, detector: Detector, index: int, message: Message, now: float) -> None:
        """A pass for a message, now; the timers before it have run."""
        run = detector.on[index](detector, message.payload, now, message)
        detector.updated = now
        if run is not None:
            self.note(detector.key, run)

    def run_timers(self, detector: Detector, now: float) -> bool:
        """Run what is due at or before ``now``, each at its own time; whether anything was."""
        any_ended = False
        while ended := [(due, name) for name, due in self.running(detector) if due <= now]:
            any_ended = True
            due, name = min(ended)
            run = detector.on[-1](detector, name, due)
            detector.updated = due
            if run is not None:
                self.note(detector.key, run)
        return any_ended

    def running(self, detector: Detector) -> list[tuple[str, float]]:
        """The running timers with the times at which they end."""
        if self._timer_slots is None:
            return []
        found = self._timer_slots(detector)
        return [
            (name, found[2 * place]) for place, name in enumerate(self._timer_names) if found[2 * place + 1] == RUNNING
        ]

    def note(self, key: str, run: Pass) -> None:
        """Write down what a pass did."""
        event: EventPlan | None = run.event
        if event is not None:
            states = self.plan.states
            self.ledger.changed(
                key, run.time_ms, states[run.from_state].name, states[event.next_state].name, event.name
            )
        if run.actions:
            self.ledger.sent(key, run.time_ms, run.actions)
        if run.failures:
            self.ledger.failed(run.failures)

    def finish(self) -> Report:
        """Run the timers that end with the history, and give the report."""
        for detector in self.detectors.values():
            self.run_timers(detector, self.ledger.last_ms / 1000)
        return self.ledger.report()


class AlarmRunner:
    """One alarm model over history; see ``Runner``. Nobody acknowledges, enables or snoozes."""

    def __init__(
        self, body: Mapping[str, Any], *, only: str | None = None, settings: EngineSettings = DEFAULTS
    ) -> None:
        model = read_model(dict(body))
        assert isinstance(model, AlarmModel)  # noqa: S101 see make_runner
        self.plan = make_alarm_plan(model, settings=settings)
        self.only = only
        self.ledger = Ledger(self.plan.name, "DISABLED" if self.plan.disabled_on_initialization else "NORMAL")
        self._settings = settings
        self._alarms: dict[str, Alarm] = {}

    def feed(self, messages: Iterable[Message]) -> None:
        """Messages in order, each with ``time_ms``."""
        ledger = self.ledger
        read = {given.name for given in self.plan.inputs}
        for message in messages:
            time_ms = message.time_ms or 0
            ledger.last_ms = max(ledger.last_ms, time_ms)
            if message.input_name not in read:
                ledger.other += 1
                continue
            ledger.messages += 1
            key = "" if self.plan.key is None else key_text(follow(message.payload, self.plan.key))
            if key is None:
                ledger.keyless += 1
            elif self.only is None or key == self.only:
                self._deliver(key, message, time_ms / 1000)

    def _deliver(self, key: str, message: Message, now: float) -> None:
        alarm = self._alarms.get(key)
        if alarm is None:
            alarm = self._alarms[key] = Alarm(self.plan, self._settings, key, now)
            self.ledger.created(key, round(now * 1000))
        outcome = alarm.receive(message, now)
        if outcome is None:
            return
        if outcome.from_state != outcome.state:
            self.ledger.changed(key, outcome.time_ms, outcome.from_state, outcome.state, outcome.event)
            if outcome.state == "ACTIVE":
                self.ledger.raised(key, outcome.time_ms, "ACTIVE", self.plan.name)
        self.ledger.failed(outcome.failures)

    def finish(self) -> Report:
        """The report."""
        return self.ledger.report()


def make_runner(
    body: Mapping[str, Any],
    *,
    only: str | None = None,
    settings: EngineSettings = DEFAULTS,
    detector_runner: Callable[..., Runner] = Runner,
) -> Runner | AlarmRunner:
    """The runner for a Create body of either kind; ``detector_runner`` may be a faster one."""
    make: Any = AlarmRunner if body.get("alarmRule") is not None else detector_runner
    runner: Runner | AlarmRunner = make(body, only=only, settings=settings)
    return runner


# -- comparison


class Moved(msgspec.Struct, frozen=True, rename="camel"):
    """The same alarm, earlier or later."""

    old: Raised
    new: Raised


class Difference(msgspec.Struct, rename="camel"):
    """What a new version gains, loses and moves of one key; ``same`` counts what stays."""

    key: str
    gained: list[Raised]
    lost: list[Raised]
    moved: list[Moved]
    same: int


def compare(old: Report, new: Report, *, window_ms: int = 3_600_000) -> Iterator[Difference]:
    """
    The alarms of two versions over the same history, key by key.

    Args:
        old, new: reports of both.
        window_ms: alarms of one name at most this far apart are the same one, moved.
    """
    for key in sorted(old.keys.keys() | new.keys.keys()):
        before = old.keys[key].alarms if key in old.keys else []
        after = new.keys[key].alarms if key in new.keys else []
        difference = Difference(key, [], [], [], 0)
        for name in dict.fromkeys(each.name for each in (*before, *after)):
            _match(
                [each for each in before if each.name == name],
                [each for each in after if each.name == name],
                window_ms,
                difference,
            )
        if difference.gained or difference.lost or difference.moved or difference.same:
            yield difference


def _match(before: list[Raised], after: list[Raised], window_ms: int, difference: Difference) -> None:
    """Equal times first; then, in order of time, those close enough together."""
    common = Counter(each.time_ms for each in before) & Counter(each.time_ms for each in after)
    difference.same += common.total()
    olds, news = _without(before, common), _without(after, common)
    o = n = 0
    while o < len(olds) and n < len(news):
        apart = news[n].time_ms - olds[o].time_ms
        if abs(apart) <= window_ms:
            difference.moved.append(Moved(olds[o], news[n]))
            o, n = o + 1, n + 1
        elif apart > 0:
            difference.lost.append(olds[o])
            o += 1
        else:
            difference.gained.append(news[n])
            n += 1
    difference.lost += olds[o:]
    difference.gained += news[n:]


def _without(alarms: list[Raised], times: Counter[int]) -> list[Raised]:
    left = Counter(times)
    kept = []
    for each in alarms:
        if left[each.time_ms]:
            left[each.time_ms] -= 1
        else:
            kept.append(each)
    return kept
