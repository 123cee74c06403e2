"""
What an outcome of the engine means outside: actions to be carried out, state changes and alarms to be told, alarms to be
opened and closed.

Everything made here has an id that follows from the journal's position alone, so that a replay makes it again with the same
id and nobody is told twice.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from wheeltapper import messages
from wheeltapper.detector import action as engine
from wheeltapper.detector.handle import Kind, handle_of
from wheeltapper.detector.payload import payload_text
from wheeltapper.judge.settings import JudgeSettings
from wheeltapper.judge.types import Action, AlarmRecord, Deployment
from wheeltapper.topics import topic_of

_INTERNAL_ACTIONS = {"setVariable", "setTimer", "clearTimer", "resetTimer"}
_CLOSED_ALARM_STATES = {"", "NORMAL", "DISABLED"}
_TARGETS = {
    "sns": "targetArn",
    "lambda": "functionArn",
    "sqs": "queueUrl",
    "firehose": "deliveryStreamName",
    "iotTopicPublish": "mqttTopic",
    "iotEvents": "inputName",
    "dynamoDB": "tableName",
    "dynamoDBv2": "tableName",
}
# What the engine calls the call of an alarm notification's Lambda function.
_NOTIFICATION = "notification"
_NOT_A_THING = re.compile(r"[^A-Za-z0-9:_\-.]")

Payload = Mapping[str, Any]


class Model(msgspec.Struct, frozen=True):
    """What telling needs to know of a definition in force."""

    name: str
    kind: Kind
    body: dict[str, Any]
    alarm_states: frozenset[str]

    @property
    def handle(self) -> str:
        return handle_of(self.kind, self.name)

    @property
    def severity(self) -> int | None:
        """The alarm model's severity."""
        severity: int | None = self.body.get("severity")
        return severity


class News(msgspec.Struct):
    """What one outcome causes."""

    actions: list[Action] = []
    raised: AlarmRecord | None = None
    moved: bool = False
    cleared: bool = False


def read_model(deployment: Deployment, settings: JudgeSettings) -> Model:
    """What telling needs of a deployment."""
    body = msgspec.json.decode(deployment.body)
    if deployment.kind == "alarm":
        return Model(deployment.name, "alarm", body, frozenset({"ACTIVE"}))
    named = settings.alarm_states.get(deployment.name)
    states = named if named is not None else states_that_act(body)
    return Model(deployment.name, "detector", body, frozenset(states))


def states_that_act(body: Mapping[str, Any]) -> Iterator[str]:
    """The states whose onEnter does something outside the detector."""
    definition = body.get("detectorModelDefinition") or {}
    for state in definition.get("states") or []:
        events = (state.get("onEnter") or {}).get("events") or []
        actions = [action for event in events for action in event.get("actions") or []]
        names = {name for action in actions for name, parameters in action.items() if parameters is not None}
        if names - _INTERNAL_ACTIONS:
            yield state["stateName"]


