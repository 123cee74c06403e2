"""
Alarms: a rule over inputs, seven states' worth of etiquette, and the operator's five operations (specification §8).

An alarm is run plainly, without compilation: its rule is one comparison. It shares with detectors what a shard needs: a
key, a time to be woken at, an exported state.
"""

import math
from collections.abc import Iterator
from typing import Any

import msgspec

from wheeltapper.detector.action import Action, Message, Outcome, Trigger, action_id
from wheeltapper.detector.expression import Expression, Reference, references, show_reference
from wheeltapper.detector.interpreter import evaluate
from wheeltapper.detector.parameters import evaluate_external
from wheeltapper.detector.plan import AlarmPlan, payload_path
from wheeltapper.detector.settings import EngineSettings
from wheeltapper.detector.state import AlarmState
from wheeltapper.detector.values import BINARY, UNDEFINED, Operand, follow, is_absent
from wheeltapper.errors import DefinitionError

NORMAL, ACTIVE, ACKNOWLEDGED, LATCHED = "NORMAL", "ACTIVE", "ACKNOWLEDGED", "LATCHED"
DISABLED, SNOOZED = "DISABLED", "SNOOZE_DISABLED"

OPERATIONS = ("acknowledge", "disable", "enable", "reset", "snooze")
RULE_EVALUATION, SNOOZE_TIMEOUT = "RULE_EVALUATION", "SNOOZE_TIMEOUT"
SNOOZE_TIMER = "snooze"


