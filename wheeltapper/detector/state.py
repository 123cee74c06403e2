"""
The state of a detector or an alarm as data: versioned, by name, independent of how it is run.

This is what a host writes to disk, carries to another machine, or edits when a model is updated without a reset.
"""

from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from wheeltapper.detector.handle import handle_of
from wheeltapper.errors import DefinitionError

FORMAT = 1

TimerStatus: TypeAlias = Literal["running", "pending", "checked"]


class TimerState(Struct, frozen=True, kw_only=True):
    """
    A timer that was set and not cleared.

    ``pending`` has expired and no ``timeout`` has seen it; ``checked`` has expired and one has. ``due`` is in seconds since
    the epoch, in the past once it has expired.
    """

    name: str
    due: float
    duration_s: int
    status: TimerStatus = "running"


class DetectorState(Struct, frozen=True, kw_only=True, tag="detector"):
    """
    One detector.

    Attributes:
        hash: of the definition that it ran under.
        inputs: reference such as ``$input.Pump.speed`` → its last value; absent where undefined.
        sequence: number of actions so far; makes the ids of actions.
        created, updated: seconds since the epoch.
    """

    model: str
    version: str
    hash: str
    key: str
    state: str
    variables: dict[str, Any]
    timers: list[TimerState]
    inputs: dict[str, Any]
    created: float
    updated: float
    sequence: int = 0
    format: int = FORMAT

    @property
    def handle(self) -> str:
        return handle_of("detector", self.model)


class AlarmState(Struct, frozen=True, kw_only=True, tag="alarm"):
    """
    One alarm.

    Attributes:
        state: DISABLED, NORMAL, ACTIVE, ACKNOWLEDGED, LATCHED or SNOOZE_DISABLED.
        rule: last evaluation: ``(input property value, sign, threshold value)``; None before the first and after a reset.
        operation, note, snooze_s: the customer's action that brought the state, as upper-case AWS name; else empty.
        snoozed_until: seconds since the epoch while the state is SNOOZE_DISABLED, else None.
        system_event: SNOOZE_TIMEOUT when that made the last change, else empty.
    """

    model: str
    version: str
    hash: str
    key: str
    state: str
    inputs: dict[str, Any]
    created: float
    updated: float
    rule: tuple[Any, str, Any] | None = None
    operation: str = ""
    note: str = ""
    snooze_s: int = 0
    snoozed_until: float | None = None
    system_event: str = ""
    sequence: int = 0
    format: int = FORMAT

    @property
    def handle(self) -> str:
        return handle_of("alarm", self.model)


AnyState: TypeAlias = DetectorState | AlarmState

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AnyState)


def encode_state(state: AnyState) -> bytes:
    """One line of JSON."""
    return _encoder.encode(state)


def decode_state(data: bytes) -> AnyState:
    """
    What ``encode_state`` wrote.

    Raises:
        DefinitionError: not a state, or of a later format than this program knows.
    """
    try:
        state: AnyState = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DefinitionError(f"detector state: {error}") from error
    if state.format > FORMAT:
        raise DefinitionError(f"detector state: format {state.format} is newer than this program; update wheeltapper")
    return state
