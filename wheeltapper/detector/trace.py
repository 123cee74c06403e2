"""
Why: everything that one pass of a detector looked at, decided and did.

``step`` and ``Shard.put(…, trace=True)`` give a ``Trace``; ``summary`` renders it as AWS IoT Events logs it at DEBUG,
``render`` as a tree for a terminal.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from wheeltapper.detector.action import Message, Trigger
from wheeltapper.detector.expression import Expression, Literal, children, show
from wheeltapper.detector.instance import Detector
from wheeltapper.detector.plan import EventPlan
from wheeltapper.detector.plan_actions import (
    ActionPlan,
    ClearTimerPlan,
    ResetTimerPlan,
    SetTimerPlan,
    SetVariablePlan,
    trees_of,
)
from wheeltapper.detector.state import DetectorState, TimerState
from wheeltapper.detector.values import UNDEFINED, Operand


class Explained(Struct, frozen=True, omit_defaults=True):
    """
    An expression and its value at that moment.

    ``evaluated`` is False where a short circuit made it needless; ``value`` is None for null and for undefined, which
    ``undefined`` tells apart.
    """

    text: str
    value: Any = None
    undefined: bool = False
    evaluated: bool = True
    parts: "tuple[Explained, ...]" = ()


class ConditionTrace(Struct, frozen=True, omit_defaults=True):
    """``result`` is True, False, Undefined or Skipped; ``because`` is the transition that made it be skipped."""

    path: str
    event: str
    state: str
    life_cycle: str
    has_transition: bool
    text: str
    result: str
    because: str = ""
    explained: Explained | None = None


class ActionTrace(Struct, frozen=True, omit_defaults=True):
    """An action that ran: what it did, and the expressions that it evaluated."""

    path: str
    event: str
    state: str
    did: str
    explained: tuple[Explained, ...] = ()


class Trace(Struct, frozen=True, kw_only=True):
    """
    One pass.

    Attributes:
        steps: conditions and actions in the order in which they were evaluated and ran.
        inputs: every remembered input reference with its value, as text → value.
        message: the payload that triggered the pass, None on a timer.
    """

    model: str
    version: str
    key: str
    time_ms: int
    trigger: Trigger
    message: dict[str, Any] | None
    from_state: str
    state: str
    steps: tuple[ConditionTrace | ActionTrace, ...]
    variables_before: dict[str, Any]
    variables: dict[str, Any]
    timers_before: list[TimerState]
    timers: list[TimerState]
    inputs: dict[str, Any]
    failures: list[str]


class Recorder:
    """Listens to one pass (``interpreter.Notes``) and makes its trace."""

    def __init__(self, detector: Detector, message: Message | None) -> None:
        self._detector = detector
        self._message = message
        self._before: DetectorState = detector.export()
        self._values: dict[int, Operand] = {}
        self._steps: list[ConditionTrace | ActionTrace] = []

    def value(self, tree: Expression, value: Operand) -> None:
        self._values[id(tree)] = value

    def condition(self, event: EventPlan, result: Operand) -> None:
        said = "True" if result is True else "False" if result is False else "Undefined"
        explained = None if event.condition is None else self._explain(event.condition)
        self._steps.append(self._step(event, said, "", explained))
        self._values.clear()

    def skipped(self, event: EventPlan, because: EventPlan) -> None:
        self._steps.append(self._step(event, "Skipped", because.name, None))

    def action(self, action: ActionPlan, event: EventPlan) -> None:
        explained = tuple(self._explain(tree) for tree in _computed(action) if id(tree) in self._values)
        self._steps.append(ActionTrace(action.path, event.name, self._state_name(), self._did(action), explained))
        self._values.clear()

    def finish(self, time_ms: int, trigger: Trigger, failures: list[str]) -> Trace:
        before, after = self._before, self._detector.export()
        return Trace(
            model=after.model,
            version=after.version,
            key=after.key,
            time_ms=time_ms,
            trigger=trigger,
            message=None if self._message is None else self._message.payload,
            from_state=before.state,
            state=after.state,
            steps=tuple(self._steps),
            variables_before=before.variables,
            variables=after.variables,
            timers_before=before.timers,
            timers=after.timers,
            inputs=after.inputs,
            failures=failures,
        )

    def _state_name(self) -> str:
        return self._detector.plan.states[self._detector.s].name

    def _step(self, event: EventPlan, result: str, because: str, explained: Explained | None) -> ConditionTrace:
        life_cycle = event.path.split(".")[1]
        return ConditionTrace(
            path=event.path,
            event=event.name,
            state=self._state_name(),
            life_cycle=life_cycle[:1].upper() + life_cycle[1:],
            has_transition=event.next_state >= 0,
            text=event.text,
            result=result,
            because=because,
            explained=explained,
        )

    def _explain(self, tree: Expression) -> Explained:
        value = self._values.get(id(tree), UNDEFINED)
        return Explained(
            text=show(tree),
            value=None if value is UNDEFINED else value,
            undefined=value is UNDEFINED and id(tree) in self._values,
            evaluated=id(tree) in self._values,
            parts=tuple(self._explain(part) for part in children(tree) if not isinstance(part, Literal)),
        )

    def _did(self, action: ActionPlan) -> str:
        match action:
            case SetVariablePlan(_, name):
                value = self._detector.variable(name)
                return f"setVariable {name} = {'undefined' if value is UNDEFINED else _show(value)}"
            case ClearTimerPlan(_, name):
                return f"clearTimer {name}"
            case SetTimerPlan(_, name) | ResetTimerPlan(_, name):
                _, duration_s, status = self._detector.timer(name)
                return f"{action.path.rpartition('.')[2]} {name}: " + (f"{duration_s} s" if status else "not set")
        return action.type


def _computed(action: ActionPlan) -> Iterator[Expression]:
    return (tree for tree in trees_of(action) if not isinstance(tree, Literal))


def summary(trace: Trace) -> dict[str, Any]:
    """The DEBUG log entry that AWS IoT Events writes of a pass, without its ``timestamp``."""
    entry: dict[str, Any] = {
        "level": "DEBUG",
        "logMessage": "Summary of message evaluation",
        "context": "MessageEvaluation",
        "status": "Success",
        "messageId": trace.trigger.message_id,
        "keyValue": trace.key,
        "detectorModelName": trace.model,
        "initialState": trace.from_state,
        "initialVariables": trace.variables_before,
        "finalState": trace.state,
        "finalVariables": trace.variables,
        "message": "" if trace.message is None else msgspec.json.encode(trace.message).decode(),
        "messageType": "CUSTOMER_MESSAGE",
        "conditionEvaluationResults": [_result(step) for step in trace.steps if isinstance(step, ConditionTrace)],
    }
    if trace.trigger.type == "Timer":
        entry["messageType"] = "TIMER"
        entry["timerName"] = trace.trigger.timer_name
    return entry


def _result(step: ConditionTrace) -> dict[str, Any]:
    result: dict[str, Any] = {
        "result": "False" if step.result == "Undefined" else step.result,
        "eventName": step.event,
        "state": step.state,
        "lifeCycle": step.life_cycle,
        "hasTransition": step.has_transition,
    }
    if step.result == "Skipped":
        result["resultDetails"] = f"Skipped due to transition from {step.because} event"
    elif step.result == "Undefined":
        result["resultDetails"] = "The condition has no valid Boolean value"
    return result


def render(trace: Trace) -> str:
    """A tree for a terminal."""
    what = trace.trigger
    cause = (
        f"message {what.input_name} {what.message_id}".rstrip()
        if what.type == "Message"
        else f"timer {what.timer_name}"
    )
    lines = [f"{trace.model} {trace.key}".rstrip() + f" at {trace.time_ms} ms: {cause}"]
    if trace.message is not None:
        lines.append(f"├─ payload {_show(trace.message)}")
    for step in trace.steps:
        lines += [f"├─ {_headline(step)}"]
        told = (step.explained,) if isinstance(step, ConditionTrace) else step.explained
        for explained in told:
            if explained is not None:
                lines += _branches(explained, "│  ")
    lines += [f"├─ failed: {failure}" for failure in trace.failures]
    lines += [f"├─ variable {change}" for change in _changes(trace.variables_before, trace.variables)]
    now = trace.time_ms / 1000
    timers_before, timers = _timer_texts(trace.timers_before, now), _timer_texts(trace.timers, now)
    lines += [f"├─ timer {change}" for change in _changes(timers_before, timers)]
    stays = trace.from_state == trace.state
    lines.append(f"└─ state {trace.state}" if stays else f"└─ state {trace.from_state} → {trace.state}")
    return "\n".join(lines)


def _headline(step: ConditionTrace | ActionTrace) -> str:
    if isinstance(step, ActionTrace):
        return f"{step.state} · {step.event} · {step.did}"
    why = f" due to transition from {step.because}" if step.because else ""
    arrow = " (transition)" if step.has_transition else ""
    return f"{step.state} · {step.life_cycle} · {step.event}{arrow}: {step.result}{why}"


def _branches(explained: Explained, indent: str) -> Iterator[str]:
    value = "undefined" if explained.undefined else _show(explained.value) if explained.evaluated else "not evaluated"
    yield f"{indent}└─ {explained.text} = {value}"
    for part in explained.parts:
        yield from _branches(part, indent + "   ")


def _timer_texts(timers: list[TimerState], now: float) -> dict[str, Any]:
    return {
        timer.name: f"{timer.due - now:.3f} s left" if timer.status == "running" else f"expired, {timer.status}"
        for timer in timers
    }


def _changes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    for name in {**before, **after}:
        if name not in after:
            yield f"{name}: {_show(before[name])} → cleared"
        elif name not in before:
            yield f"{name}: {_show(after[name])}"
        elif before[name] != after[name] or type(before[name]) is not type(after[name]):
            yield f"{name}: {_show(before[name])} → {_show(after[name])}"


def _show(value: Any) -> str:
    return msgspec.json.encode(value).decode()
