"""What the bus carries becomes plain events, once each, and a picture a person can read."""

import io

import msgspec
import pytest
from rich.console import Console

from wheeltapper import messages, topics
from wheeltapper.messages import Alarm, Contribution, Drift, ModelName, Reading
from wheeltapper.transport.memory import MemoryBroker
from wheeltapper.up.monitor import Event, Monitor
from wheeltapper.up.view import Picture

ALARM = Alarm(
    message_id="a1",
    thing="motor-1",
    time_ms=2_000,
    detector="MachineHealth",
    key="motor-1",
    state="Anomalous",
    event="anomaly_persists",
    condition="$input.Prediction.score > $input.Prediction.limit",
    values={"$input.Prediction.score": 3.5, "$input.Prediction.limit": 1.0},
    score=3.5,
    contributions=[Contribution("TT04", 0.75), Contribution("TT06", 0.25)],
    model=ModelName("motor", "1.0.0"),
    reading_time_ms=1_990,
)


def events_of(*published: tuple[str, bytes]) -> list[Event]:
    broker, events = MemoryBroker(), list[Event]()
    listener, speaker = broker.transport(), broker.transport()
    Monitor(events.append).listen(listener)
    listener.start()
    speaker.start()
    for topic, payload in published:
        speaker.publish(topic, payload)
    broker.deliver()
    return events


def test_an_alarm_event_carries_the_why() -> None:
    events = events_of((topics.topic_of(topics.ALARM, "motor-1"), messages.encode(ALARM)))

    assert list(events[0])[:3] == ["time_ms", "kind", "thing"]
    assert events[0]["kind"] == "alarm"
    assert events[0]["values"] == {"$input.Prediction.score": 3.5, "$input.Prediction.limit": 1.0}
    assert sum(entry["share"] for entry in events[0]["contributions"]) == 1.0
    assert events[0]["model"] == {"name": "motor", "version": "1.0.0"}


def test_drift_is_told_as_the_health_of_the_model() -> None:
    drift = Drift(
        message_id="d1", thing="motor-1", time_ms=9, method="ks", detail="TT01: far off", model=ModelName("motor", "1")
    )

    events = events_of((topics.topic_of(topics.DRIFT, "motor-1"), messages.encode(drift)))

    assert [events[0][name] for name in ("kind", "thing", "process", "status", "detail", "method")] == [
        "health",
        "motor-1",
        "model",
        "degraded",
        "TT01: far off",
        "ks",
    ]


def test_a_repeat_is_told_once_and_messages_without_an_id_always() -> None:
    reading = messages.encode(Reading("r1", "m", 1, {"TT01": 1.0}))
    nameless = b'{"thing": "m", "time_ms": 1, "TT01": 1.0}'
    topic = topics.topic_of(topics.READING, "m")

    events = events_of((topic, reading), (topic, reading), (topic, nameless), (topic, nameless))

    assert [event.get("message_id") for event in events] == ["r1", None, None]


def test_what_is_not_of_our_making_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    strange = [b"not json", b"[1]", b'{"\xff": 1}', b'{"a": ' + b"[" * 50_000]

    events = events_of(*(("wt/m/reading", payload) for payload in strange), ("wt/m/trigger/infer", b"{}"))

    assert events == []
    assert [record.getMessage().split(":")[1] for record in caplog.records] == [" not an event"] * len(strange)


def test_the_picture_shows_sensors_score_state_and_why() -> None:
    picture = Picture("wheeltapper")
    picture.add({"time_ms": 1, "kind": "health", "thing": "gateway", "process": "gateway", "status": "ready"})
    picture.add({"time_ms": 1, "kind": "reading", "thing": "motor-1", "TT04": 71.25, "motorType": "pump"})
    prediction = {"score": 3.5, "limit": 1.0, "anomaly": 1, "contributions": [{"sensor": "TT04", "share": 0.75}]}
    picture.add({"time_ms": 1, "kind": "prediction", "thing": "motor-1", **prediction})
    picture.add({"time_ms": 1, "kind": "state", "thing": "motor-1", "state": "Anomalous"})
    picture.add({"kind": "alarm", **msgspec.to_builtins(ALARM)})
    console = Console(width=120, record=True, file=io.StringIO())

    console.print(picture.render())
    text = console.export_text()

    for expected in ("gateway", "71.25", "75%", "Anomalous", "3.500", "because $input.Prediction.score", "limit = 1"):
        assert expected in text


def test_the_picture_stays_small_whoever_speaks_on_the_broker() -> None:
    picture = Picture("wheeltapper")
    for number in range(500):
        head = {"time_ms": number, "thing": f"motor-{number}"}
        picture.add({**head, "kind": "health", "process": f"process-{number}", "status": "ready"})
        picture.add({**head, "kind": "reading", f"S{number}": 1.0})
        picture.add({**head, "thing": "motor-1", "kind": "reading", f"T{number}": 2.0})

    console = Console(file=io.StringIO(), width=200, height=5_000)
    console.print(picture.render())

    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count("readings") <= 101
    assert "motor-499" in shown
    assert "motor-1 " in shown
    assert "motor-9 " not in shown
