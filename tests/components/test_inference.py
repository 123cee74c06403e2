"""What becomes of readings: each irregularity has one treatment."""

import contextlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.components.memory_gateway import START_MS, MemoryGateway
from tests.components.small_models import write_small_model
from wheeltapper.errors import ModelError, UnavailableError
from wheeltapper.messages import Prediction
from wheeltapper_components.settings import (
    ModelSettings,
    OrderSettings,
    OutputSettings,
    StoreSettings,
    TopicSettings,
    TriggerSettings,
    WatchSettings,
)

Make = Callable[..., MemoryGateway]


@pytest.fixture
def make(tmp_path: Path) -> Any:
    gateways: list[MemoryGateway] = []
    write_small_model(tmp_path / "model")

    def make(**settings: Any) -> MemoryGateway:
        gateways.append(MemoryGateway(tmp_path, **settings))
        return gateways[-1]

    yield make
    for gateway in gateways:
        gateway.close()


def test_a_reading_becomes_a_prediction_that_decodes_as_one(make: Make) -> None:
    gateway = make()

    gateway.send(0, 1, motorType="pump", motorID="17")
    gateway.run()

    payload = next(payload for topic, payload in gateway.local.published if topic == "wt/motor-1/prediction")
    prediction = msgspec.json.decode(payload, type=Prediction)
    assert prediction.reading_id == "m1"
    assert prediction.message_id == "m1@motor-1.0.0"
    assert prediction.attributes == {"motorType": "pump", "motorID": "17"}
    assert sum(item.share for item in prediction.contributions) == pytest.approx(1.0, abs=1e-5)
    assert json.loads(payload)["motorID"] == "17"
    assert gateway.device.unacknowledged == 0


def test_nothing_is_said_while_the_model_warms_up(make: Make) -> None:
    gateway = make()

    gateway.send(0)
    gateway.run()

    assert gateway.heard() == []
    assert gateway.inference.counts.warming == 1


def test_a_reading_of_a_batch_that_failed_is_scored_when_it_comes_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("unforeseen")

    gateway = make()
    gateway.send(0, 1)
    with monkeypatch.context() as failing:
        failing.setattr(gateway.inference._memory, "states", fail)
        with pytest.raises(RuntimeError):
            gateway.run()

    gateway.local.go_away()
    gateway.local.come_back()
    gateway.run()

    assert gateway.scored() == ["m1"]


@pytest.mark.parametrize("period_s", [0.0, "card"])
def test_readings_of_a_batch_that_failed_are_scored_as_if_it_had_not(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, period_s: Any
) -> None:
    models = [
        ModelSettings(things=["*"], folder=write_small_model(tmp_path / "paced", period_ms=1000), period_s=period_s)
    ]
    gateway, straight = make(models=models), MemoryGateway(tmp_path / "other", models=models)
    for each in (gateway, straight):
        each.send(*range(10))
        each.run()
        each.send(*range(10, 20))
    straight.run()

    def fail(*_: object) -> None:
        raise RuntimeError("unforeseen")

    with monkeypatch.context() as failing:
        failing.setattr(gateway.links, "put", fail)
        with pytest.raises(RuntimeError):
            gateway.run()
    gateway._local_client.redeliver()
    gateway.run()

    told = [[(word["reading_id"], word["score"]) for word in each.heard()] for each in (gateway, straight)]
    straight.close()
    assert told[0] == told[1]
    assert len(told[0]) == 19


