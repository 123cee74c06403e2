"""Detectors and alarms as others look at them: the engine's states in the host's terms."""

from collections.abc import Iterable
from heapq import nsmallest

from wheeltapper.detector.runtime import Shard
from wheeltapper.detector.state import AlarmState, DetectorState
from wheeltapper.judge.news import Model
from wheeltapper.judge.shelf import Shelf
from wheeltapper.judge.types import AlarmView, DetectorView


def detector(shard: Shard, model: str, key: str) -> DetectorView | None:
    """One detector."""
    state = shard.export(model, key)
    return _detector_view(state) if isinstance(state, DetectorState) else None


def detectors(shard: Shard, model: str, state: str | None, after: str | None, limit: int) -> list[DetectorView]:
    """A page of a model's detectors, in order of their keys."""
    views = (detector(shard, model, key) for key in _page(shard.keys(model, state), after, limit))
    return [view for view in views if view is not None]


def alarm(shard: Shard, shelf: Shelf, model: Model | None, key: str) -> AlarmView | None:
    """One alarm."""
    if model is None:
        return None
    state = shard.export(model.handle, key)
    if not isinstance(state, AlarmState):
        return None
    snoozed = shelf.covering(model.handle, key, "") if state.snoozed_until is not None else None
    return _alarm_view(state, model, snoozed.by if snoozed else "")


def alarms(shard: Shard, shelf: Shelf, model: Model | None, after: str | None, limit: int) -> list[AlarmView]:
    """A page of an alarm model's alarms, in order of their keys."""
    if model is None:
        return []
    views = (alarm(shard, shelf, model, key) for key in _page(shard.keys(model.handle), after, limit))
    return [view for view in views if view is not None]


def _page(keys: Iterable[str], after: str | None, limit: int) -> list[str]:
    """The first keys behind one, without sorting the others: the judge waits meanwhile."""
    return nsmallest(limit, keys if after is None else (key for key in keys if key > after))


def _detector_view(state: DetectorState) -> DetectorView:
    return DetectorView(
        model=state.model,
        version=state.version,
        key=state.key,
        state=state.state,
        variables=state.variables,
        timers={timer.name: int(timer.due * 1000) for timer in state.timers},
        created_ms=int(state.created * 1000),
        updated_ms=int(state.updated * 1000),
    )


def _alarm_view(state: AlarmState, model: Model, snoozed_by: str) -> AlarmView:
    rule = None
    if state.rule is not None:
        operator = model.body["alarmRule"]["simpleRule"]["comparisonOperator"]
        rule = {"inputProperty": state.rule[0], "operator": operator, "threshold": state.rule[2]}
    action = None
    if state.operation:
        action = {"action": state.operation.lower(), "note": state.note, "snooze_s": state.snooze_s or None}
    return AlarmView(
        model=state.model,
        version=state.version,
        key=state.key,
        state=state.state,
        severity=model.severity,
        rule=rule,
        customer_action=action,
        system_event=state.system_event or None,
        created_ms=int(state.created * 1000),
        updated_ms=int(state.updated * 1000),
        snoozed_until_ms=None if state.snoozed_until is None else int(state.snoozed_until * 1000),
        snoozed_by=snoozed_by,
    )
