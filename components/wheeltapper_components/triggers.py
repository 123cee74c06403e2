"""
Operators' requests to score now, and the answers.

The last window of a thing is scored again from a cold start by the model that serves it now; the live state is not touched.
"""

import math
from typing import TYPE_CHECKING, Any

import msgspec

from wheeltapper.messages import Reading, Trigger, TriggerReply, decode_trigger, encode
from wheeltapper.outbox import Put
from wheeltapper_components.swap import Seat
from wheeltapper_models.slot import Slot

if TYPE_CHECKING:
    from wheeltapper_components.inference import Inference

_MAX_THINGS = 100


class InferTrigger(Trigger, frozen=True, kw_only=True):
    """``thing`` says whose window is meant where the topic does not; all things are where neither does."""

    thing: str = ""


def answer(inference: "Inference", topic: str, payload: bytes, thing: str, now: int) -> list[Put]:
    """The replies to one trigger, one per thing, and the predictions that were asked for."""
    reply_topic = topic + inference.settings.topics.reply_suffix
    trigger, wrong = decode_trigger(payload, InferTrigger)
    if not wrong and trigger.rows is not None and trigger.rows < 1:
        wrong = f"rows must be 1 or more, not {trigger.rows}"
    if wrong:
        return [_reply(reply_topic, trigger.request_id, thing, now, "refused", wrong)]
    named = thing or trigger.thing
    things = [named] if named else inference.things()[:_MAX_THINGS]
    if not things:
        return [
            _reply(reply_topic, trigger.request_id, "", now, "refused", "no reading has arrived from any thing yet")
        ]
    return [put for thing in things for put in _answer_for(inference, thing, trigger, reply_topic, now)]


def _answer_for(inference: "Inference", thing: str, trigger: InferTrigger, topic: str, now: int) -> list[Put]:
    seat = inference.shelf.seat_of(thing)
    if seat is None:
        return [_reply(topic, trigger.request_id, thing, now, "refused", "no model serves this thing; see [[models]]")]
    if seat.slot is None:
        return [_reply(topic, trigger.request_id, thing, now, "refused", f"{seat.label} yet")]
    return _rescore(inference, seat, seat.slot, thing, trigger, topic, now)


def _rescore(
    inference: "Inference", seat: Seat, slot: Slot, thing: str, trigger: InferTrigger, topic: str, now: int
) -> list[Put]:
    rows = slot.rows(thing)
    if trigger.rows is not None:
        rows = rows[-trigger.rows :]
    facts: dict[str, Any] = {"model": seat.label, "rows": len(rows), **msgspec.structs.asdict(inference.counts)}
    if not rows:
        return [_reply(topic, trigger.request_id, thing, now, "refused", "no reading of this thing is kept yet", facts)]
    word = Slot(slot.session, kept_rows=0).score(rows)[-1]
    if not math.isfinite(word.score):
        detail = f"{len(rows)} readings are too few for this model, which needs {slot.card.warmup_rows + 1}"
        return [_reply(topic, trigger.request_id, thing, now, "refused", detail, facts)]
    newest = rows[-1]
    reading_time_ms = newest.time_ms if newest.time_ms is not None else now
    facts |= {
        "score": word.score,
        "limit": slot.card.limit,
        "anomaly": word.anomaly,
        "reading_time_ms": reading_time_ms,
        "contributions": dict(sorted(word.contributions.items(), key=lambda pair: -pair[1])[:5]),
    }
    detail = f"{len(rows)} readings scored again by {seat.label}"
    puts = [_reply(topic, trigger.request_id, thing, now, "done", detail, facts)]
    if inference.settings.trigger.publish:
        reading = Reading("", thing, reading_time_ms, dict(newest.values))
        reading_id = f"{thing}-{reading_time_ms}"
        put = inference.put_of(reading, reading_id, word, now, trigger.request_id or f"trigger-{now}")
        puts += [put] if put is not None else []
    return puts


def _reply(
    topic: str, request_id: str, thing: str, now: int, status: Any, detail: str, facts: dict[str, Any] | None = None
) -> Put:
    reply = TriggerReply(
        request_id=request_id, thing=thing, time_ms=now, status=status, detail=detail, result=facts or {}
    )
    return Put(topic, encode(reply))