@pytest.mark.parametrize("again", [True, False], ids=["for good", "once"])
def test_a_reading_that_fails_unforeseen_holds_up_no_other_of_its_batch(
    make: Make, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    gateway = make()
    gateway.send(0)
    gateway.run()
    place = gateway.inference._memory.timeline.place
    failures: list[int] = []

    def fail(thing: str, time_ms: int, *, timed: bool) -> Any:
        if time_ms == 2_000 and (again or not failures):
            failures.append(time_ms)
            raise RuntimeError("unforeseen")
        return place(thing, time_ms, timed=timed)

    monkeypatch.setattr(gateway.inference._memory.timeline, "place", fail)
    gateway.send(1, 2, 3, 3, 4)
    with pytest.raises(RuntimeError) if again else contextlib.nullcontext():
        gateway.run()
    gateway.run()

    assert gateway.scored() == [f"m{number}" for number in (1, 2, 3, 4) if number != 2 or not again]
    assert gateway._local_client.unacknowledged == again
    assert gateway.inference.counts.predictions == 4 - again


def test_what_comes_twice_while_it_is_held_is_acknowledged_when_it_is_on_disk_and_no_sooner(make: Make) -> None:
    gateway = make(order=OrderSettings(hold_ms=500))
    gateway.send(0, 1)
    gateway.run()
    gateway._local_client.redeliver()  # the connection was lost and is there again
    gateway.run()
    held = gateway._local_client.unacknowledged

    gateway.clock.advance(0.6)
    gateway.run()

    assert (held, gateway._local_client.unacknowledged) == (2, 0)
    assert gateway.scored() == ["m1"]
    assert gateway.inference.counts.repeats == 2


def test_a_repeated_reading_is_not_scored_again(make: Make) -> None:
    gateway = make()

    gateway.send(0, 1, 1, 2, 0)
    gateway.run()
    gateway.send(1, 2)
    gateway.run()

    assert gateway.scored() == ["m1", "m2"]
    assert gateway.inference.counts.repeats == 4


def test_a_repeat_is_known_after_a_restart_and_the_model_goes_on_where_it_was(make: Make, tmp_path: Path) -> None:
    gateway = make()
    gateway.send(0, 1, 2)
    gateway.run()
    straight = MemoryGateway(tmp_path / "other", models=gateway.settings.models)
    straight.send(0, 1, 2, 3)
    straight.run()

    gateway.close()
    gateway.open()
    gateway.send(2, 3)
    gateway.run()

    assert gateway.scored() == ["m1", "m2", "m3"]
    assert gateway.heard()[-1]["score"] == straight.heard()[-1]["score"]
    straight.close()


def test_what_is_not_on_disk_is_not_acknowledged_and_comes_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = make()
    gateway.send(0)
    gateway.run()
    full = UnavailableError("disk full")

    def refuse(*_: Any, **__: Any) -> None:
        gateway.inference._stop.set()  # the process is told to end while the disk is full
        raise full

    monkeypatch.setattr(gateway.links.first.outbox, "put_and_wait", refuse)
    gateway.send(1)
    gateway.run()
    assert gateway.scored() == []

    monkeypatch.undo()
    gateway.close()
    gateway.open()
    gateway.run()

    assert gateway.scored() == ["m1"]


def test_while_the_disk_is_full_health_says_so_and_goes_on_being_told(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = make(health_s=5.0)
    gateway.send(0)
    gateway.run()
    keep, tries = gateway.links.first.outbox.put_and_wait, []

    def refuse(*put: Any, **states: Any) -> None:
        tries.append(gateway.clock.time_ms())
        if len(tries) < 13:
            raise UnavailableError("disk full")
        keep(*put, **states)

    monkeypatch.setattr(gateway.links.first.outbox, "put_and_wait", refuse)
    gateway.send(1)
    gateway.run()
    gateway.inference.pulse.beat()
    gateway.run()

    told = [
        (word["status"], "predictions wait in memory: disk full" in word["detail"]) for word in gateway.heard("health")
    ]
    assert told == [("degraded", True)] * 3 + [("ready", False)]
    assert gateway.scored() == ["m1"]


def test_a_batch_that_failed_unforeseen_is_told_in_the_health(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = make()

    def fail(*_: object) -> None:
        gateway.inference._stop.set()
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(gateway.inference, "work", fail)
    gateway.inference._run()
    monkeypatch.undo()

    well, detail = gateway.inference._condition()
    assert not well
    assert "batches that failed since the start: 1; see the log" in detail


def test_a_reading_whose_batch_failed_is_no_repeat_when_it_comes_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = make()
    gateway.send(0)
    gateway.run()

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("not foreseen")

    monkeypatch.setattr(gateway.links, "put", fail)
    gateway.send(1)
    with pytest.raises(RuntimeError):
        gateway.run()
    monkeypatch.undo()
    gateway._local_client.redeliver()
    gateway.run()

    assert gateway.scored() == ["m1"]
    assert gateway.inference.counts.repeats == 0


def test_a_late_reading_is_acknowledged_and_not_scored(make: Make) -> None:
    gateway = make(max_batch=1)

    gateway.send(0, 5, 3, 6)
    gateway.run()

    assert gateway.scored() == ["m5", "m6"]
    assert gateway.inference.counts.late == 1


def test_readings_that_wait_together_are_scored_in_the_order_in_which_they_were_taken(make: Make) -> None:
    gateway = make()

    gateway.send(0, 3, 1, 2)
    gateway.run()

    assert gateway.scored() == ["m1", "m2", "m3"]


@pytest.mark.parametrize("together", [True, False], ids=["a backlog", "one by one"])
def test_readings_by_a_clock_that_was_set_come_in_the_order_in_which_they_arrive(make: Make, together: bool) -> None:
    gateway = make()
    year_ms = 31_536_000_000

    for number in range(24):
        off_ms = (0, year_ms, 0, -year_ms)[number // 6]
        gateway.send(number, time_ms=2 * year_ms + off_ms + 1_000 * number)
        if not together:
            gateway.run()
    gateway.run()

    assert gateway.scored() == [f"m{number}" for number in range(24) if number not in (0, 12, 18)]
    assert gateway.inference.counts.restarts == 2


def test_with_a_hold_time_a_reading_waits_for_earlier_ones(make: Make) -> None:
    gateway = make(order=OrderSettings(hold_ms=500), max_batch=1)

    gateway.send(0, 2)
    gateway.run()
    gateway.clock.advance(0.3)
    gateway.send(1)
    gateway.run()
    assert gateway.scored() == []
    gateway.clock.advance(0.6)
    gateway.run()

    assert gateway.scored() == ["m1", "m2"]


def test_a_clock_that_was_set_back_restarts_the_window(make: Make) -> None:
    gateway = make(order=OrderSettings(late_ms=10_000))

    gateway.send(100, 101)
    gateway.run()
    gateway.send(1, 2, 3)
    gateway.run()

    assert gateway.scored() == ["m101", "m2", "m3"]
    assert gateway.inference.counts.restarts == 1


def test_one_reading_from_the_future_does_not_silence_a_thing(make: Make) -> None:
    gateway = make()

    gateway.send(0, 1)
    gateway.send(2, time_ms=4_000_000_000_000)
    gateway.send(3, 4, 5)
    gateway.run()
    gateway.send(6, 7, 8)
    gateway.run()

    assert gateway.scored()[-2:] == ["m7", "m8"]


def test_a_long_pause_restarts_the_window_where_the_settings_say_so(make: Make) -> None:
    gateway = make(order=OrderSettings(gap_ms=60_000))

    gateway.send(0, 1, 600, 601)
    gateway.run()

    assert gateway.scored() == ["m1", "m601"]


@pytest.mark.parametrize(
    "value",
    [
        *("null", "NaN", "-Infinity", "nan", "-inf", "true", '"broken"'),
        *("1e39", "1e999", "-1e999", "1" + "0" * 25, "1" + "0" * 400, "1" + "0" * 5000),
    ],
    ids=lambda value: value[:30],
)
def test_a_value_that_is_no_number_or_none_that_fits_hinders_no_score(make: Make, value: str) -> None:
    gateway = make(output=OutputSettings(passthrough=True))
    gateway.send(0)

    gateway.send_raw(b'{"message_id":"m1","time_ms":1000,"TT01":' + value.encode() + b',"TT02":4.0}')
    gateway.send(2)
    gateway.run()

    assert gateway.scored() == ["m1", "m2"]
    assert all(prediction["score"] < 1e26 for prediction in gateway.heard())


def test_a_reading_without_any_sensor_of_the_model_is_not_scored(make: Make) -> None:
    gateway = make()

    gateway.send_raw(b'{"message_id":"m0","PT01":1.0}')
    gateway.run()

    assert gateway.inference.counts.empty == 1
    assert gateway.device.unacknowledged == 0


def test_a_subscription_that_the_broker_refuses_is_told_in_the_health(make: Make) -> None:
    gateway = make()
    gateway.local.refused_filters.add("wt/+/reading")

    gateway.inference.pulse.beat()
    gateway.run()

    said = gateway.heard("health")[-1]
    assert said["status"] == "degraded"
    assert "refused to subscribe to wt/+/reading" in said["detail"]


DEEP = b"[" * 50_000 + b"]" * 50_000
NO_READINGS = [
    *(b"", b"[]", b"\xff", b'{"\xff": 1}', b'{"TT01": 1, "note": "\xff"}', b'{"TT01": 1, "note": "\\ud800"}'),
    *(b'{"TT01": {"deep": 1}}', b'{"TT01": ' + DEEP + b"}", b'{"TT02": NaN, "TT01": ' + DEEP + b"}"),
    *(b'{"thing": "a/b", "TT01": 1}', b'{"TT01": 1, "time_ms": NaN}', b'{"TT01": 1,'),
]


@pytest.mark.parametrize("payload", NO_READINGS, ids=lambda payload: repr(payload[:30]))
def test_what_is_no_reading_is_counted_and_dropped(make: Make, payload: bytes) -> None:
    gateway = make()

    gateway.send_raw(payload)
    gateway.send(0, 1)
    gateway.run()

    assert gateway.inference.counts.malformed == 1
    assert gateway.scored() == ["m1"]
    assert gateway._local_client.unacknowledged == 0


@pytest.mark.parametrize("payload", [b'{"request_id": "\xff"}', b'{"rows": ' + DEEP + b"}"], ids=["no utf-8", "deep"])
def test_a_trigger_that_cannot_be_read_asks_for_the_default_and_hinders_nothing(make: Make, payload: bytes) -> None:
    gateway = make()
    gateway.send(0, 1)
    gateway.run()

    gateway.device.publish("wt/motor-1/trigger/infer", payload)
    gateway.send(2)
    gateway.run()

    assert "m2" in gateway.scored()
    assert gateway.heard("reply")[-1]["status"] == "done"
    assert gateway._local_client.unacknowledged == 0


def test_a_full_outbox_drops_the_oldest_and_says_so(make: Make) -> None:
    gateway = make(store=StoreSettings(max_bytes=3_000, flush=False))
    gateway.send(0)
    gateway.run()
    gateway.cloud.go_away()

    for number in range(1, 30):
        gateway.send(number)
        gateway.run()
    gateway.inference.pulse.beat()
    gateway.run()
    gateway.cloud.come_back()
    gateway.run()

    in_cloud = [prediction["reading_id"] for prediction in gateway.heard(broker="cloud")]
    assert in_cloud == [f"m{number}" for number in range(30 - len(in_cloud), 30)]
    assert 0 < len(in_cloud) < 29
    assert gateway.heard("health")[-1]["status"] == "degraded"
    assert f"{29 - len(in_cloud)} messages dropped" in gateway.heard("health")[-1]["detail"]


NUMBERS = st.integers() | st.floats() | st.sampled_from([1e308, -1e39, 2**64, -(2**70), 10**400])
VALUES = NUMBERS | st.none() | st.booleans() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
NAMES = st.sampled_from(["TT01", "TT02", "time_ms", "message_id", "thing", "motorType", "score"])


@settings(
    max_examples=15,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(st.lists(st.dictionaries(NAMES, VALUES).map(json.dumps).map(str.encode) | st.binary(max_size=40), max_size=6))
def test_whatever_arrives_is_acknowledged_and_harms_no_later_reading(tmp_path: Path, payloads: list[bytes]) -> None:
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    write_small_model(folder / "model")
    gateway = MemoryGateway(folder, output=OutputSettings(passthrough=True), order=OrderSettings(late_ms=0))
    for payload in payloads:
        gateway.send_raw(payload)
    gateway.run()
    before = gateway.inference.counts.predictions

    gateway.send(1_000_000, 1_000_001, 1_000_002, thing="motor-2")
    gateway.run()

    assert gateway._local_client.unacknowledged == 0
    assert gateway.inference.counts.predictions >= before + 2
    assert all(len(payload) <= 4_000 for topic, payload in gateway.local.published if topic.endswith("/prediction"))
    gateway.close()


def test_a_time_beyond_all_numbers_is_dropped_and_acknowledged(make: Make) -> None:
    gateway = make()

    gateway.send_raw(b'{"TT01": 1.0, "time_ms": 1' + b"0" * 400 + b"}")
    gateway.run()

    assert gateway.inference.counts.malformed == 1
    assert gateway._local_client.unacknowledged == 0


@pytest.mark.parametrize("together", [True, False], ids=["a backlog", "one by one"])
@pytest.mark.parametrize("back_s", [5, 30, 3600])
def test_readings_without_a_time_are_scored_as_they_come_while_the_gateways_clock_is_set_back(
    make: Make, back_s: int, together: bool
) -> None:
    gateway = make()

    for number in range(20):
        if number == 10:
            gateway.clock.set_time_ms(gateway.clock.time_ms() - 1_000 * back_s)
        gateway.send_raw(b'{"message_id": "m%d", "TT01": 50.0, "TT02": 1.0}' % number)
        gateway.local.deliver()
        if not together:
            gateway.run()
        gateway.clock.advance(1.0)
    gateway.run()

    assert gateway.scored() == [f"m{number}" for number in range(1, 20)]
    assert (gateway.inference.counts.late, gateway.inference.counts.restarts) == (0, 0)


def test_a_reading_without_an_id_is_never_taken_for_a_repeat(make: Make) -> None:
    gateway = make()

    for _ in range(3):
        gateway.send_raw(b'{"TT01": 1.0}')
    gateway.run()

    assert len(gateway.heard()) == 2
    assert gateway.heard()[0]["reading_time_ms"] == START_MS


def test_a_thing_is_served_by_the_first_model_that_names_it(make: Make, tmp_path: Path) -> None:
    write_small_model(tmp_path / "special", name="special")
    gateway = make(
        models=[
            ModelSettings(things=["motor-9"], folder=tmp_path / "special"),
            ModelSettings(things=["motor-*"], folder=tmp_path / "model"),
        ]
    )

    for thing in ("motor-1", "motor-9", "robot-1"):
        gateway.send(0, 1, thing=thing)
    gateway.run()

    assert {p["thing"]: p["model"]["name"] for p in gateway.heard()} == {"motor-1": "motor", "motor-9": "special"}
    assert gateway.inference.counts.unassigned == 2


def test_seeds_topics_and_payloads_can_be_used(make: Make) -> None:
    topics = TopicSettings(
        reading="pollution/data/ingest", prediction="iml_iotevents_data", trigger_infer="pollution/data/infer/trigger"
    )
    gateway = make(
        topics=topics,
        default_thing="motor-5",
        output=OutputSettings(fields={"prediction": "anomaly"}, passthrough=True),
    )
    for value in (1.0, 400.0):
        gateway.device.publish("pollution/data/ingest", b'{"motorID": "5", "TT01": %.1f}' % value)
    gateway.device.publish("pollution/data/infer/trigger", b"")

    gateway.run()

    found = [json.loads(payload) for topic, payload in gateway.local.published if topic == "iml_iotevents_data"]
    assert found[0]["prediction"] == 1
    assert found[0]["TT01"] == 400.0
    assert found[0]["motorID"] == "5"
    replies = [json.loads(p) for topic, p in gateway.local.published if topic == "pollution/data/infer/trigger/reply"]
    assert [reply["status"] for reply in replies] == ["done"]


def test_a_trigger_scores_the_last_window_again_and_leaves_the_live_state_alone(make: Make) -> None:
    gateway = make()
    gateway.send(*range(20))
    gateway.run()

    gateway.device.publish("wt/motor-1/trigger/infer", b'{"request_id": "r7", "rows": 5}')
    gateway.run()
    gateway.send(20)
    gateway.run()

    reply = gateway.heard("reply")[0]
    assert (reply["request_id"], reply["status"], reply["result"]["rows"]) == ("r7", "done", 5)
    assert gateway.heard()[-2]["message_id"].endswith("#r7")
    assert gateway.scored()[-1] == "m20"
    assert gateway.inference.counts.scored == 21


@pytest.mark.parametrize(
    ("thing", "payload", "said"),
    [
        ("motor-1", b"", "no reading"),
        ("robot-1", b"", "no model"),
        ("motor-1", b"not JSON", "no reading"),
        ("motor-1", b'{"rows": "many"}', "no trigger"),
        ("motor-1", b'{"rows": 0}', "1 or more"),
    ],
)
def test_a_trigger_that_cannot_be_served_is_refused_with_the_reason(
    make: Make, thing: str, payload: bytes, said: str
) -> None:
    gateway = make(trigger=TriggerSettings(publish=False))

    gateway.device.publish(f"wt/{thing}/trigger/infer", payload)
    gateway.run()

    reply = gateway.heard("reply")[0]
    assert reply["status"] == "refused"
    assert said in reply["detail"]


@pytest.mark.parametrize("payload", [b"", b"[1,2]", b'"go"', b"null", b"go!", b'{"seed": "003"}', b"\xff"])
def test_a_trigger_with_any_payload_asks_for_the_last_window(make: Make, payload: bytes) -> None:
    gateway = make()
    gateway.send(*range(30))
    gateway.run()

    gateway.device.publish("wt/motor-1/trigger/infer", payload)
    gateway.run()

    assert [reply["status"] for reply in gateway.heard("reply")] == ["done"]


def test_a_refused_trigger_is_answered_under_its_id(make: Make) -> None:
    gateway = make()

    gateway.device.publish("wt/motor-1/trigger/infer", b'{"rows": "many", "request_id": "r1"}')
    gateway.run()

    assert [reply["request_id"] for reply in gateway.heard("reply")] == ["r1"]


def test_a_missing_model_is_named_at_the_start(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        make(models=[ModelSettings(things=["*"], folder=tmp_path / "nowhere")])


def test_the_thing_unheard_for_the_longest_is_forgotten_in_memory_and_on_disk(make: Make) -> None:
    gateway = make(max_things=2)

    for number, thing in enumerate(("motor-1", "motor-2", "motor-1", "motor-3")):
        gateway.send(number, thing=thing)
        gateway.run()

    assert gateway.inference.things() == ["motor-1", "motor-3"]
    assert sorted(gateway.links.first.outbox.states("thing/")) == ["thing/motor-1", "thing/motor-3"]
    assert gateway.inference.counts.forgotten == 1
    gateway.close()
    gateway.open()
    assert sorted(gateway.inference.things()) == ["motor-1", "motor-3"]


def test_a_forgotten_thing_begins_as_a_new_one(make: Make) -> None:
    gateway = make(max_things=1)
    for thing in ("motor-1", "motor-2"):
        gateway.send(*range(10), thing=thing)
        gateway.run()

    gateway.send_raw(b'{"message_id": "again", "TT01": 60.0, "TT02": 1.0, "time_ms": 5000}', "motor-1")
    gateway.run()

    assert gateway.inference.counts.late == 0
    assert gateway.inference.things() == ["motor-1"]


def test_ids_are_forgotten_from_the_oldest_on(make: Make) -> None:
    gateway = make(order=OrderSettings(remember=3, late_ms=0), max_batch=1, watch=WatchSettings(history=2))

    gateway.send(*range(8))
    gateway.run()
    gateway.send(7, 6)
    gateway.run()

    assert gateway.inference.counts.repeats == 2
    assert len(gateway.inference._seen) == 3
