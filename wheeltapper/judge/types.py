"""What goes into the judge and what it tells: messages, refusals, commands and views; none of it is AWS's wire."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec

from wheeltapper.detector.handle import Kind, handle_of

Reason = Literal["unknown input", "invalid", "not found", "unavailable"]


class Message(msgspec.Struct, array_like=True, gc=False):
    """
    One message for an input.

    Attributes:
        input: name of the input; must be declared (``Judge.declare_inputs``).
        payload: JSON text of an object.
        message_id: repeats of an id within the window are accepted and ignored; empty is never taken for a repeat.
        time_ms: when it was measured, if the sender says so; else the arrival counts.
        hops: how many ``iotEvents`` actions lie behind it.
    """

    input: str
    payload: bytes
    message_id: str = ""
    time_ms: int | None = None
    hops: int = 0


class Refusal(msgspec.Struct, frozen=True):
    """Why one entry of a batch was not taken; the others were."""

    index: int
    reason: Reason
    detail: str


class DetectorUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """
    Put one detector into a state.

    Variables (name → expression text, such as ``22.5`` or ``"text"``) and timers (name → seconds from now) replace what it
    had.
    """

    model: str
    key: str = ""
    state: str
    variables: dict[str, str] = {}
    timers: dict[str, int] = {}


class AlarmOperation(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator does to one alarm of an alarm model; ``snooze_s`` only with snooze; ``by`` names the operator."""

    model: str
    key: str = ""
    operation: Literal["acknowledge", "disable", "enable", "reset", "snooze"]
    snooze_s: int | None = None
    note: str = ""
    by: str = ""


class Shelved(msgspec.Struct, frozen=True, kw_only=True):
    """
    Alarms that are kept from operators, for a while or until somebody puts them back.

    Attributes:
        key: of one detector, or of one alarm of an alarm model.
        state: the one alarm state that is meant; empty is each of them, and what alarm models have.
        until_ms: when it ends by itself; None is out of service, which does not.
        by: who did it; empty where nobody was named.
        sequence: the journal's place at which it was done.
    """

    kind: Kind
    model: str
    key: str
    state: str = ""
    since_ms: int
    until_ms: int | None
    by: str = ""
    note: str = ""
    sequence: int = 0

    @property
    def handle(self) -> str:
        return handle_of(self.kind, self.model)


class ShelfOperation(msgspec.Struct, frozen=True, kw_only=True):
    """
    What an operator does to alarms of a detector model, whose states are their inputs' business.

    Attributes:
        state: the alarm state that is meant; empty is each of them. ``disable`` and ``enable`` mean each of them always.
        operation: ``shelve`` for ``for_s`` seconds, ``unshelve``; ``disable`` takes out of service, ``enable`` ends both.
        by: names the operator.
    """

    model: str
    key: str = ""
    state: str = ""
    operation: Literal["shelve", "unshelve", "disable", "enable"]
    for_s: int = 0
    note: str = ""
    by: str = ""


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A definition in force: the body of CreateDetectorModel or CreateAlarmModel, verbatim JSON."""

    name: str
    version: str
    kind: Kind
    body: msgspec.Raw

    @property
    def handle(self) -> str:
        return handle_of(self.kind, self.name)


class DetectorView(msgspec.Struct, frozen=True, kw_only=True):
    """One detector as applied; ``timers`` is name → expiry in ms since the epoch."""

    model: str
    version: str
    key: str
    state: str
    variables: dict[str, Any]
    timers: dict[str, int]
    created_ms: int
    updated_ms: int


class AlarmView(msgspec.Struct, frozen=True, kw_only=True):
    """
    One alarm of an alarm model as applied.

    Attributes:
        rule: None before the first evaluation; else property, operator and threshold with their values.
        customer_action: the last operator's action still in force: ``{"action", "note", "snooze_s"}``, or None.
        system_event: ``"SNOOZE_TIMEOUT"`` where that brought the state, else None.
        snoozed_until_ms: when it comes back by itself; None where it is not snoozed.
        snoozed_by: who snoozed it; empty where it is not snoozed, or nobody was named.
    """

    model: str
    version: str
    key: str
    state: str
    severity: int | None
    rule: dict[str, Any] | None
    customer_action: dict[str, Any] | None
    system_event: str | None
    created_ms: int
    updated_ms: int
    snoozed_until_ms: int | None = None
    snoozed_by: str = ""


ActionStatus = Literal["pending", "delivered", "undelivered", "failed", "parked"]


class Action(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One thing to be done outside.

    Attributes:
        id: the same after a crash and a replay, so that a receiver can drop a repeat.
        type: an IoT Events action (``sns``, ``lambda``, …), ``notification`` of an alarm model, or ``publish``, which is
            Wheeltapper's own news of a state change or an alarm.
        target: the ARN, URL, topic, table or input that the definition names.
        parameters: the evaluated parameters under AWS's names, without the payload.
        payload: what is sent.
        time_ms: the detector's clock when it was emitted.
        hops: how many ``iotEvents`` actions lie behind it.
        kind: of the model; empty where it is not known, as in what an earlier release wrote.
    """

    id: str
    model: str
    key: str
    thing: str
    event: str
    type: str
    target: str
    payload: bytes
    time_ms: int
    parameters: dict[str, Any] = {}
    hops: int = 0
    kind: Kind | Literal[""] = ""


class ActionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An action and what became of it."""

    action: Action
    status: ActionStatus
    attempts: int = 0
    settled_ms: int | None = None
    detail: str = ""


class AlarmRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    A detector or an alarm, by the ``kind`` of its model, entered an alarm state.

    ``body`` is the JSON of messages.Alarm, ``state`` where the detector is now, ``sequence >> 24`` the journal's position;
    ``shelved`` says whether operators are spared it now.
    """

    id: str
    sequence: int
    model: str
    key: str
    state: str
    severity: int | None
    raised_ms: int
    body: msgspec.Raw
    cleared_ms: int | None = None
    acknowledged_ms: int | None = None
    acknowledged_by: str = ""
    note: str = ""
    kind: Kind = "detector"
    shelved: Shelved | None = None

    @property
    def handle(self) -> str:
        return handle_of(self.kind, self.model)


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    Who did what to which detector, and why.

    Attributes:
        kind: of the model; empty where it is not known, as in what an earlier release wrote.
        until_ms: when what was done ends by itself.
    """

    time_ms: int
    who: str
    what: str
    model: str
    key: str = ""
    note: str = ""
    kind: Kind | Literal[""] = ""
    until_ms: int | None = None


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """How the judge is doing, cheap enough for every scrape; ``failed`` are messages that the engine broke on."""

    accepted: int
    repeated: int
    refused: int
    failed: int
    dropped: int
    applied_position: int
    snapshot_position: int
    queue_depth: int
    detectors: int
    actions_pending: int
    actions_parked: int
    last_commit_ms: int
    journal_bytes: int
    writable: bool


class Done(Protocol):
    """Called once on the judge's thread when a batch is durable and applied (or could not be); must not block."""

    def __call__(self, refusals: Sequence[Refusal], /) -> None: ...
