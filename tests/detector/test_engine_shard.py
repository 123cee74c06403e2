"""The shard: routing, keys, versions, operators' updates, snapshots, and the pure step."""

import json
import linecache
from typing import Any

import pytest

from tests.detector.bodies import detector_model, event, message, reset_timer, set_timer, set_variable, sns, state
from wheeltapper.detector.compiler import generated_source
from wheeltapper.detector.dedup import RecentIds
from wheeltapper.detector.engine import Engine, step
from wheeltapper.detector.model import read_detector_model
from wheeltapper.detector.plan import Plan, make_plan
from wheeltapper.detector.runtime import Message, Shard, value_of
from wheeltapper.detector.settings import DEFAULTS, STRICT
from wheeltapper.detector.state import DetectorState, decode_state
from wheeltapper.detector.trace import render, summary
from wheeltapper.errors import DefinitionError

COUNT = event("c", "currentInput('In')", set_variable("n", "$variable.n + 1"))
COUNTER = detector_model(state("A", enter=[event("i", None, set_variable("n", "0"))], events=[COUNT]))
HEARTBEAT = detector_model(
    state(
        "Normal",
        enter=[event("start", None, set_timer("awake", 300))],
        events=[event("beat", "currentInput('In')", reset_timer("awake"))],
        transitions=[event("silent", 'timeout("awake")', to="Offline")],
    ),
    state(
        "Offline", enter=[event("tell", None, sns())], transitions=[event("back", "currentInput('In')", to="Normal")]
    ),
    name="heartbeat",
)


def detector(shard: Shard, key: str = "k", model: str = "m") -> DetectorState:
    exported = shard.export(model, key)
    assert isinstance(exported, DetectorState)
    return exported


def loaded(*models: dict[str, Any], **options: Any) -> Shard:
    shard = Shard(**options)
    for model in models:
        shard.load(model)
    return shard


@pytest.mark.parametrize(
    ("key", "payload", "wanted"),
    [
        ("id", {"id": "a-b_c:1"}, ["a-b_c:1"]),
        ("id", {"id": 42}, ["42"]),
        ("id", {"id": 2.5}, []),
        ("id", {"id": True}, ["true"]),
        ("id", {"id": None}, []),
        ("id", {"id": ""}, []),
        ("id", {"id": ["a"]}, []),
        ("id", {"id": {"a": 1}}, []),
        ("id", {"id": "ä"}, []),
        ("id", {"id": "x" * 129}, []),
        ("id", {}, []),
        ("p.`my dev`", {"p": {"my dev": "x"}}, ["x"]),
        ("p.dev", {"p": "x"}, []),
        (None, {}, [""]),
    ],
)
def test_the_key_decides_which_detector_a_message_is_for(key: str | None, payload: Any, wanted: list[str]) -> None:
    shard = loaded({**COUNTER, "key": key})

    for _ in range(2):
        shard.put(Message("In", payload), 0.0)

    assert shard.keys("m") == wanted
    assert [state.variables["n"] for state in shard.detectors("m")] == [2] * len(wanted)  # type: ignore[union-attr]


def test_a_message_goes_to_every_model_that_reads_its_input_in_the_order_of_loading() -> None:
    other = {**COUNTER, "detectorModelName": "other"}
    shard = loaded(COUNTER, HEARTBEAT, other)

    outcomes = shard.put(message(), 0.0)

    assert [outcome.model for outcome in outcomes] == ["m", "heartbeat", "other"]
    assert shard.routing("In") == ["m", "heartbeat", "other"]
    assert shard.routing("Else") == []
    assert list(shard.put(message("Else"), 1.0)) == []


def test_a_new_version_forgets_the_detectors_of_the_old_one_and_their_timers() -> None:
    shard = loaded(HEARTBEAT)
    shard.put(message(), 0.0)

    shard.load(HEARTBEAT, "2")

    assert shard.keys("heartbeat") == []
    assert shard.advance(1000.0) == []
    (created,) = shard.put(message(), 1001.0)
    assert (created.created, created.version) == (True, "2")


