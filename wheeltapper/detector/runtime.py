"""
A shard: detectors and alarms by model and key, their timers, and nothing else.

The server, the gateway, the back-test and ``simulate`` all host it. It is pure: time comes in as ``now`` (seconds since the
epoch, fractional), actions go out as data, and the host decides what is durable before it acts. One thread at a time.
"""

import math
import re
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeAlias

from wheeltapper.detector.action import Action, Message, Outcome, Trigger
from wheeltapper.detector.alarm import Alarm
from wheeltapper.detector.engine import Engine
from wheeltapper.detector.expression import Literal, Unary, parse
from wheeltapper.detector.instance import Detector
from wheeltapper.detector.interpreter import Pass
from wheeltapper.detector.model import AlarmModel, read_model
from wheeltapper.detector.plan import AlarmPlan, Declared, Plan, key_text, make_alarm_plan, make_plan
from wheeltapper.detector.plan_actions import MAX_TIMER_S
from wheeltapper.detector.settings import DEFAULTS, EngineSettings
from wheeltapper.detector.state import AlarmState, AnyState, DetectorState, decode_state, encode_state
from wheeltapper.detector.trace import Recorder
from wheeltapper.detector.values import UNDEFINED, Operand, follow, negate
from wheeltapper.errors import DefinitionError

__all__ = ["Action", "Message", "Outcome", "Shard", "Trigger"]

Instance: TypeAlias = Detector | Alarm

_INTEGER = re.compile("-?[0-9]{1,1024}")


class _Model:
    """A loaded model and its detectors or alarms."""

    def __init__(self, plan: Plan | AlarmPlan, settings: EngineSettings, interpreted: bool) -> None:
        self.plan = plan
        self.handle = plan.handle
        self.settings = settings
        self.engine = Engine(plan, settings, interpreted=interpreted) if isinstance(plan, Plan) else None
        self.instances: dict[str, Any] = {}
        self._alarm_handlers = (*(_alarm_message for _ in plan.inputs), _alarm_timer)

    def create(self, key: str, now: float) -> Instance:
        if self.engine is not None:
            return self.engine.create(key, now)
        assert isinstance(self.plan, AlarmPlan)  # noqa: S101 - for the type checker: without an engine it is an alarm
        alarm = Alarm(self.plan, self.settings, key, now)
        alarm.on = self._alarm_handlers
        return alarm


def _alarm_message(alarm: Alarm, payload: object, now: float, message: Message) -> Outcome | None:
    return alarm.receive(message, now)


def _alarm_timer(alarm: Alarm, timer: str, now: float) -> Outcome | None:
    return alarm.wake_up(now)


class _Route:
    """From an input to a model: where the key is, which handler takes the message, and which model is next."""

    __slots__ = ("handle", "index", "instances", "member", "model", "next", "steps")

    def __init__(self, model: _Model, index: int, following: "_Route | None") -> None:
        self.model = model
        self.next = following
        self.handle = model.handle
        self.index = index
        self.instances: dict[str, Any] = model.instances
        self.steps = model.plan.key
        # The usual key is one member of the payload.
        self.member = self.steps[0] if self.steps is not None and len(self.steps) == 1 else None

    def key_of(self, payload: dict[str, Any]) -> str | None:
        """The key value of a message; None where it has none, and is not for this model."""
        return "" if self.steps is None else key_text(follow(payload, self.steps))