class Reporter:
    """
    Turns outcomes into news.

    Args:
        settings: which news, and on which topics.
        journal_id: makes ids differ between hosts.
        export: the state of a detector or alarm now, for what the outcome does not carry.
    """

    def __init__(self, settings: JudgeSettings, journal_id: str, export: Callable[[str, str], Any]) -> None:
        self._settings = settings
        self._journal_id = journal_id
        self._export = export

    def report(self, model: Model, outcome: engine.Outcome, payload: Payload | None, sequence: int, hops: int) -> News:
        """
        Everything that one outcome causes.

        Args:
            payload: of the message that triggered the pass; None for a timer or an operation.
            sequence: which outcome of the journal this is: position << 24 | number within the row.
            hops: how many ``iotEvents`` actions lie behind the message.
        """
        news = News([])
        changed = outcome.created or outcome.from_state != outcome.state
        if not (changed or outcome.actions or outcome.event):
            return news
        thing = self._thing(outcome, payload)
        if changed or outcome.event:
            self._report_change(news, model, outcome, payload, thing, sequence, changed)
        news.actions.extend(_external(action, thing, hops, model.kind) for action in outcome.actions)
        return news

    def _report_change(
        self,
        news: News,
        model: Model,
        outcome: engine.Outcome,
        payload: Payload | None,
        thing: str,
        sequence: int,
        changed: bool,
    ) -> None:
        settings = self._settings
        if settings.publish_states and (changed or model.kind == "detector"):
            change = messages.StateChange(
                message_id=self._id("state", sequence, outcome), thing=thing, time_ms=outcome.time_ms,
                detector=outcome.model, key=outcome.key, from_state=outcome.from_state, state=outcome.state,
                event=outcome.event,
            )  # fmt: skip
            news.actions.append(_publish(change, outcome, thing, settings.state_topic))
        if not changed:
            return
        news.moved = True
        if _enters_alarm(model, outcome):
            alarm = self._alarm(outcome, payload, thing, sequence)
            news.raised = AlarmRecord(
                id=alarm.message_id, sequence=sequence, kind=model.kind, model=outcome.model, key=outcome.key,
                state=outcome.state, severity=model.severity, raised_ms=outcome.time_ms,
                body=msgspec.Raw(messages.encode(alarm)),
            )  # fmt: skip
            if settings.publish_alarms:
                news.actions.append(_publish(alarm, outcome, thing, settings.alarm_topic))
        news.cleared = _leaves_alarm(model, outcome)

    def _alarm(self, outcome: engine.Outcome, payload: Payload | None, thing: str, sequence: int) -> messages.Alarm:
        judged = payload or {}
        return messages.Alarm(
            message_id=self._id("alarm", sequence, outcome), thing=thing, time_ms=outcome.time_ms, detector=outcome.model,
            key=outcome.key, state=outcome.state, event=outcome.event, condition=outcome.condition,
            values=_plain(outcome.values), score=_as(float, judged.get("score")),
            contributions=_as(list[messages.Contribution], judged.get("contributions")) or [],
            model=_as(messages.ModelName, judged.get("model")),
            reading_time_ms=_as(int, judged.get("reading_time_ms")),
        )  # fmt: skip

    def _thing(self, outcome: engine.Outcome, payload: Payload | None) -> str:
        attribute = self._settings.thing_attribute
        named = payload.get(attribute) if payload else None
        if payload is None:
            state = self._export(outcome.handle, outcome.key)
            remembered = getattr(state, "inputs", None) or {}
            named = next((value for name, value in remembered.items() if name.endswith(f".{attribute}")), None)
        text = named if isinstance(named, str) and named else outcome.key or outcome.model
        return _NOT_A_THING.sub("_", text)[:128]

    def _id(self, kind: str, sequence: int, outcome: engine.Outcome) -> str:
        return engine.ordered_id(outcome.time_ms, self._journal_id, kind, sequence, outcome.model, outcome.key)


def told_again(record: AlarmRecord, topic: str, now_ms: int) -> Action:
    """The news of an alarm that stands after it was shelved; whoever knows its message's id knows the alarm."""
    alarm = msgspec.json.decode(record.body, type=messages.Alarm)
    return Action(
        id=engine.ordered_id(now_ms, "again", record.id), model=record.model, key=record.key, thing=alarm.thing,
        event=alarm.event, type="publish", target=topic_of(topic, alarm.thing), payload=bytes(record.body),
        time_ms=now_ms, kind=record.kind,
    )  # fmt: skip


def _enters_alarm(model: Model, outcome: engine.Outcome) -> bool:
    if model.kind == "alarm":
        return outcome.state == "ACTIVE" and (outcome.created or outcome.from_state in _CLOSED_ALARM_STATES)
    return outcome.state in model.alarm_states


def _leaves_alarm(model: Model, outcome: engine.Outcome) -> bool:
    if model.kind == "alarm":
        return outcome.state in _CLOSED_ALARM_STATES
    return outcome.from_state in model.alarm_states


def _publish(message: msgspec.Struct, outcome: engine.Outcome, thing: str, topic: str) -> Action:
    message_id: str = message.message_id  # type: ignore[attr-defined]
    return Action(
        id=message_id, model=outcome.model, key=outcome.key, thing=thing, event=outcome.event, type="publish",
        target=topic_of(topic, thing), payload=messages.encode(message), time_ms=outcome.time_ms, kind=outcome.kind,
    )  # fmt: skip


def _external(action: engine.Action, thing: str, hops: int, kind: Kind) -> Action:
    target = action.parameters.get(_TARGETS.get(action.type, ""))
    if action.type == "iotSiteWise":
        target = action.parameters.get("propertyAlias") or (
            f"{action.parameters.get('assetId')}/{action.parameters.get('propertyId')}"
        )
    notification = kind == "alarm" and action.event == _NOTIFICATION
    parameters = {**action.parameters, "payloadType": action.payload_type} if action.payload_type else action.parameters
    return Action(
        id=action.id,
        model=action.model,
        key=action.key,
        thing=thing,
        event=action.event,
        type="notification" if notification else action.type,
        target=str(target or ""),
        payload=payload_text(action).encode(),
        time_ms=action.time_ms,
        parameters=parameters,
        hops=hops + 1 if action.trigger.type == "Message" else 1,
        kind=kind,
    )


def _as(kind: Any, value: Any) -> Any:
    """The value if it has the kind, else None."""
    try:
        return None if value is None else msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return None


def _plain(values: Mapping[str, Any]) -> dict[str, messages.Value]:
    """References with values that a message can carry; anything nested becomes its JSON text."""
    return {
        name: value
        if value is None or isinstance(value, bool | int | float | str)
        else msgspec.json.encode(value).decode()
        for name, value in values.items()
    }