def test_keys_can_be_asked_for_by_the_state_their_detectors_are_in() -> None:
    shard = loaded(HEARTBEAT)
    shard.put(message(id="a"), 0.0)
    shard.put(message(id="b"), 200.0)
    shard.advance(400.0)

    found = [shard.keys("heartbeat", state) for state in ("Normal", "Offline", "Nowhere", None)]

    assert found == [["b"], ["a"], [], ["a", "b"]]


def test_a_faulty_new_version_leaves_the_old_one_running() -> None:
    shard = loaded(COUNTER)
    shard.put(message(), 0.0)

    with pytest.raises(DefinitionError):
        shard.load({**COUNTER, "key": "a b c"})

    assert shard.keys("m") == ["k"]


def test_unloading_ends_routing_and_timers() -> None:
    shard = loaded(HEARTBEAT)
    shard.put(message(), 0.0)

    shard.unload("heartbeat")
    shard.unload("heartbeat")

    assert shard.advance(1000.0) == []
    assert list(shard.put(message(), 1001.0)) == []


def test_a_heartbeat_that_beats_on_keeps_one_entry_in_the_heap() -> None:
    shard = loaded(HEARTBEAT)

    for second in range(250):
        shard.put(message(), float(second))

    assert len(shard._heap) == 1
    assert shard.advance(548.9) == []
    (offline,) = shard.advance(549.0)
    assert (offline.state, offline.time_ms, offline.values) == ("Offline", 549_000, {'timeout("awake")': True})


def test_an_operators_update_replaces_state_variables_and_timers_and_keeps_inputs() -> None:
    shard = loaded(HEARTBEAT)
    shard.put(message(v=1), 0.0)

    shard.update_detector("heartbeat", "k", "Offline", {"new": '"x"', "n": "-2.5"}, {"own timer": 30}, 10.4)

    after = detector(shard, model="heartbeat")
    assert (after.state, after.variables) == ("Offline", {"new": "x", "n": -2.5})
    assert [(timer.name, timer.due) for timer in after.timers] == [("own timer", 40.0)]
    assert shard.advance(1000.0) == []
    assert [timer.status for timer in detector(shard, model="heartbeat").timers] == ["pending"]


def test_an_update_of_an_unknown_detector_creates_it_and_of_an_unknown_state_is_refused() -> None:
    shard = loaded(HEARTBEAT)

    shard.update_detector("heartbeat", "new", "Offline", {}, {}, 1.0)

    assert detector(shard, "new", "heartbeat").state == "Offline"
    for wrong in (
        ("heartbeat", "k", "Nowhere", {}, {}),
        ("heartbeat", "k", "Normal", {"x": "1 + 1"}, {}),
        ("heartbeat", "k", "Normal", {}, {"t": 0}),
        ("missing", "k", "Normal", {}, {}),
    ):
        with pytest.raises(DefinitionError):
            shard.update_detector(*wrong, 1.0)  # type: ignore[arg-type]
    assert shard.keys("heartbeat") == ["new"]


def test_a_deleted_detector_is_forgotten_with_its_timers_and_made_anew_by_a_message() -> None:
    shard = loaded(HEARTBEAT, track=True)
    shard.put(message(), 0.0)
    shard.take_touched()

    assert shard.delete_detector("heartbeat", "k")
    assert not shard.delete_detector("heartbeat", "k")
    assert shard.take_touched() == [("heartbeat", "k")]
    assert shard.advance(1000.0) == []
    assert shard.put(message(), 1001.0)[0].created


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"a\\"b\\\\c\\nd\'${1}"', "a\"b\\c\nd'${1}"),
        ("-3", -3),
        ("2.5", 2.5),
        ("-0.5", -0.5),
        ("true", True),
        ("0", 0),
        ("1e+300", 1e300),
    ],
)
def test_values_are_read_from_the_wire_of_detectors_with_their_types(text: str, value: Any) -> None:
    read = value_of(text, "x")

    assert (read, type(read)) == (value, type(value))


