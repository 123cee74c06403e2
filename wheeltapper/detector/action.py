"""What goes into a pass and what comes out of it: messages, triggers, actions, outcomes."""

import hashlib
from typing import Any

from msgspec import Struct

from wheeltapper.detector.handle import Kind, handle_of


class Message(Struct, frozen=True):
    """A message of one input; ``time_ms`` is the sender's time, None where it gave none."""

    input_name: str
    payload: dict[str, Any]
    message_id: str = ""
    time_ms: int | None = None


class Trigger(Struct, frozen=True):
    """Why a pass ran: ``type`` is Message or Timer (or Operation, for alarms), the other members as they apply."""

    type: str
    input_name: str = ""
    message_id: str = ""
    timer_name: str = ""


class Action(Struct, frozen=True):
    """
    An external action to be carried out, its parameters evaluated.

    Attributes:
        id: the same whenever the same detector takes the same step again; in the form of a UUID.
        time_ms: event time: the message's timestamp, else the moment of the pass.
        type: sns, iotTopicPublish, lambda, sqs, firehose, iotEvents, dynamoDB, dynamoDBv2 or iotSiteWise.
        state: the detector's state when the action ran, as are ``variables`` and ``timers`` (name → expiry, ms).
        parameters: under the names that AWS gives them, without the payload.
        payload: the text to send; None where the action does not customise it (see ``payload.default_payload``).
        payload_type: STRING or JSON with a payload, else empty.
    """

    id: str
    model: str
    version: str
    key: str
    time_ms: int
    type: str
    event: str
    state: str
    parameters: dict[str, Any]
    payload: str | None
    payload_type: str
    variables: dict[str, Any]
    timers: dict[str, int]
    trigger: Trigger


class Outcome(Struct, frozen=True):
    """
    What one pass of one detector did that others may see; at most one change of state.

    Attributes:
        model: the name of a model of this ``kind``.
        created: the pass that made the detector; ``from_state`` is then empty.
        from_state, state: before and after; equal where nothing changed or a transition leads back to its own state.
        event: name of the transition event, empty without a transition; an alarm's operation or RULE_EVALUATION.
        condition: text of the condition that led to the transition.
        values: every reference (and timeout) in that condition with its value at that moment, None where undefined.
        failures: one line each: actions that could not be evaluated, and warnings.
        trace: a ``trace.Trace`` of the pass, where it was asked for.
    """

    model: str
    version: str
    key: str
    time_ms: int
    created: bool
    from_state: str
    state: str
    event: str = ""
    condition: str = ""
    values: dict[str, Any] = {}
    actions: list[Action] = []
    failures: list[str] = []
    trace: Any = None
    kind: Kind = "detector"

    @property
    def handle(self) -> str:
        return handle_of(self.kind, self.model)


def ordered_id(time_ms: int, *parts: object) -> str:
    """
    32 hexadecimal digits that follow from what they name; ids of one time lie side by side in an index.

    >>> ordered_id(1_700_000_000_000, "state", 3)
    '018bcfe56800d9183336b6db6d7aabda'
    """
    digest = hashlib.blake2b("\n".join(map(str, parts)).encode(), digest_size=10).hexdigest()
    return f"{time_ms & 0xFFFF_FFFF_FFFF:012x}{digest}"


def action_id(definition_hash: str, key: str, time_ms: int, sequence: int) -> str:
    """
    A UUID that follows from what was done, so that doing it again gives it again.

    >>> action_id("ab", "motor-1", 1000, 3)
    '00000000-03e8-80f0-a4ba-afbded7231d3'
    """
    digits = ordered_id(time_ms, definition_hash, key, time_ms, sequence)
    # Version 8 is the UUID of one's own making (RFC 9562 §5.8).
    return f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
