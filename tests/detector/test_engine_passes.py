"""What one pass does, rule by rule, in both ways of running a model."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.detector.bodies import Json, detector_model, event, message, reset_timer, set_timer, set_variable, sns, state
from wheeltapper.detector.payload import default_payload, payload_text
from wheeltapper.detector.runtime import Action, Outcome, Shard
from wheeltapper.detector.settings import STRICT, EngineSettings
from wheeltapper.detector.state import DetectorState

Loader = Callable[..., Shard]


@pytest.fixture(params=[False, True], ids=["compiled", "interpreted"])
def loaded(request: pytest.FixtureRequest) -> Loader:
    """Makes a shard with models in it."""

    def load(*models: Json, settings: EngineSettings | None = None) -> Shard:
        shard = Shard(settings or EngineSettings(), interpreted=request.param)
        for model in models:
            shard.load(model)
        return shard

    return load


def detector(shard: Shard, key: str = "k", model: str = "m") -> DetectorState:
    exported = shard.export(model, key)
    assert isinstance(exported, DetectorState)
    return exported


def running(shard: Shard, key: str = "k") -> dict[str, float]:
    return {timer.name: timer.due for timer in detector(shard, key).timers if timer.status == "running"}


def actions(outcomes: Any) -> list[Action]:
    return [action for outcome in outcomes for action in outcome.actions]


def test_creation_is_an_outcome_of_its_own_before_the_message_is_processed(loaded: Loader) -> None:
    shard = loaded(
        detector_model(
            state("A", enter=[event("in", None, sns())], transitions=[event("go", "$input.In.v > 1", to="B")]),
            state("B", enter=[event("in", None, sns())]),
        )
    )

    created, moved = shard.put(message(v=2, time_ms=None), 7.25)

    assert (created.created, created.from_state, created.state, created.event) == (True, "", "A", "")
    assert (moved.created, moved.from_state, moved.state, moved.event) == (False, "A", "B", "go")
    assert (moved.condition, moved.values) == ("$input.In.v > 1", {"$input.In.v": 2})
    assert [action.state for action in actions([created, moved])] == ["A", "B"]
    assert created.time_ms == 7250


def test_a_pass_that_shows_nothing_gives_no_outcome(loaded: Loader) -> None:
    shard = loaded(detector_model(state("A", events=[event("e", "$input.In.v > 1", set_variable("n", "1"))])))
    shard.put(message(v=0), 0.0)

    assert list(shard.put(message(v=5), 1.0)) == []
    assert detector(shard).variables == {"n": 1}


def test_values_of_a_transition_are_those_that_its_condition_saw(loaded: Loader) -> None:
    condition = "$variable.n > 1 && ($input.In.no == 1 || timeout('t') || true)"
    shard = loaded(
        detector_model(
            state(
                "A",
                enter=[event("i", None, set_variable("n", "2"))],
                events=[event("e", None, set_variable("n", "50"))],
                transitions=[event("t", condition, set_variable("n", "99"), to="B")],
            ),
            state("B"),
        )
    )

    outcomes = shard.put(message(), 0.0)

    assert outcomes[-1].values == {"$variable.n": 2, "$input.In.no": None, 'timeout("t")': False}
    assert detector(shard).variables == {"n": 99}


def test_timers_fire_in_order_of_expiry_then_name_each_in_its_own_pass(loaded: Loader) -> None:
    log = [
        event(name, f"timeout('{name}')", set_variable("log", f"$variable.log + '{name}'")) for name in ("b", "a", "c")
    ]
    start = event("i", None, set_variable("log", "''"), set_timer("b", 60), set_timer("a", 60), set_timer("c", 30))
    shard = loaded(detector_model(state("A", enter=[start], events=[*log, event("r", "currentInput('In')")])))
    shard.put(message(), 0.0)

    shard.advance(60.0)

    assert detector(shard).variables["log"] == "cab"


def test_a_timer_ends_at_a_whole_second(loaded: Loader) -> None:
    model = detector_model(
        state("A", enter=[event("i", None, set_timer("t", 1))], events=[event("r", "currentInput('In')")])
    )
    shard, exact = loaded(model), loaded(model, settings=EngineSettings(whole_second_timers=False))

    shard.put(message(), 10.7)
    exact.put(message(), 10.7)

    assert running(shard) == {"t": 11.0}
    assert running(exact) == {"t": 11.7}


def test_a_timer_that_restarts_itself_runs_at_every_due_time_unless_the_host_is_late(loaded: Loader) -> None:
    beat = event("b", "timeout('t')", reset_timer("t"), set_variable("n", "$variable.n + 1"))
    start = event("i", None, set_timer("t", 10), set_variable("n", "0"))
    model = detector_model(state("A", enter=[start], events=[beat, event("r", "currentInput('In')")]))
    punctual, late = loaded(model), loaded(model)
    for shard in (punctual, late):
        shard.put(message(), 0.0)

    punctual.advance(35.0)
    late.advance(35.0, late=True)

    assert (detector(punctual).variables, running(punctual)) == ({"n": 3}, {"t": 40.0})
    assert (detector(late).variables, running(late)) == ({"n": 1}, {"t": 45.0})


def test_a_put_runs_the_timers_that_are_due_first(loaded: Loader) -> None:
    shard = loaded(
        detector_model(
            state(
                "A",
                enter=[event("i", None, set_timer("t", 60))],
                transitions=[event("late", "timeout('t')", to="B")],
                events=[event("r", "currentInput('In')")],
            ),
            state("B", events=[event("e", "$input.In.v == 2", sns())]),
        )
    )
    shard.put(message(v=1), 0.0)

    outcomes = shard.put(message(v=2), 61.0)

    assert [(outcome.state, outcome.time_ms, len(outcome.actions)) for outcome in outcomes] == [
        ("B", 60_000, 0),
        ("B", 61_000, 1),
    ]


def test_an_expiry_is_seen_by_every_check_of_one_pass_and_by_none_after(loaded: Loader) -> None:
    twice = [
        event("one", "timeout('t')", set_variable("a", "true")),
        event("two", "timeout('t')", set_variable("b", "true")),
    ]
    start = event("i", None, set_timer("t", 5))
    model = detector_model(state("A", enter=[start], events=[*twice, event("r", "currentInput('In')")]))
    shard, strict = loaded(model), loaded(model, settings=EngineSettings(timeout_once_per_check=True))
    for each in (shard, strict):
        each.put(message(), 0.0)
        each.advance(5.0)

    assert detector(shard).variables == {"a": True, "b": True}
    assert detector(strict).variables == {"a": True}
    assert [timer.status for timer in detector(shard).timers] == ["checked"]


def test_an_undefined_left_side_does_not_keep_the_right_side_from_consuming_an_expiry(loaded: Loader) -> None:
    mixed = event("e", "$input.In.no > 1 && timeout('t')", sns())
    shard = loaded(detector_model(state("A", enter=[event("i", None, set_timer("t", 5))], events=[mixed])))
    shard.put(message(), 0.0)
    shard.advance(5.0)

    assert [timer.status for timer in detector(shard).timers] == ["checked"]


def test_resetting_an_expired_timer_restarts_it_and_clearing_forgets_it(loaded: Loader) -> None:
    shard = loaded(
        detector_model(
            state(
                "A",
                enter=[event("i", None, set_timer("t", 10))],
                events=[
                    event("r", "$input.In.do == 'reset'", reset_timer("t")),
                    event("c", "$input.In.do == 'clear'", {"clearTimer": {"timerName": "t"}}),
                ],
            )
        )
    )
    shard.put(message(), 0.0)
    shard.advance(20.0)

    shard.put(message(do="reset"), 30.0)
    assert running(shard) == {"t": 40.0}
    shard.put(message(do="clear"), 31.0)
    assert detector(shard).timers == []
    (failed,) = shard.put(message(do="reset"), 32.0)
    assert "timer 't' is not set" in failed.failures[0]


@pytest.mark.parametrize(
    ("duration", "wanted"),
    [
        ("90.9", 90),
        ("$input.In.v * 60", 120),
        ("'60'", None),
        ("0", None),
        ("-5", None),
        ("31622401", None),
        ("true", None),
    ],
)
def test_a_duration_is_rounded_down_or_refused(loaded: Loader, duration: str, wanted: int | None) -> None:
    action = {"setTimer": {"timerName": "t", "seconds": None, "durationExpression": duration}}
    shard = loaded(detector_model(state("A", events=[event("e", "currentInput('In')", action)])))

    outcomes = shard.put(message(v=2), 0.0)

    assert running(shard) == ({} if wanted is None else {"t": wanted})
    assert [len(outcome.failures) for outcome in outcomes] == ([0] if wanted else [0, 1])


def test_strict_settings_refuse_short_timers_when_they_run(loaded: Loader) -> None:
    shard = loaded(
        detector_model(state("A", events=[event("e", "currentInput('In')", set_timer("t", 59))])), settings=STRICT
    )

    outcomes = shard.put(message(), 0.0)

    assert running(shard) == {}
    assert "must be from 60" in outcomes[-1].failures[0]


@pytest.mark.parametrize("value", ["$input.In.no", "$input.In.null", "$input.In.obj", "1 / 0", "'${$input.In.no}'"])
def test_assigning_what_is_no_value_keeps_the_old_one_and_goes_on(loaded: Loader, value: str) -> None:
    deeds = event("e", "currentInput('In')", set_variable("n", value), set_variable("after", "1"))
    shard = loaded(detector_model(state("A", enter=[event("i", None, set_variable("n", "5"))], events=[deeds])))

    outcomes = shard.put(message(null=None, obj={"x": 1}), 0.0)

    assert detector(shard).variables == {"n": 5, "after": 1}
    assert "n stays as it was" in outcomes[-1].failures[0]


def external(shard: Shard, **payload: Any) -> Outcome:
    return shard.put(message(**payload), 1.5)[-1]


def one_action(loaded: Loader, action: Json) -> Shard:
    return loaded(detector_model(state("A", events=[event("e", "currentInput('In')", set_variable("v", "7"), action)])))


@pytest.mark.parametrize(
    ("action", "parameters", "payload"),
    [
        ({"sns": {"targetArn": "arn:aws:sns:x:t"}}, {"targetArn": "arn:aws:sns:x:t"}, None),
        ({"lambda": {"functionArn": "'f' + '${$variable.v}'"}}, {"functionArn": "f7"}, None),
        ({"iotTopicPublish": {"mqttTopic": "$aws/things/x"}}, {"mqttTopic": "$aws/things/x"}, None),
        ({"sqs": {"queueUrl": "https://q"}}, {"queueUrl": "https://q", "useBase64": False}, None),
        ({"sqs": {"queueUrl": "https://q", "useBase64": True}}, {"queueUrl": "https://q", "useBase64": True}, None),
        (
            {"firehose": {"deliveryStreamName": "s", "separator": "\n"}},
            {"deliveryStreamName": "s", "separator": "\n"},
            None,
        ),
        ({"iotEvents": {"inputName": "Other"}}, {"inputName": "Other"}, None),
        (
            {"dynamoDB": {"hashKeyField": "'h'", "hashKeyValue": "$input.In.id", "tableName": "'t'"}},
            {
                "hashKeyField": "h",
                "hashKeyValue": "k",
                "tableName": "t",
                "hashKeyType": "STRING",
                "operation": "INSERT",
                "payloadField": "payload",
            },
            None,
        ),
        (
            {"dynamoDBv2": {"tableName": "'t'", "payload": {"contentExpression": "'{}'", "type": "JSON"}}},
            {"tableName": "t"},
            "{}",
        ),
        (
            {
                "iotSiteWise": {
                    "propertyAlias": "'/a/${$input.In.id}'",
                    "propertyValue": {
                        "value": {"integerValue": "'12'"},
                        "timestamp": {"timeInSeconds": "1.0 * 100", "offsetInNanos": "'5'"},
                        "quality": "'GOOD'",
                    },
                }
            },
            {
                "propertyAlias": "/a/k",
                "propertyValue": {
                    "value": {"integerValue": 12},
                    "timestamp": {"timeInSeconds": 100, "offsetInNanos": 5},
                    "quality": "GOOD",
                },
            },
            None,
        ),
        (
            {"sns": {"targetArn": "a", "payload": {"contentExpression": "$variable.v", "type": "STRING"}}},
            {"targetArn": "a"},
            "7",
        ),
    ],
)
def test_each_external_action_carries_its_evaluated_parameters(
    loaded: Loader, action: Json, parameters: Json, payload: str | None
) -> None:
    outcome = external(one_action(loaded, action))

    (taken,) = outcome.actions
    assert (taken.type, taken.parameters, taken.payload) == (next(iter(action)), parameters, payload)
    assert outcome.failures == []


@pytest.mark.parametrize(
    ("action", "complaint"),
    [
        ({"iotTopicPublish": {"mqttTopic": "$input.In.no"}}, "mqttTopic: .* is undefined"),
        ({"iotTopicPublish": {"mqttTopic": "12"}}, "mqttTopic: 12 is 12, must be of kind string"),
        ({"sns": {"targetArn": "a", "payload": {"contentExpression": "true", "type": "JSON"}}}, "must be a string"),
        ({"sns": {"targetArn": "a", "payload": {"contentExpression": "$input.In.no", "type": "STRING"}}}, "no value"),
        ({"iotSiteWise": {"propertyValue": {"value": {"integerValue": "'x'"}}}}, "must be of kind integer"),
    ],
)
def test_an_action_that_cannot_be_evaluated_is_told_and_not_taken(loaded: Loader, action: Json, complaint: str) -> None:
    outcome = external(one_action(loaded, action))

    assert outcome.actions == []
    (failure,) = outcome.failures
    assert re.search(complaint, failure)
    assert failure.startswith("states[0].onInput.events[0].actions[1].")


def test_a_json_payload_that_is_not_json_is_sent_with_a_warning(loaded: Loader) -> None:
    payload = {"contentExpression": "'{\"v\": ${$input.In.text}}'", "type": "JSON"}

    outcome = external(one_action(loaded, {"sns": {"targetArn": "a", "payload": payload}}), text="x")

    assert outcome.actions[0].payload == '{"v": x}'
    assert "not JSON; it is sent all the same" in outcome.failures[0]


def test_the_default_payload_is_the_documented_object(loaded: Loader) -> None:
    shard = loaded(
        detector_model(
            state("A", events=[event("e", "currentInput('In')", set_variable("x", "1.0"), set_timer("t", 60), sns())])
        )
    )

    (action,) = external(shard, message_id="m-1").actions

    assert json.loads(payload_text(action)) == {
        "eventTime": 1500,
        "payload": {
            "actionExecutionId": action.id,
            "detector": {"detectorModelName": "m", "keyValue": "k", "detectorModelVersion": "1"},
            "eventTriggerDetails": {"inputName": "In", "messageId": "m-1", "triggerType": "Message"},
            "state": {"stateName": "A", "variables": {"x": 1.0}, "timers": {"t": 61000}},
        },
        "eventName": "e",
    }


def test_the_default_payload_of_a_timer_names_the_timer_and_of_a_singleton_no_key(loaded: Loader) -> None:
    start = event("i", None, set_timer("t", 60))
    shard = loaded(
        detector_model(
            state("A", enter=[start], events=[event("e", "timeout('t') && $input.In.v == 1", sns())]), key=None
        )
    )
    shard.put(message(v=1), 0.0)

    (outcome,) = shard.advance(60.0)

    payload = default_payload(outcome.actions[0])["payload"]
    assert payload["eventTriggerDetails"] == {"triggerType": "Timer", "timerName": "t"}
    assert "keyValue" not in payload["detector"]


def test_event_time_is_the_messages_own_where_it_has_one(loaded: Loader) -> None:
    shard = one_action(loaded, sns())

    outcomes = shard.put(message(time_ms=123), 99.0)

    assert [action.time_ms for action in actions(outcomes)] == [123]


def test_ids_of_actions_are_the_same_when_the_same_is_done_again_and_differ_otherwise(loaded: Loader) -> None:
    first, second = one_action(loaded, sns()), one_action(loaded, sns())

    def run(shard: Shard) -> list[str]:
        return [action.id for _ in range(2) for key in "kl" for action in actions(shard.put(message(id=key), 5.0))]

    ids = run(first)
    assert run(second) == ids
    assert len(set(ids)) == 4


@pytest.mark.parametrize("method", ["BATCH", "SERIAL"])
def test_enter_and_exit_groups_see_what_was_committed_before_them(loaded: Loader, method: str) -> None:
    shard = loaded(
        detector_model(
            state(
                "A",
                events=[event("e", "$input.In.go == 1", set_variable("a", "1"))],
                transitions=[event("t", "$input.In.go == 1", set_variable("b", "$variable.a + 1"), to="B")],
                leave=[event("x", "$variable.b == 2", set_variable("c", "$variable.b + 1"))],
            ),
            state("B", enter=[event("n", "$variable.c == 3 && currentInput('In')", set_variable("d", "4"))]),
            method=method,
        )
    )

    shard.put(message(go=1), 0.0)

    assert detector(shard).variables == {"a": 1, "b": 2, "c": 3, "d": 4}


def test_names_that_look_like_python_are_only_names(loaded: Loader) -> None:
    odd = ["__import__('os')", "'; raise SystemExit #", 'q"uo\\te\n    exit()', "d.s = 1", "naïve \u2028 state"]
    states = [
        state(
            name,
            enter=[event(f"enter {name}", None, set_timer(name, 60))],
            transitions=[event(name, f"$input.In.v == {place} && $input.In.`a\\'b\\n`.z != 1", to=odd[place - 4])],
        )
        for place, name in enumerate(odd)
    ]
    shard = loaded(detector_model(*states))

    for place in range(5):
        shard.put(message(v=place), float(place))

    assert detector(shard).state == odd[0]
    assert set(running(shard)) == set(odd)


def test_variables_and_attributes_that_are_compared_often_are_kept_apart(loaded: Loader) -> None:
    events = [
        event(f"{name}{limit}", f"{reference} > {limit}", set_variable(f"{name}{limit}", "true"))
        for name, reference in (("x", "$input.In.x"), ("y", "$input.In.y"), ("v", "$variable.v"), ("w", "$variable.w"))
        for limit in (1, 5)
    ]
    start = event("i", None, set_variable("v", "3"), set_variable("w", "0"))
    shard = loaded(detector_model(state("A", enter=[start], events=events)))

    shard.put(message(x=7, y=2), 0.0)

    assert detector(shard).variables == {"v": 3, "w": 0, "x1": True, "x5": True, "y1": True, "v1": True}