def test_a_snapshot_restores_state_timers_inputs_and_ids() -> None:
    shard, other = loaded(HEARTBEAT, COUNTER), loaded(HEARTBEAT, COUNTER)
    for key in "abc":
        shard.put(message(id=key), 5.0)
    shard.advance(305.0)
    shard.put(message(id="b"), 310.0)

    other.restore(shard.snapshot())

    assert other.snapshot() == shard.snapshot()
    assert other.next_timer() == 610.0
    for now in (400.0, 900.0):
        assert other.put(message(id="b"), now) == shard.put(message(id="b"), now)


def test_a_detector_moves_from_shard_to_shard_alone() -> None:
    shard, other = loaded(HEARTBEAT), loaded(HEARTBEAT)
    shard.put(message(id="a"), 5.0)
    shard.put(message(id="b"), 6.0)

    dumped = shard.dump("heartbeat", "a")
    assert dumped is not None
    other.insert(dumped)
    other.insert(dumped)

    assert other.keys("heartbeat") == ["a"]
    assert other.advance(305.0) == shard.advance(305.0)
    assert shard.dump("heartbeat", "none") is None


@pytest.mark.parametrize(
    "state",
    [b"{}", b"not json", b'{"type":"detector","format":2}', b'{"type":"alarm","model":"m"}'],
)
def test_a_state_that_is_none_is_refused(state: bytes) -> None:
    with pytest.raises(DefinitionError):
        loaded(COUNTER).insert(state)


def test_a_state_of_a_later_format_asks_for_an_update() -> None:
    shard = loaded(COUNTER)
    shard.put(message(), 0.0)
    later = (shard.dump("m", "k") or b"").replace(b'"format":1', b'"format":99')

    with pytest.raises(DefinitionError, match="update wheeltapper"):
        decode_state(later)


def test_touched_detectors_are_told_once() -> None:
    shard = loaded(HEARTBEAT, track=True)
    shard.put(message(id="a"), 0.0)
    shard.put(message(id="b"), 1.0)
    shard.put(message(id="a"), 2.0)

    assert shard.take_touched() == [("heartbeat", "a"), ("heartbeat", "b")]
    assert shard.take_touched() == []
    shard.advance(301.0)
    assert shard.take_touched() == [("heartbeat", "b")]


def test_inputs_that_do_not_exist_are_refused_where_the_inputs_are_known() -> None:
    with pytest.raises(DefinitionError, match="contains reference to Input 'In' that does not exist"):
        Shard().load(COUNTER, inputs={"Other": []})


def test_undeclared_attributes_are_visible_unless_the_settings_say_otherwise() -> None:
    model = detector_model(
        state("A", events=[event("e", "$input.In.obj.x == 1 && $input.In.y == 2", set_variable("seen", "true"))])
    )
    lenient, strict = Shard(), Shard(STRICT)
    for shard in (lenient, strict):
        shard.load(model, inputs={"In": ["obj"]})
        shard.put(message(obj={"x": 1}, y=2), 0.0)

    assert detector(lenient).variables == {"seen": True}
    assert detector(strict).variables == {}
    assert detector(strict).inputs == {"$input.In.obj.x": 1}


def test_a_definition_is_kept_verbatim() -> None:
    plan = Shard().load(HEARTBEAT)

    assert plan.model.source is HEARTBEAT


def test_the_hash_depends_on_what_decides_and_on_nothing_else() -> None:
    def hash_of(body: dict[str, Any]) -> str:
        return make_plan(read_detector_model(body)).hash

    shuffled = dict(reversed(HEARTBEAT.items()))

    assert hash_of({**shuffled, "detectorModelDescription": "d"}) == hash_of(HEARTBEAT)
    assert hash_of({**HEARTBEAT, "key": None}) != hash_of(HEARTBEAT)
    assert hash_of({**HEARTBEAT, "evaluationMethod": "SERIAL"}) != hash_of(HEARTBEAT)


