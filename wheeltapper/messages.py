"""
What travels between the rooms, and its JSON.

A reading is flat on the wire, one member per sensor, so that a detector reads ``$input.Reading.TT01`` and the payloads of
the AWS samples pass unchanged: ``{"message_id", "thing", "time_ms", "TT01": 71.2, …}``. The three reserved members may be
missing: the thing then comes from the topic, the time is the arrival's, and a message without an id is never taken for a
repeat. JSON has no NaN; a missing value is ``null``.
"""

import math
from typing import Any, Literal, TypeVar

import msgspec

from wheeltapper.errors import MessageError

Value = float | int | str | bool | None

RESERVED = ("message_id", "thing", "time_ms")

# What msgspec raises for a payload that is no JSON, or no UTF-8, or nested beyond all measure.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Reading(msgspec.Struct, frozen=True):
    """One sample of one thing: sensor → value; strings are attributes such as ``motorType``."""

    message_id: str
    thing: str
    time_ms: int
    values: dict[str, Value]


class Contribution(msgspec.Struct, frozen=True):
    """A sensor's share of one anomaly score, in [0, 1]."""

    sensor: str
    share: float


class ModelName(msgspec.Struct, frozen=True):
    """Which trained model spoke."""

    name: str
    version: str


class Prediction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What a model says of one reading; ``anomaly`` is 1 where ``score`` exceeds ``limit``, ``alert`` where so many anomalies
    followed one another as the model wants for one (forests alone say so).

    A model without a limit, such as a forecaster, never says 1 and has ``limit`` None.
    """

    message_id: str
    thing: str
    time_ms: int
    reading_id: str
    reading_time_ms: int
    score: float
    limit: float | None
    anomaly: int
    contributions: list[Contribution]
    model: ModelName
    attributes: dict[str, str] = {}
    alert: int = 0


class StateChange(msgspec.Struct, frozen=True, kw_only=True):
    """A detector left a state for another, or was created (``from_state`` is then empty)."""

    message_id: str
    thing: str
    time_ms: int
    detector: str
    key: str
    from_state: str
    state: str
    event: str


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """
    A detector entered an alarm state, and why.

    ``condition`` is the text of the condition that held, ``values`` every reference in it with its value at that moment;
    ``score``, ``contributions``, ``model`` and ``reading_time_ms`` come from the prediction that was judged, and are empty
    where the detector judged something else.
    """

    message_id: str
    thing: str
    time_ms: int
    detector: str
    key: str
    state: str
    event: str
    condition: str
    values: dict[str, Value]
    score: float | None = None
    contributions: list[Contribution] = []
    model: ModelName | None = None
    reading_time_ms: int | None = None


class ActionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one action of a detector."""

    message_id: str
    thing: str
    time_ms: int
    detector: str
    key: str
    type: str
    target: str
    outcome: Literal["delivered", "undelivered", "failed", "parked"]
    detail: str = ""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """A process speaking of itself."""

    thing: str
    time_ms: int
    process: str
    status: Literal["starting", "ready", "degraded", "stopping", "stopped", "restarted"]
    detail: str = ""