class Shard:
    """
    Detectors of many models.

    Every ``model`` that a method takes or gives is a handle: see ``handle.handle_of``.

    Args:
        settings: how to decide where AWS does not say.
        track: keep a list of the detectors that changed, for ``take_touched``.
        interpreted: run the reference interpreter instead of compiled models.
    """

    def __init__(self, settings: EngineSettings = DEFAULTS, *, track: bool = False, interpreted: bool = False) -> None:
        self._settings = settings
        self._interpreted = interpreted
        self._models: dict[str, _Model] = {}
        self._routes: dict[str, _Route] = {}
        self._heap: list[tuple[float, int, Any]] = []
        # When the first entry of the heap is due.
        self._wake = math.inf
        self._order = count()
        self._touched: dict[tuple[str, str], None] | None = {} if track else None
        self.without_key = 0
        """Messages that were for no detector of a model that reads their input, for want of a valid key."""

    def load(
        self, body: dict[str, Any] | bytes, version: str = "1", *, inputs: Declared | None = None
    ) -> Plan | AlarmPlan:
        """
        Make a model active; the detectors of an earlier version of it are gone.

        Args:
            body: a CreateDetectorModel or CreateAlarmModel body.
            version: its version.
            inputs: input → declared attribute paths; where given, every input that the model reads must be there.

        Returns:
            The plan: the model with its expressions parsed and its names resolved.

        Raises:
            DefinitionError: the model is not valid; ``path`` says where. The earlier version then stays.
        """
        model = read_model(body)
        make: Any = make_alarm_plan if isinstance(model, AlarmModel) else make_plan
        plan: Plan | AlarmPlan = make(model, version, settings=self._settings, inputs=inputs)
        loaded = _Model(plan, self._settings, self._interpreted)
        if loaded.handle in self._models:
            self._forget(self._models[loaded.handle])
        self._models[loaded.handle] = loaded
        self._route()
        return plan

    def unload(self, model: str) -> None:
        """Forget a model and its detectors; harmless when it is not there."""
        loaded = self._models.pop(model, None)
        if loaded is not None:
            self._forget(loaded)
            self._route()

    def plan(self, model: str) -> Plan | AlarmPlan:
        """
        The plan of a loaded model.

        Raises:
            DefinitionError: no such model.
        """
        return self._loaded(model).plan

    def routing(self, input_name: str) -> list[str]:
        """The models that reference an input, in the order in which they were loaded."""
        handles, route = [], self._routes.get(input_name)
        while route is not None:
            handles.append(route.handle)
            route = route.next
        return handles

    def put(self, message: Message, now: float, trace: bool = False) -> Sequence[Outcome]:
        """Run the timers due at or before ``now``, then give the message to every detector that it concerns."""
        outcomes: list[Outcome] | None = None
        if self._wake <= now:
            outcomes = self.advance(now, trace=trace)
        try:
            route: _Route | None = self._routes[message.input_name]
        except KeyError:
            return outcomes or ()
        payload = message.payload
        while route is not None:
            try:
                # The usual message: its key is one member of it, and the detector exists.
                instance = route.instances[payload[route.member]]  # type: ignore[index]
            except (KeyError, TypeError):
                instance = None
            if instance is None or trace:
                outcomes = self._put_slowly(route, message, now, trace, outcomes)
            else:
                if self._touched is not None:
                    self._touched[(route.handle, instance.key)] = None
                result = instance.on[route.index](instance, payload, now, message)
                if result is not None:
                    outcomes = self._add(outcomes, self._finish(route.model, instance, result))
            route = route.next
        return outcomes or ()

    def next_timer(self) -> float | None:
        """When ``advance`` should next be called, seconds since the epoch; may be early, never late."""
        return self._heap[0][0] if self._heap else None

    def advance(self, now: float, *, late: bool = False, trace: bool = False) -> list[Outcome]:
        """
        Run every timer due at or before ``now``, in order of expiry, then of name.

        Each runs at its own due time, and what it sets may fall due in turn. With ``late`` each runs at ``now`` instead,
        once: what a host does that was down for a while.
        """
        outcomes: list[Outcome] = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            due, _, instance = heappop(heap)
            if instance.wake == due:
                instance.wake = math.inf
                self._expire(instance, due, now if late else due, trace, outcomes)
        self._wake = heap[0][0] if heap else math.inf
        return outcomes

    def keys(self, model: str, state: str | None = None) -> list[str]:
        """Keys of a model's detectors, or of those in one state; a model without a key has the one key ``""``."""
        loaded = self._models.get(model)
        if loaded is None or state is None or loaded.engine is None:
            return [] if loaded is None else list(loaded.instances)
        if all(state != each.name for each in loaded.engine.plan.states):
            return []
        place = loaded.engine.plan.state_index(state)
        return [key for key, detector in loaded.instances.items() if detector.s == place]

    def detectors(self, model: str) -> Iterator[AnyState]:
        """The states of a model's detectors or alarms."""
        loaded = self._models.get(model)
        for instance in [] if loaded is None else list(loaded.instances.values()):
            yield instance.export()

    def export(self, model: str, key: str) -> AnyState | None:
        """One detector's or alarm's state, None when there is none."""
        loaded = self._models.get(model)
        instance = None if loaded is None else loaded.instances.get(key)
        return None if instance is None else instance.export()

    def dump(self, model: str, key: str) -> bytes | None:
        """``export`` as one line of JSON."""
        state = self.export(model, key)
        return None if state is None else encode_state(state)

    def insert(self, state: AnyState | bytes) -> None:
        """
        Put a detector's state (or its JSON) in place of what is there.

        Raises:
            DefinitionError: its model is not loaded, or has no such state; nothing has changed then.
        """
        if isinstance(state, bytes):
            state = decode_state(state)
        loaded = self._loaded(state.handle)
        instance = loaded.create(state.key, state.created)
        if isinstance(instance, Detector) and isinstance(state, DetectorState):
            instance.adopt(state)
            instance.on = loaded.engine.handlers[instance.s] if loaded.engine else None
        elif isinstance(instance, Alarm) and isinstance(state, AlarmState):
            instance.adopt(state)
        else:
            raise DefinitionError(
                f"{state.model}: the state of a detector does not fit an alarm, nor the other way round"
            )
        self._replace(loaded, instance)

    def update_detector(
        self, model: str, key: str, state: str, variables: dict[str, str], timers: dict[str, int], now: float
    ) -> None:
        """
        BatchUpdateDetector: replace state, variables and timers, keep inputs; run nothing.

        Args:
            model: a detector model.
            key: of the detector; it is created where there is none.
            state: name of the state to be in.
            variables: name → expression text, such as ``22.5`` or ``"text"``.
            timers: name → seconds from now.
            now: seconds since the epoch.

        Raises:
            DefinitionError: no such model or state, or a value that is not one; nothing has changed then.
        """
        loaded = self._loaded(model)
        if loaded.engine is None:
            raise DefinitionError(f"{loaded.plan.name!r} is an alarm model; its alarms are operated, not updated")
        before = loaded.instances.get(key)
        detector = loaded.engine.create(key, now)
        if before is not None:
            detector.created, detector.sequence = before.created, before.sequence
            for slot in detector.input_slots.values():
                setattr(detector, slot, getattr(before, slot))
        detector.s = loaded.engine.plan.state_index(state)
        detector.on = loaded.engine.handlers[detector.s]
        for name, text in variables.items():
            detector.set_variable(name, value_of(text, f"variable {name!r}"))
        start = float(now // 1) if self._settings.whole_second_timers else now
        for name, seconds in timers.items():
            if not 1 <= seconds <= MAX_TIMER_S:
                raise DefinitionError(f"timer {name!r}: must be from 1 to {MAX_TIMER_S} s, not {seconds}")
            detector.set_timer(name, start + seconds, seconds)
        self._replace(loaded, detector)

    def delete_detector(self, model: str, key: str) -> bool:
        """Forget one detector or alarm; False when there is none."""
        loaded = self._models.get(model)
        instance = None if loaded is None else loaded.instances.pop(key, None)
        if instance is None:
            return False
        instance.wake = -math.inf
        self._touch(model, key)
        return True

    def operate_alarm(
        self, model: str, key: str, operation: str, now: float, *, note: str = "", snooze_s: int = 0
    ) -> Outcome:
        """
        Acknowledge, disable, enable, reset or snooze one alarm (lower-case words).

        Raises:
            DefinitionError: no such alarm, or its state does not allow the operation.
        """
        loaded = self._loaded(model)
        alarm = loaded.instances.get(key)
        if not isinstance(alarm, Alarm):
            raise DefinitionError(f"alarm model {loaded.plan.name!r} has no alarm {key!r}")
        outcome = alarm.operate(operation, now, note, snooze_s)
        self._touch(model, key)
        self._schedule(alarm)
        return outcome

    def take_touched(self) -> list[tuple[str, str]]:
        """The (model, key) pairs that changed since the last call, deleted ones included; needs ``track``."""
        touched = list(self._touched or ())
        if self._touched:
            self._touched.clear()
        return touched

    def snapshot(self) -> bytes:
        """Every detector and alarm as JSON Lines; the models are not in it."""
        states = (instance.export() for model in self._models.values() for instance in model.instances.values())
        return b"".join(encode_state(state) + b"\n" for state in states)

    def restore(self, snapshot: bytes) -> None:
        """
        Put back what ``snapshot`` gave.

        Raises:
            DefinitionError: a line is not a state, or its model is not loaded.
        """
        for line in snapshot.splitlines():
            if line:
                self.insert(line)

    def _loaded(self, model: str) -> _Model:
        loaded = self._models.get(model)
        if loaded is None:
            raise DefinitionError(f"model {model!r} is not loaded")
        return loaded

    def _route(self) -> None:
        self._routes = {}
        for model in reversed(self._models.values()):
            for index, given in enumerate(model.plan.inputs):
                self._routes[given.name] = _Route(model, index, self._routes.get(given.name))

    def _forget(self, model: _Model) -> None:
        for instance in model.instances.values():
            instance.wake = -math.inf

    def _replace(self, model: _Model, instance: Instance) -> None:
        before = model.instances.get(instance.key)
        if before is not None:
            before.wake = -math.inf
        model.instances[instance.key] = instance
        self._touch(model.handle, instance.key)
        self._schedule(instance)

    def _touch(self, model: str, key: str) -> None:
        if self._touched is not None:
            self._touched[(model, key)] = None

    def _put_slowly(
        self, route: _Route, message: Message, now: float, trace: bool, outcomes: list[Outcome] | None
    ) -> list[Outcome] | None:
        """A message in full: keys of every kind, creation, traces, tracking."""
        key = route.key_of(message.payload)
        if key is None:
            self.without_key += 1
            return outcomes
        model = route.model
        instance = route.instances.get(key)
        self._touch(model.handle, key)
        if instance is None:
            instance = route.instances[key] = model.create(key, now)
            outcomes = self._add(outcomes, self._created(model, instance, message, now, trace))
        if trace and model.engine is not None:
            return self._add(outcomes, self._traced(model.engine, instance, message, now))
        result = instance.on[route.index](instance, message.payload, now, message)
        return outcomes if result is None else self._add(outcomes, self._finish(model, instance, result))

    def _created(self, model: _Model, instance: Any, message: Message, now: float, trace: bool) -> Outcome | None:
        if model.engine is None:
            return _alarm_created(instance, message, now)
        recorder = Recorder(instance, message) if trace else None
        run = model.engine.enter(instance, message, now, recorder)
        self._schedule(instance)
        told = None if recorder is None else recorder.finish(run.time_ms, run.trigger, run.failures)
        return model.engine.outcome(run, created=True, trace=told)

    def _traced(self, engine: Engine, detector: Any, trigger: Message | str, now: float) -> Outcome | None:
        recorder = Recorder(detector, None if isinstance(trigger, str) else trigger)
        run = engine.run(detector, trigger, now, recorder)
        self._schedule(detector)
        return engine.outcome(run, trace=recorder.finish(run.time_ms, run.trigger, run.failures))

    def _expire(self, instance: Any, due: float, now: float, trace: bool, outcomes: list[Outcome]) -> None:
        """Run the first timer of one detector that ended; another that ended with it comes next."""
        name = instance.due_timer(due)
        if name is not None:
            model = self._models[instance.plan.handle]
            self._touch(model.handle, instance.key)
            if trace and model.engine is not None:
                self._add(outcomes, self._traced(model.engine, instance, name, now))
            else:
                result = instance.on[-1](instance, name, now)
                if result is not None:
                    self._add(outcomes, self._finish(model, instance, result))
        self._schedule(instance)

    def _finish(self, model: _Model, instance: Any, result: Pass | Outcome) -> Outcome | None:
        self._schedule(instance)
        if isinstance(result, Outcome) or model.engine is None:
            return result  # type: ignore[return-value]  # an alarm gives outcomes, a detector passes
        return model.engine.outcome(result)

    def _add(self, outcomes: list[Outcome] | None, outcome: Outcome | None) -> list[Outcome] | None:
        if outcome is None:
            return outcomes
        if outcomes is None:
            return [outcome]
        outcomes.append(outcome)
        return outcomes

    def _schedule(self, instance: Any) -> None:
        """See to it that the heap wakes the detector no later than its first timer."""
        due = instance.next_due()
        if due < instance.wake:
            instance.wake = due
            heappush(self._heap, (due, next(self._order), instance))
            self._wake = min(self._wake, due)


def _alarm_created(alarm: Alarm, message: Message, now: float) -> Outcome:
    time_ms = int(now * 1000) if message.time_ms is None else message.time_ms
    plan = alarm.plan
    return Outcome(
        model=plan.name,
        version=plan.version,
        key=alarm.key,
        time_ms=time_ms,
        created=True,
        from_state="",
        state=alarm.state,
        kind="alarm",
    )


def value_of(text: str, what: str) -> Operand:
    """
    A value as the wire of detectors writes it: an expression that is a literal.

    Raises:
        DefinitionError: it is none.

    >>> value_of("22.5", "x"), value_of('"01"', "x"), value_of("-3", "x"), value_of("false", "x")
    (22.5, '01', -3, False)
    """
    if _INTEGER.fullmatch(text):  # also one that a payload may hold and no expression can write
        return int(text)
    match parse(text, path=what):
        case Literal(value):
            return value
        case Unary("-", Literal(value)) if negate(value) is not UNDEFINED:
            return negate(value)
    raise DefinitionError(f'{text[:60]!r} is not a number, true, false or a string in quotes such as "text"', path=what)
