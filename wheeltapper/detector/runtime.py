"""
A shard: detectors by model and key, their timers, and nothing else.

The server, the gateway, the back-test and ``simulate`` all host it. It is pure: time comes in as ``now`` (seconds since the
epoch, fractional), actions go out as data, and the host decides what is durable before it acts. One thread at a time.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from wheeltapper.detector.settings import DEFAULTS, EngineSettings


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
        created: the pass that made the detector; ``from_state`` is then empty.
        event: name of the transition event, empty without a transition; an alarm's operation or RULE_EVALUATION.
        condition: text of the condition that led to the transition.
        values: every reference (and timeout) in that condition with its value at that moment, None where undefined.
        failures: one line each: actions that could not be evaluated, and warnings.
        trace: what ``trace.Trace`` says of the pass, where it was asked for.
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


class Shard:
    """Detectors of many models; see the module."""

    def __init__(self, settings: EngineSettings = DEFAULTS, *, track: bool = False) -> None:
        """``track`` keeps a list of the detectors that changed, for ``take_touched``."""

    def load(self, body: dict[str, Any], version: str = "1", *, inputs: Any = None) -> Any:
        """
        Make a model active; detectors of an earlier version of it are gone.

        Args:
            body: a CreateDetectorModel or CreateAlarmModel body.
            version: its version.
            inputs: input → declared attribute paths; checks that every input exists, where given.

        Returns:
            The plan: the model with its expressions parsed and its names resolved.

        Raises:
            DefinitionError: the model is not valid; ``path`` says where.
        """

    def unload(self, model: str) -> None:
        """Forget a model and its detectors; harmless when it is not there."""

    def routing(self, input_name: str) -> list[str]:
        """The models that reference an input, in the order in which they were loaded."""

    def put(self, message: Message, now: float, *, trace: bool = False) -> Sequence[Outcome]:
        """Run the timers due at or before ``now``, then give the message to every detector that it concerns."""

    def next_timer(self) -> float | None:
        """When ``advance`` should next be called, seconds since the epoch; may be early, never late."""

    def advance(self, now: float, *, late: bool = False, trace: bool = False) -> Sequence[Outcome]:
        """
        Run every timer due at or before ``now``, in order of expiry, then of name.

        Each runs at its own due time, and what it sets may fall due in turn. With ``late`` each runs at ``now`` instead,
        once: what a host does that was down for a while.
        """

    def keys(self, model: str) -> list[str]:
        """Keys of a model's detectors; a model without a key has the one key ``""``."""

    def export(self, model: str, key: str) -> Any:
        """A detector's state as a ``state.DetectorState`` (or ``AlarmState``), None when there is none."""

    def dump(self, model: str, key: str) -> bytes | None:
        """``export`` as JSON."""

    def insert(self, state: Any) -> None:
        """Put a detector's state (or its JSON) in place of what is there; its model must be loaded."""

    def update_detector(
        self, model: str, key: str, state: str, variables: dict[str, str], timers: dict[str, int], now: float
    ) -> None:
        """
        BatchUpdateDetector: replace state, variables and timers; run nothing.

        Args:
            variables: name → expression text, such as ``22.5`` or ``"text"``.
            timers: name → seconds from now.

        Raises:
            DefinitionError: no such model or state, or a value that is not one.
        """

    def delete_detector(self, model: str, key: str) -> bool:
        """Forget one detector or alarm; False when there is none."""

    def operate_alarm(
        self, model: str, key: str, operation: str, now: float, *, note: str = "", snooze_s: int = 0
    ) -> Outcome:
        """
        Acknowledge, disable, enable, reset or snooze one alarm (lower-case words).

        Raises:
            DefinitionError: no such alarm, or its state does not allow the operation.
        """

    def take_touched(self) -> list[tuple[str, str]]:
        """The (model, key) pairs that passes changed since the last call; needs ``track``."""

    def snapshot(self) -> bytes:
        """Every detector and alarm as JSON Lines; the models are not in it."""

    def restore(self, snapshot: bytes) -> None:
        """Put back what ``snapshot`` gave; its models must be loaded."""
