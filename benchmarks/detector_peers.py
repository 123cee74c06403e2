"""
The pump model of the benchmark, written for two state machine libraries.

Their machines do the same job on the same messages: the events of ``motor_on``, its timers as due times, its transitions.
They have no inputs, keys or timers of their own, so the host keeps those, as it would have to.
"""

from typing import Any

from statemachine import State, StateMachine
from transitions import Machine


class Pump:
    """What a pump remembers, and the conditions and actions of the model on it; shared by both libraries."""

    def __init__(self) -> None:
        self.payload: dict[str, Any] = {}
        self.now = 0.0
        self.prediction = self.service = None
        self.operation_minutes = 0
        self.high_temperature_timer_state = 0
        self.operation_due: float | None = None
        self.high_due: float | None = None
        self.sent = 0

    def running(self) -> bool:
        return self.payload.get("TT01", 0) > 10

    def stopped(self) -> bool:
        return self.payload.get("TT01", 11) <= 10

    def runtime_exceeded(self) -> bool:
        return self.operation_minutes > 6000

    def failure_predicted(self) -> bool:
        return self.prediction == 1

    def too_hot_for_long(self) -> bool:
        return self.high_due is not None and self.high_due <= self.now

    def serviced(self) -> bool:
        return self.service == 1

    def start(self) -> None:
        self.operation_due = self.now + 60
        self.high_due = self.now + 300
        self.high_temperature_timer_state = 1

    def stop(self) -> None:
        self.operation_minutes += 1
        self.operation_due = None

    def clear(self) -> None:
        self.operation_minutes = 0

    def notify(self) -> None:
        self.sent += 1

    def events(self) -> None:
        expired = self.operation_due is not None and self.operation_due <= self.now
        normal = self.payload.get("FT01", 999) <= 200
        high = self.payload.get("FT01", 0) > 200 and self.high_temperature_timer_state == 0
        if expired:
            self.operation_minutes += 1
            self.operation_due = self.now + 60
        if normal:
            self.high_due = None
            self.high_temperature_timer_state = 0
        if high and self.high_due is not None:
            self.high_due = self.now + 300
            self.high_temperature_timer_state = 1


ALARMS = ("scheduled_service", "likely_failure_24hrs", "high_temperature")


def transitions_machine(models: list[Pump]) -> Machine:
    """One machine of ``transitions`` for all pumps."""
    on = {"trigger": "message", "source": "motor_on"}
    table: list[dict[str, Any]] = [
        {"trigger": "message", "source": "motor_off", "dest": "motor_on", "conditions": "running", "after": "start"},
        {**on, "dest": "motor_off", "prepare": "events", "conditions": "stopped", "before": "stop"},
        {**on, "dest": "scheduled_service", "conditions": "runtime_exceeded", "after": "notify"},
        {**on, "dest": "likely_failure_24hrs", "conditions": "failure_predicted", "after": "notify"},
        {**on, "dest": "high_temperature", "conditions": "too_hot_for_long", "after": "notify"},
    ]
    for alarm in ALARMS:
        table.append(
            {"trigger": "message", "source": alarm, "dest": "motor_off", "conditions": "serviced", "before": "clear"}
        )
    return Machine(
        model=models,
        states=["motor_off", "motor_on", *ALARMS],
        initial="motor_off",
        transitions=table,
        auto_transitions=False,
    )


class PumpMachine(StateMachine):
    """One machine of ``python-statemachine`` for one pump."""

    allow_event_without_transition = True

    motor_off = State(initial=True)
    motor_on = State()
    scheduled_service = State()
    likely_failure_24hrs = State()
    high_temperature = State()

    message = (
        motor_off.to(motor_on, cond="running", on="start")
        | motor_on.to(motor_off, cond="stopped", on="stop")
        | motor_on.to(scheduled_service, cond="runtime_exceeded", on="notify")
        | motor_on.to(likely_failure_24hrs, cond="failure_predicted", on="notify")
        | motor_on.to(high_temperature, cond="too_hot_for_long", on="notify")
        | scheduled_service.to(motor_off, cond="serviced", on="clear")
        | likely_failure_24hrs.to(motor_off, cond="serviced", on="clear")
        | high_temperature.to(motor_off, cond="serviced", on="clear")
        | motor_on.to.itself(internal=True, on="events")
    )