class Alarm:
    """One alarm of an alarm model; attributes as in ``state.AlarmState``, ``wake`` as in ``instance.Detector``."""

    __slots__ = (
        "created",
        "inputs",
        "key",
        "on",
        "operation",
        "plan",
        "remark",
        "rule",
        "sequence",
        "settings",
        "snooze_s",
        "snoozed_until",
        "state",
        "system_event",
        "trigger",
        "updated",
        "wake",
    )

    def __init__(self, plan: AlarmPlan, settings: EngineSettings, key: str, now: float) -> None:
        self.plan = plan
        self.settings = settings
        self.key = key
        self.state = DISABLED if plan.disabled_on_initialization else NORMAL
        self.inputs: dict[Reference, Operand] = {}
        self.created = self.updated = now
        self.rule: tuple[Any, str, Any] | None = None
        self.operation = self.remark = self.system_event = ""
        self.snooze_s = 0
        self.snoozed_until: float | None = None
        self.sequence = 0
        self.trigger = Trigger("Operation")
        self.wake = math.inf
        self.on: Any = None

    def reference(self, reference: Reference) -> Operand:
        return self.inputs.get(reference, UNDEFINED)

    def timeout(self, name: str) -> bool:
        return False

    def note(self, tree: Expression, value: Operand) -> None:
        """Alarms keep no trace of sub-expressions: the rule's two sides are in ``rule``."""

    def receive(self, message: Message, now: float) -> Outcome | None:
        """Remember a message and evaluate the rule; None where the state stays."""
        self.trigger = Trigger("Message", message.input_name, message.message_id)
        self.updated = now
        for given in self.plan.inputs:
            if given.name == message.input_name:
                for reference in given.references:
                    self.inputs[reference] = follow(message.payload, payload_path(reference))
        verdict = self._evaluate()
        after = self._after_rule(verdict)
        if after == self.state:
            return None
        self._attribute()
        time_ms = int(now * 1000) if message.time_ms is None else message.time_ms
        return self._change(after, RULE_EVALUATION, time_ms)

    def wake_up(self, now: float) -> Outcome | None:
        """End a snooze whose time is over."""
        if self.snoozed_until is None or self.snoozed_until > now:
            return None
        self.trigger = Trigger("Timer", timer_name=SNOOZE_TIMER)
        self._attribute(system_event=SNOOZE_TIMEOUT)
        self.updated = now
        return self._change(NORMAL, SNOOZE_TIMEOUT, int(now * 1000))

    def due_timer(self, now: float) -> str | None:
        return SNOOZE_TIMER if self.next_due() <= now else None

    def next_due(self) -> float:
        return math.inf if self.snoozed_until is None else self.snoozed_until

    def operate(self, operation: str, now: float, note: str = "", snooze_s: int = 0) -> Outcome:
        """
        What an operator does.

        Raises:
            DefinitionError: the operation is unknown, or the state does not allow it; the alarm stays as it was.
        """
        after = self._after_operation(operation, snooze_s)
        self.trigger = Trigger("Operation")
        self._attribute(operation.upper(), note, snooze_s)
        self.updated = now
        if operation == "reset":
            self.inputs.clear()
            self.rule = None
        outcome = self._change(after, self.operation, int(now * 1000))
        if after == SNOOZED and operation == "snooze":
            self.snoozed_until = now + snooze_s
        return outcome

    def export(self) -> AlarmState:
        return AlarmState(
            model=self.plan.name,
            version=self.plan.version,
            hash=self.plan.hash,
            key=self.key,
            state=self.state,
            inputs={show_reference(ref): value for ref, value in self.inputs.items() if value is not UNDEFINED},
            created=self.created,
            updated=self.updated,
            rule=self.rule,
            operation=self.operation,
            note=self.remark,
            snooze_s=self.snooze_s,
            snoozed_until=self.snoozed_until,
            system_event=self.system_event,
            sequence=self.sequence,
        )

    def adopt(self, state: AlarmState) -> None:
        """Take over an exported state."""
        known = {show_reference(ref): ref for given in self.plan.inputs for ref in given.references}
        self.inputs = {known[text]: value for text, value in state.inputs.items() if text in known}
        self.state, self.created, self.updated, self.rule = state.state, state.created, state.updated, state.rule
        self.operation, self.remark, self.snooze_s = state.operation, state.note, state.snooze_s
        self.snoozed_until, self.system_event, self.sequence = state.snoozed_until, state.system_event, state.sequence

    def _attribute(self, operation: str = "", note: str = "", snooze_s: int = 0, system_event: str = "") -> None:
        """Say who brought the state: the customer, the end of a snooze, or neither but the rule."""
        self.operation, self.remark, self.snooze_s, self.system_event = operation, note, snooze_s, system_event

    def _evaluate(self) -> Operand:
        if self.state in (DISABLED, SNOOZED):
            return UNDEFINED
        measured, threshold = evaluate(self.plan.input_property, self), evaluate(self.plan.threshold, self)
        if is_absent(measured) or is_absent(threshold):
            return UNDEFINED
        verdict = BINARY[self.plan.sign](measured, threshold)
        if verdict is not UNDEFINED:
            self.rule = (measured, self.plan.sign, threshold)
        return verdict

    def _after_rule(self, verdict: Operand) -> str:
        if verdict is True and self.state in (NORMAL, LATCHED):
            return ACTIVE
        if verdict is False and self.state == ACTIVE:
            return LATCHED if self.plan.acknowledge_flow else NORMAL
        if verdict is False and self.state == ACKNOWLEDGED:
            return NORMAL
        return self.state

    def _after_operation(self, operation: str, snooze_s: int) -> str:
        state = self.state
        match operation:
            case "acknowledge" if state == ACTIVE and self.plan.acknowledge_flow:
                return ACKNOWLEDGED
            case "acknowledge" if state == LATCHED:
                return NORMAL
            case "disable":
                return DISABLED
            case "enable" if state in (DISABLED, SNOOZED):
                return NORMAL
            case "reset" if state not in (DISABLED, SNOOZED):
                return NORMAL
            case "snooze" if state != DISABLED and snooze_s < 1:
                raise DefinitionError(f"snooze: snoozeDuration must be at least 1 s, not {snooze_s}")
            case "snooze" if state != DISABLED:
                return SNOOZED
        if operation not in OPERATIONS:
            raise DefinitionError(f"operation {operation!r}: must be one of {', '.join(OPERATIONS)}")
        raise DefinitionError(f"{operation}: not possible while the alarm is {state}")

    def _change(self, state: str, event: str, time_ms: int) -> Outcome:
        """Take a state; where it is another, carry out the model's actions and notifications."""
        before, self.state = self.state, state
        self.snoozed_until = None
        actions: list[Action] = []
        failures: list[str] = []
        if before != state:
            actions, failures = self._actions(event, time_ms)
        by_rule = event == RULE_EVALUATION
        return Outcome(
            model=self.plan.name,
            version=self.plan.version,
            key=self.key,
            time_ms=time_ms,
            created=False,
            from_state=before,
            state=state,
            event=event,
            condition=self.plan.text if by_rule else "",
            values=self._values() if by_rule else {},
            actions=actions,
            failures=failures,
            kind="alarm",
        )

    def _values(self) -> dict[str, Any]:
        read = (*references(self.plan.input_property), *references(self.plan.threshold))
        values = {show_reference(reference): self.reference(reference) for reference in read}
        return {text: None if value is UNDEFINED else value for text, value in values.items()}

    def _actions(self, event: str, time_ms: int) -> tuple[list[Action], list[str]]:
        text = msgspec.json.encode(self._announcement(time_ms)).decode()
        actions, failures = [], []
        for action in self.plan.actions:
            evaluated = evaluate_external(
                action, lambda tree: evaluate(tree, self), lambda path, what: failures.append(f"{path}: {what}")
            )
            if evaluated is not None:
                parameters, payload = evaluated
                kind = action.payload_type or "JSON"
                sent = text if payload is None else payload
                actions.append(self._action(action.type, event, time_ms, parameters, sent, kind))
        for arn, sent in self._notifications(text):
            actions.append(self._action("lambda", "notification", time_ms, {"functionArn": arn}, sent, "JSON"))
        return actions, failures

    def _action(
        self, kind: str, event: str, time_ms: int, parameters: dict[str, Any], payload: str, payload_type: str
    ) -> Action:
        self.sequence += 1
        return Action(
            id=action_id(self.plan.hash, self.key, time_ms, self.sequence),
            model=self.plan.name,
            version=self.plan.version,
            key=self.key,
            time_ms=time_ms,
            type=kind,
            event=event,
            state=self.state,
            parameters=parameters,
            payload=payload,
            payload_type=payload_type,
            variables={},
            timers={},
            trigger=self.trigger,
        )

    def _announcement(self, time_ms: int) -> dict[str, Any]:
        """What an alarm says of itself, in the notification Lambda's words."""
        state: dict[str, Any] = {"stateName": self.state}
        if self.rule is not None:
            measured, _, threshold = self.rule
            operator = self.plan.model.comparison_operator
            state["ruleEvaluation"] = {
                "simpleRule": {"inputProperty": measured, "operator": operator, "threshold": threshold}
            }
        said: dict[str, Any] = {"alarmModelName": self.plan.name, "stateUpdateTime": time_ms, "alarmState": state}
        if self.plan.key is not None:
            said["keyValue"] = self.key
        if self.plan.model.severity is not None:
            said["severity"] = self.plan.model.severity
        return said

    def _notifications(self, text: str) -> Iterator[tuple[str, str]]:
        """Each notification's function and its event; none without the acknowledge flow."""
        if not self.plan.acknowledge_flow:
            return
        for notification in self.plan.model.notifications:
            arn = ((notification.get("action") or {}).get("lambdaAction") or {}).get("functionArn")
            if isinstance(arn, str):
                event = {
                    "notificationEventPayload": text,
                    "emailConfigurations": [_email(given) for given in notification.get("emailConfigurations") or ()],
                    "smsConfigurations": [_sms(given) for given in notification.get("smsConfigurations") or ()],
                }
                yield arn, msgspec.json.encode(event).decode()


def _recipients(given: Any) -> list[str]:
    """Addresses as written; a single-sign-on identity by its user's id."""
    found = []
    for recipient in given or ():
        identity = recipient.get("ssoIdentity") if isinstance(recipient, dict) else None
        found.append(str((identity or {}).get("userId", "")) if isinstance(recipient, dict) else str(recipient))
    return [address for address in found if address]


def _email(given: dict[str, Any]) -> dict[str, Any]:
    content, recipients = given.get("content") or {}, given.get("recipients") or {}
    email: dict[str, Any] = {"from": given.get("from"), "to": _recipients(recipients.get("to"))}
    email.update({name: content[name] for name in ("subject", "additionalMessage") if content.get(name) is not None})
    return email


def _sms(given: dict[str, Any]) -> dict[str, Any]:
    sms: dict[str, Any] = {"phoneNumbers": _recipients(given.get("recipients"))}
    sms.update({name: given[name] for name in ("senderId", "additionalMessage") if given.get(name) is not None})
    return sms
