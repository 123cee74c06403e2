"""
The pump model of the benchmark, written for two state machine libraries as their documentation recommends.

``Pump`` is the model object: conditions, actions and ``on_enter``/``on_exit`` callbacks found by name; in ``motor_on`` an
internal transition that comes last runs the events where no transition is taken. What the libraries do not have, ``Fleet``
does as an application would: inputs, pumps by key made by their first message, timers on a heap. ``detector.py`` checks
that both decide as the engine does before it times them.
"""

import math
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any

from statemachine import State, StateMachine
from transitions import Machine

from wheeltapper.detector.runtime import Message

Trigger = Callable[[], object]


class Pump:
    """What one pump remembers, and what the states of the model ask and do; shared by both libraries."""

    def __init__(self, schedule: Callable[["Pump", float], None]) -> None:
        self.now = 0.0
        self.payload: dict[str, Any] = {}
        self.prediction: Any = None
        self.service: Any = None
        self.operation_minutes = 0
        self.high_temperature_timer_state = 0
        self.operation_due: float | None = None
        self.high_due: float | None = None
        self.operation_expired = self.high_expired = False
        self.sent = 0
        self._schedule = schedule

    def running(self) -> bool:
        return self.payload.get("TT01", 0) > 10

    def stopped(self) -> bool:
        return self.payload.get("TT01", 11) <= 10

    def runtime_exceeded(self) -> bool:
        return self.operation_minutes > 6000

    def failure_predicted(self) -> bool:
        return self.prediction == 1

    def too_hot_for_long(self) -> bool:
        return self.high_expired

    def serviced(self) -> bool:
        return self.service == 1

    def events(self) -> None:
        """The events of motor_on."""
        flow = self.payload.get("FT01")
        if self.operation_expired:
            self.operation_minutes += 1
            self.start_operation()
        if flow is None:
            return
        if flow <= 200:
            self.high_due, self.high_expired = None, False
            self.high_temperature_timer_state = 0
        elif self.high_temperature_timer_state == 0:
            if self.high_due is not None:
                self.start_high()
            self.high_temperature_timer_state = 1

    def start_operation(self) -> None:
        self.operation_due, self.operation_expired = self.now // 1 + 60, False
        self._schedule(self, self.operation_due)

    def start_high(self) -> None:
        self.high_due, self.high_expired = self.now // 1 + 300, False
        self._schedule(self, self.high_due)

    def count_run(self) -> None:
        self.operation_minutes += 1

    def clear_minutes(self) -> None:
        self.operation_minutes = 0

    def on_enter_motor_on(self) -> None:
        self.start_high()
        self.high_temperature_timer_state = 1

    def on_exit_motor_on(self) -> None:
        self.operation_due, self.operation_expired = None, False

    def on_enter_scheduled_service(self) -> None:
        self.sent += 1

    def on_enter_likely_failure_24hrs(self) -> None:
        self.sent += 1

    def on_enter_high_temperature(self) -> None:
        self.sent += 1

    def expire(self, due: float) -> bool:
        """Mark the timer that ends then; False where it was started anew or cleared since."""
        if self.operation_due == due and not self.operation_expired:
            self.operation_expired = True
        elif self.high_due == due and not self.high_expired:
            self.high_expired = True
        else:
            return False
        return True