def test_a_step_is_a_function_of_what_it_is_given() -> None:
    plan = make_plan(read_detector_model(HEARTBEAT))
    engine = Engine(plan)

    first, _, created = step(engine, None, message(message_id="m1"), 5.0, key="k")
    before = first.export()
    second, actions, (trace,) = step(engine, first, "awake", 305.0)

    assert first.export() == before
    assert second.export().state == "Offline"
    assert [action.type for action in actions] == ["sns"]
    assert len(created) == 2
    assert (trace.from_state, trace.state, trace.trigger.timer_name) == ("Normal", "Offline", "awake")


def test_a_trace_says_what_was_evaluated_skipped_and_changed() -> None:
    model = detector_model(
        state(
            "A",
            enter=[event("i", None, set_variable("n", "0"))],
            events=[event("e", "$input.In.v > 5 && $variable.n == 0", set_variable("n", "$input.In.v * 2"))],
            transitions=[
                event("first", "$input.In.v == 7 || $variable.n > 1", to="B"),
                event("second", "true", to="A"),
            ],
        ),
        state("B", enter=[event("in", "!$input.In.no", sns())]),
    )
    shard = loaded(model)

    _, outcome = shard.put(message(message_id="m1", v=7), 1.0, trace=True)

    trace = outcome.trace
    entry = summary(trace)
    assert entry["conditionEvaluationResults"] == [
        {"result": "True", "eventName": "e", "state": "A", "lifeCycle": "OnInput", "hasTransition": False},
        {"result": "True", "eventName": "first", "state": "A", "lifeCycle": "OnInput", "hasTransition": True},
        {
            "result": "Skipped",
            "eventName": "second",
            "state": "A",
            "lifeCycle": "OnInput",
            "hasTransition": True,
            "resultDetails": "Skipped due to transition from first event",
        },
        {
            "result": "False",
            "eventName": "in",
            "state": "B",
            "lifeCycle": "OnEnter",
            "hasTransition": False,
            "resultDetails": "The condition has no valid Boolean value",
        },
    ]
    assert (entry["initialVariables"], entry["finalVariables"]) == ({"n": 0}, {"n": 14})
    assert json.loads(entry["message"]) == {"id": "k", "v": 7}
    text = render(trace)
    assert "$input.In.v > 5 && $variable.n == 0 = true" in text
    assert "$variable.n > 1 = not evaluated" in text
    assert "$input.In.no = undefined" in text
    assert "second (transition): Skipped due to transition from first" in text
    assert text.endswith("└─ state A → B")


def test_tracing_does_not_change_what_happens() -> None:
    plain, traced = loaded(HEARTBEAT), loaded(HEARTBEAT)
    for now in (0.0, 200.0, 700.0, 1200.0):
        plain.put(message(), now)
        traced.put(message(), now, trace=True)

    assert plain.snapshot() == traced.snapshot()


def test_generated_functions_can_be_read_in_a_debugger() -> None:
    shard = loaded(HEARTBEAT)
    shard.put(message(), 0.0)
    plan = shard.plan("heartbeat")
    assert isinstance(plan, Plan)

    handler = shard._models["heartbeat"].instances["k"].on[0]

    shown = "".join(linecache.getlines(handler.__code__.co_filename))
    assert "# state 'Normal' on a message of 'In'" in shown
    assert shown in generated_source(plan, DEFAULTS)


def test_repeats_of_a_message_id_are_ignored_within_one_scope_for_five_minutes() -> None:
    recent = RecentIds(300.0)

    assert recent.accept("In", "a", 0.0)
    assert not recent.accept("In", "a", 100.0)
    assert recent.accept("Other", "a", 100.0)
    assert recent.accept("In", "", 100.0) and recent.accept("In", "", 100.0)
    other = RecentIds(300.0)
    other.restore(recent.export())
    assert not other.accept("In", "a", 299.0)
    assert other.accept("In", "a", 301.0)


def test_remembered_ids_are_bounded() -> None:
    recent = RecentIds(300.0, limit=10)

    for number in range(1000):
        recent.accept("In", str(number), 0.0)

    assert len(recent.export()) <= 11
