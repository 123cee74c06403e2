"""
From a model's word to the message that travels: ids that a repeat shares, members a detector can read, a bounded size.
"""

import math
from typing import Any

import msgspec

from wheeltapper.errors import MessageError
from wheeltapper.messages import Contribution, ModelName, Prediction, Reading
from wheeltapper_components.settings import OutputSettings
from wheeltapper_models.serving import Judged

OTHERS = "others"

_encode = msgspec.json.Encoder().encode


def prediction_of(
    reading: Reading, reading_id: str, judged: Judged, time_ms: int, *, request_id: str = ""
) -> Prediction:
    """
    The prediction for one reading, its score a finite number.

    Its message id depends on nothing but the reading, the model and the operator's request, so that a reading that is
    scored again after a crash yields a message that receivers know.
    """
    card = judged.card
    shares = sorted(((share, sensor) for sensor, share in judged.contributions.items() if share > 0), reverse=True)
    suffix = f"#{request_id}" if request_id else ""
    return Prediction(
        message_id=f"{reading_id}@{card.name}-{card.version}{suffix}",
        thing=reading.thing,
        time_ms=time_ms,
        reading_id=reading_id,
        reading_time_ms=reading.time_ms,
        score=judged.score,
        limit=card.limit if judged.limit is None else judged.limit,
        anomaly=judged.anomaly,
        alert=judged.alert,
        contributions=[Contribution(sensor, _short(share)) for share, sensor in shares],
        model=ModelName(card.name, card.version),
        attributes={name: value for name, value in reading.values.items() if isinstance(value, str)},
    )


def encode_prediction(prediction: Prediction, reading: Reading, output: OutputSettings) -> bytes:
    """
    The JSON of a prediction, no longer than ``output.max_bytes``.

    A long one loses, in this order, the reading's own members, its smallest contributions (summed up as ``others``) and
    its attributes.

    Raises:
        MessageError: ids and names alone are too long.
    """
    kept = output.top
    if len(prediction.contributions) <= kept:
        kept = len(prediction.contributions)
    for passthrough, attributes in ((output.passthrough, True), (False, True), (False, False)):
        payload = _encode(_members(_fold(prediction, kept), reading, output, passthrough, attributes))
        if len(payload) <= output.max_bytes:
            return payload
        fewer = kept
        while fewer > 1 and not passthrough:
            fewer //= 2
            payload = _encode(_members(_fold(prediction, fewer), reading, output, passthrough, attributes))
            if len(payload) <= output.max_bytes:
                return payload
    raise MessageError(
        f"prediction for {prediction.thing}: {len(payload)} bytes; output.max_bytes is {output.max_bytes}: shorten the "
        "reading's message_id or the model's name"
    )


def _fold(prediction: Prediction, kept: int) -> Prediction:
    if len(prediction.contributions) <= kept:
        return prediction
    shown = prediction.contributions[: max(kept - 1, 1)]
    rest = Contribution(OTHERS, _short(max(0.0, 1.0 - math.fsum(item.share for item in shown))))
    return msgspec.structs.replace(prediction, contributions=[*shown, rest])


def _members(
    prediction: Prediction, reading: Reading, output: OutputSettings, passthrough: bool, attributes: bool
) -> dict[str, Any]:
    """The message's members; those of a prediction are never overwritten by a reading's."""
    told: dict[str, Any] = {field: getattr(prediction, field) for field in prediction.__struct_fields__}
    if not attributes:
        told["attributes"] = {}
    members: dict[str, Any] = dict(told)
    for name, source in output.fields.items():
        members[name] = told[source]
    if attributes and output.flat_attributes:
        members = {**prediction.attributes, **members}
    if passthrough:
        numbers = {name: value for name, value in reading.values.items() if not isinstance(value, str)}
        members = {**numbers, **members}
    return {**members, **told}


def _short(share: float) -> float:
    return round(float(share), 6)