class Fleet:
    """
    Pumps by key, their inputs and timers.

    Args:
        start: makes the state machine of a new pump; gives what triggers it.
    """

    def __init__(self, start: Callable[[Pump], Trigger]) -> None:
        self.pumps: dict[str, tuple[Pump, Trigger]] = {}
        self._start = start
        self._timers: list[tuple[float, int, Pump, Trigger]] = []
        self._wake = math.inf
        self._order = count()
        self._triggers: dict[Pump, Trigger] = {}

    def put(self, message: Message, now: float) -> None:
        """Run the timers that are due, then give the message to its pump."""
        if self._wake <= now:
            self.advance(now)
        payload = message.payload
        key = payload["motorID"]
        found = self.pumps.get(key)
        if found is None:
            found = self._create(key)
        pump, trigger = found
        pump.now = now
        if message.input_name == "IoTImlPumpData":
            pump.payload = payload
        elif message.input_name == "IoTImlPumpInference":
            pump.prediction = payload.get("prediction")
        else:
            pump.service = payload.get("service_complete")
        trigger()

    def advance(self, now: float) -> None:
        """Run every timer that ends at or before ``now``."""
        timers = self._timers
        while timers and timers[0][0] <= now:
            due, _, pump, trigger = heappop(timers)
            if pump.expire(due):
                pump.now = due
                trigger()
        self._wake = timers[0][0] if timers else math.inf

    def _create(self, key: str) -> tuple[Pump, Trigger]:
        pump = Pump(self._schedule)
        trigger = self._triggers[pump] = self._start(pump)
        found = self.pumps[key] = (pump, trigger)
        return found

    def _schedule(self, pump: Pump, due: float) -> None:
        heappush(self._timers, (due, next(self._order), pump, self._triggers[pump]))
        self._wake = self._timers[0][0]


ALARMS = ("scheduled_service", "likely_failure_24hrs", "high_temperature")


def transitions_fleet() -> Fleet:
    """One machine of ``transitions`` for all pumps."""
    off = {"trigger": "message", "source": "motor_off"}
    on = {"trigger": "message", "source": "motor_on", "before": "events"}
    alarm = {"trigger": "message", "source": list(ALARMS)}
    table: list[dict[str, Any]] = [
        {"trigger": "message", "source": "initialize", "dest": "motor_off", "before": "clear_minutes"},
        {**off, "dest": "motor_on", "conditions": "running", "before": "start_operation"},
        {**on, "dest": "motor_off", "conditions": "stopped", "before": ["events", "count_run"]},
        {**on, "dest": "scheduled_service", "conditions": "runtime_exceeded"},
        {**on, "dest": "likely_failure_24hrs", "conditions": "failure_predicted"},
        {**on, "dest": "high_temperature", "conditions": "too_hot_for_long"},
        {**on, "dest": None},
        {**alarm, "dest": "motor_off", "conditions": "serviced", "before": "clear_minutes"},
    ]
    machine = Machine(
        model=None,
        states=["initialize", "motor_off", "motor_on", *ALARMS],
        initial="initialize",
        transitions=table,
        auto_transitions=False,
    )

    def start(pump: Pump) -> Trigger:
        machine.add_model(pump)
        trigger: Trigger = pump.message  # type: ignore[attr-defined]  # bound by add_model
        return trigger

    return Fleet(start)


class PumpMachine(StateMachine):
    """The machine of ``python-statemachine``, one for each pump."""

    allow_event_without_transition = True

    initialize = State(initial=True)
    motor_off = State()
    motor_on = State()
    scheduled_service = State()
    likely_failure_24hrs = State()
    high_temperature = State()

    message = (
        initialize.to(motor_off, before="clear_minutes")
        | motor_off.to(motor_on, cond="running", before="start_operation")
        | motor_on.to(motor_off, cond="stopped", before=["events", "count_run"])
        | motor_on.to(scheduled_service, cond="runtime_exceeded", before="events")
        | motor_on.to(likely_failure_24hrs, cond="failure_predicted", before="events")
        | motor_on.to(high_temperature, cond="too_hot_for_long", before="events")
        | motor_on.to.itself(internal=True, before="events")
        | scheduled_service.to(motor_off, cond="serviced", before="clear_minutes")
        | likely_failure_24hrs.to(motor_off, cond="serviced", before="clear_minutes")
        | high_temperature.to(motor_off, cond="serviced", before="clear_minutes")
    )


def statemachine_fleet() -> Fleet:
    """A machine of ``python-statemachine`` for each pump."""
    return Fleet(lambda pump: PumpMachine(pump).message)