class FaultBegun(msgspec.Struct, frozen=True, kw_only=True):
    """A simulated machine fell ill: with which reading, and which sensors that touches; explanations are scored by it."""

    thing: str
    time_ms: int
    fault: str
    explanation: str
    sensors: list[str]
    reading_id: str


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A model's scores or a sensor's values no longer look as they did in training."""

    message_id: str
    thing: str
    time_ms: int
    method: str
    detail: str
    model: ModelName


class Trigger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """An operator's request; a payload that is none of JSON's objects, or nothing, asks for the default."""

    request_id: str = ""
    rows: int | None = None
    file: str = ""
    fault: str = ""


class TriggerReply(msgspec.Struct, frozen=True, kw_only=True):
    """What was done about a trigger."""

    request_id: str
    thing: str
    time_ms: int
    status: Literal["done", "accepted", "refused"]
    detail: str
    result: dict[str, Any] = {}


AnyTrigger = TypeVar("AnyTrigger", bound=Trigger)
_LONGEST_REQUEST_ID = 128

_encoder = msgspec.json.Encoder()
_reading_decoder = msgspec.json.Decoder(dict[str, Any])


def encode(message: msgspec.Struct) -> bytes:
    """The JSON of any message of this module."""
    if isinstance(message, Reading):
        return encode_reading(message)
    return _encoder.encode(message)


def encode_reading(reading: Reading) -> bytes:
    """
    A reading's flat JSON; NaN and infinities become null.

    >>> encode_reading(Reading("m1", "motor-1", 5, {"TT01": 71.5}))
    b'{"message_id":"m1","thing":"motor-1","time_ms":5,"TT01":71.5}'
    """
    flat: dict[str, Value] = {"message_id": reading.message_id, "thing": reading.thing, "time_ms": reading.time_ms}
    flat.update(reading.values)
    return _encoder.encode(flat)


def decode_reading(payload: bytes, *, thing: str = "", arrival_ms: int = 0) -> Reading:
    """
    Read a flat reading.

    Args:
        payload: a JSON object; nested objects and arrays are not values and are refused.
        thing: whose it is where the payload does not say.
        arrival_ms: its time where the payload does not say.

    Raises:
        MessageError: not a JSON object, a reserved member of the wrong type, a member that is not a value, or no thing.
    """
    return decode_timed_reading(payload, thing=thing, arrival_ms=arrival_ms)[0]


def decode_timed_reading(payload: bytes, *, thing: str = "", arrival_ms: int = 0) -> tuple[Reading, bool]:
    """
    As ``decode_reading``, and whether the payload itself says when the reading was taken.

    >>> decode_timed_reading(b'{"unit": "time_ms"}', thing="motor-1", arrival_ms=5)
    (Reading(message_id='', thing='motor-1', time_ms=5, values={'unit': 'time_ms'}), False)
    """
    try:
        flat = _reading_decoder.decode(payload)
    except UNREADABLE as error:
        raise MessageError(f"reading: not a JSON object: {error}") from error
    message_id = flat.pop("message_id", "")
    named = flat.pop("thing", thing)
    timed = "time_ms" in flat
    time_ms = flat.pop("time_ms", arrival_ms)
    if not isinstance(message_id, str) or not isinstance(named, str):
        raise MessageError("reading: message_id and thing must be strings")
    is_number = isinstance(time_ms, int) or (isinstance(time_ms, float) and math.isfinite(time_ms))
    if isinstance(time_ms, bool) or not is_number:
        raise MessageError(f"reading: time_ms must be a number, not {time_ms!r}")
    if not named:
        raise MessageError("reading: names no thing, and its topic does not either")
    for sensor, value in flat.items():
        if isinstance(value, dict | list):
            raise MessageError(f"reading: {sensor!r} is neither number, string, boolean nor null")
    return Reading(message_id, named, int(time_ms), flat), timed


def decode_trigger(payload: bytes, kind: type[AnyTrigger]) -> tuple[AnyTrigger, str]:
    """
    Read an operator's request, in the one way in which device and gateway do.

    Returns:
        The request, and what is wrong with it: empty, or the reason to refuse it, and the request is then its id alone, so
        that whoever asked knows the refusal for an answer.

    >>> decode_trigger(b"now!", Trigger) == decode_trigger(b"", Trigger) == (Trigger(), "")
    True
    >>> decode_trigger(b'{"rows": "many", "request_id": 7}', Trigger)[0].request_id
    '7'
    """
    try:
        asked = _reading_decoder.decode(payload)
    except UNREADABLE:
        asked = {}
    request_id = asked.pop("request_id", "")
    if not isinstance(request_id, str | int | float):
        request_id = ""
    request_id = str(request_id)[:_LONGEST_REQUEST_ID]
    try:
        return msgspec.convert({**asked, "request_id": request_id}, kind, strict=False), ""
    except msgspec.ValidationError as error:
        return kind(request_id=request_id), f"the payload is no trigger: {error}"
