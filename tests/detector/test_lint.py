"""Lint says what is wrong with a model, gives the proof or the numbers, and is silent about what is right."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from wheeltapper.detector.action import Message
from wheeltapper.detector.analysis import Finding, analyse, blocking_errors
from wheeltapper.detector.lint import lint
from wheeltapper.detector.readers import read_text


def _examples(shared: Path) -> Path:
    return shared / "examples" / "detector-models"


def _body(path: Path) -> dict:
    return read_text(path.read_text(), name=path.stem).detector_models[0]


def _model(states: list[dict], **members: object) -> dict:
    definition = {"states": states, "initialStateName": states[0]["stateName"]}
    return {"detectorModelName": "m", "roleArn": "r", "detectorModelDefinition": definition, **members}


def _event(name: str, condition: str | None, *actions: dict) -> dict:
    return {"eventName": name, "condition": condition, "actions": list(actions)}


def _to(name: str, condition: str, state: str, *actions: dict) -> dict:
    return {**_event(name, condition, *actions), "nextState": state}


def _set(name: str, value: str) -> dict:
    return {"setVariable": {"variableName": name, "value": value}}


def _state(name: str, *, enter: tuple = (), events: tuple = (), to: tuple = (), leave: tuple = ()) -> dict:
    return {
        "stateName": name,
        "onEnter": {"events": list(enter)},
        "onInput": {"events": list(events), "transitionEvents": list(to)},
        "onExit": {"events": list(leave)},
    }


def _rules(findings: list[Finding]) -> set[str]:
    return {each.rule for each in findings}


def _motor(count: int, *, seed: int) -> Iterator[Message]:
    """AWS's sample: a reading every five seconds with two misspelt names, and its constant prediction."""
    chance = random.Random(seed)
    for place in range(count):
        time_ms = 1_700_000_000_000 + 5_000 * place
        who = {"motorType": "Pump_GN12345", "motorID": "AWS98765"}
        temperatures = {f"TT{number:02d}": chance.randint(20, 100) for number in range(2, 11)}
        reading = {"TT01": chance.randint(5, 15), **temperatures, "PTO1": chance.randint(50, 500) / 10}
        reading["FTO1"] = chance.randint(150, 250)
        yield Message("IoTImlPumpData", {**who, **reading}, "", time_ms)
        yield Message("IoTImlPumpInference", {**who, "prediction": 0}, "", time_ms + 300)


@pytest.fixture(scope="module")
def motor_findings(shared: Path) -> dict[str, list[Finding]]:
    folder = _examples(shared)
    inputs = {}
    for path in folder.glob("normalized-input-*.json"):
        body = json.loads(path.read_text())
        inputs[body["inputName"]] = [each["jsonPath"] for each in body["inputDefinition"]["attributes"]]
    found: dict[str, list[Finding]] = {}
    for each in lint(_body(folder / "repo-iml-detector-model.json"), inputs, _motor(20_000, seed=7)):
        found.setdefault(each.rule, []).append(each)
    return found


def test_misspelt_attributes_are_named_beside_what_arrives(motor_findings: dict[str, list[Finding]]):
    found = motor_findings["attribute-never-arrives"]

    assert {("FT01" in each.message, "'FTO1'" in each.why) for each in found if "FT01" in each.message} == {
        (True, True)
    }
    assert any("'PT01'" in each.message and "'PTO1'" in each.why for each in found)


def test_an_alarm_that_needs_absurd_luck_is_named_with_its_probability(motor_findings: dict[str, list[Finding]]):
    [found] = motor_findings["practically-never"]

    probability = float(found.message.split("probability ")[1].split()[0])
    assert "'high_temperature'" in found.message
    assert 2.8e-23 < probability < 2.8e-19


def test_a_timer_that_is_only_ever_reset_after_being_cleared_is_named(motor_findings: dict[str, list[Finding]]):
    [found] = motor_findings["reset-without-set"]

    assert "'motortemperatureHigh'" in found.message
    assert found.locations == ("states[4].onInput.events[2].actions[0]",)


def test_a_constant_prediction_is_named(motor_findings: dict[str, list[Finding]]):
    found = [each for each in motor_findings["never-held"] if "failure_predicted" in each.message]

    assert "was always 0" in found[0].message
    assert found[0].level == "WARNING"


def test_time_counted_too_fast_is_named_with_the_factor(motor_findings: dict[str, list[Finding]]):
    [found] = motor_findings["time-counted-wrong"]

    factor = float(found.message.split("counts time ")[1].split()[0])
    assert "operation_minutes" in found.message
    assert 6.2 < factor < 6.9


def test_an_input_that_never_arrives_is_named(motor_findings: dict[str, list[Finding]]):
    assert "IoTImlPumpAction" in motor_findings["input-never-arrives"][0].message


def test_the_analysis_of_the_guide_gives_the_results_of_the_guide(shared: Path):
    definition = json.loads((_examples(shared) / "dg-analyze-api-api-detector-model.json").read_text())
    expected = json.loads((_examples(shared) / "dg-analyze-api-api-analysis.json").read_text())

    found = analyse(definition["detectorModelDefinition"], inputs={})

    assert [each.result() for each in found] == expected["analysisResults"]


def test_no_published_model_is_blocked(shared: Path):
    blocked = {}
    for path in sorted(_examples(shared).glob("*detector*.json")):
        if "detectorModelDefinition" not in path.read_text() or "batch" in path.name:
            continue
        blocked[path.name] = blocking_errors(_body(path)["detectorModelDefinition"])

    assert len(blocked) > 8
    assert not any(blocked.values())


def test_no_published_model_has_a_state_that_is_called_unreachable(shared: Path):
    for path in sorted(_examples(shared).glob("dg-examples-*detector-model*.json")):
        found = analyse(_body(path)["detectorModelDefinition"])

        assert not [each for each in found if "state in your detector model is unreachable" in each.message], path.name


def test_a_transition_is_dead_where_numbers_leave_no_room():
    cold = _to("cold", "$input.I.t > 90", "cold")
    body = _model(
        [
            _state("warm", to=(_to("stop", "$input.I.t > 80", "off"), cold)),
            _state("off", to=(_to("again", "$input.I.t < 10 && $input.I.t > 20", "warm"),)),
            _state("cold"),
        ]
    )

    found = lint(body)

    dead = {each.locations for each in found if each.rule == "dead-transition"}
    assert dead == {("states[0].onInput.transitionEvents[1]",), ("states[1].onInput.transitionEvents[0]",)}
    assert any("A state in your detector model is unreachable" in each.message for each in found)


def test_a_transition_that_needs_undefined_values_is_alive():
    first = _to("first", "$variable.limit != $variable.limit", "b", _set("limit", "$input.I.limit"))
    body = _model([_state("a", to=(first,)), _state("b", to=(_to("back", "$input.I.t > $variable.limit", "a"),))])

    assert "dead-transition" not in _rules(lint(body))


def test_a_counter_reaches_its_limit():
    count = _event("count", "$input.I.t > 0", _set("n", "$variable.n + 1"))
    body = _model([
        _state("a", enter=(_event("zero", "true", _set("n", "0")),), events=(count,),
               to=(_to("full", "$variable.n > 1000", "b"), _to("never", "$variable.n < 0", "c"))),
        _state("b"),
        _state("c"),
    ])  # fmt: skip

    found = lint(body)

    assert {each.locations for each in found if each.rule == "dead-transition"} == {
        ("states[0].onInput.transitionEvents[1]",)
    }


def test_a_heartbeat_is_not_called_hopeless():
    body = _model([
        _state("on", enter=(_event("e", "true", {"setTimer": {"timerName": "awake", "seconds": 60}}),),
               events=(_event("beat", 'currentInput("I")', {"resetTimer": {"timerName": "awake"}}),),
               to=(_to("lost", 'timeout("awake")', "off"),)),
        _state("off", to=(_to("back", 'currentInput("I")', "on"),)),
    ])  # fmt: skip
    messages = [Message("I", {"t": 1}, "", 1_000 * second) for second in range(0, 3_600, 10)]

    found = lint(body, {"I": ["t"]}, messages)

    assert "practically-never" not in _rules(found)


def test_timers_that_nobody_tests_or_sets_are_named():
    body = _model([
        _state("a", enter=(_event("e", "true", {"setTimer": {"timerName": "idle", "seconds": 60}}),),
               events=(_event("r", "$input.I.t > 1", {"resetTimer": {"timerName": "ghost"}}),)),
    ])  # fmt: skip

    assert {"timer-never-tested", "timer-never-set"} <= _rules(lint(body))


@pytest.mark.parametrize(("seconds", "left"), [(60, False), (180, True)])
def test_a_timer_is_not_left_running_by_one_that_outlasts_it(seconds: int, left: bool):
    both = ({"setTimer": {"timerName": "a", "seconds": seconds}}, {"setTimer": {"timerName": "b", "seconds": 120}})
    body = _model([
        _state("wait", enter=(_event("set", "true", *both),), events=(_event("half", "timeout('a')", _set("x", "1")),),
               to=(_to("over", "timeout('b') && $input.I.t > 0", "done"),)),
        _state("done", to=(_to("again", "currentInput('I')", "wait"),)),
    ])  # fmt: skip

    assert ("timer-left-running" in _rules(lint(body))) is left


@pytest.mark.parametrize(
    ("method", "condition", "action", "undone"),
    [
        ("SERIAL", '$input.Life.kind == "gone"', {"setTimer": {"timerName": "t", "seconds": 60}}, True),
        ("SERIAL", "true", {"resetTimer": {"timerName": "t"}}, True),
        ("SERIAL", "!timeout('t')", {"resetTimer": {"timerName": "t"}}, False),
        ("SERIAL", 'triggerType("Message")', {"resetTimer": {"timerName": "t"}}, False),
        ("SERIAL", 'currentInput("Life")', {"clearTimer": {"timerName": "t"}}, False),
        ("SERIAL", "true", {"setTimer": {"timerName": "other", "seconds": 60}}, False),
        ("BATCH", '$input.Life.kind == "gone"', {"setTimer": {"timerName": "t", "seconds": 60}}, False),
    ],
)
def test_an_expiry_that_an_earlier_event_undoes_is_named(method: str, condition: str, action: dict, undone: bool):
    states = [
        _state(
            "near",
            enter=(_event("start", "true", {"setTimer": {"timerName": "t", "seconds": 60}}),),
            events=(_event("again", condition, action),),
            to=(_to("lose", 'timeout("t")', "lost"),),
        ),
        _state("lost", to=(_to("back", '$input.Life.kind == "here"', "near"),)),
    ]

    found = [each for each in lint(_model(states, evaluationMethod=method)) if each.rule == "expiry-undone"]

    assert bool(found) is undone
    assert all(each.locations[-1] == "states[0].onInput.transitionEvents[0]" for each in found)


def test_undeclared_and_unread_attributes_are_named():
    body = _model([_state("a", events=(_event("e", "$input.I.temp > 1"),))])

    found = lint(body, {"I": ["temperature"], "J": ["x"]})

    assert {"attribute-not-declared", "attribute-not-read", "input-not-read"} <= _rules(found)


def test_the_key_counts_as_read():
    body = _model([_state("a", events=(_event("e", "$input.I.temp > 1"),))]) | {"key": "device.`serial no`"}

    found = lint(body, {"I": ["temp", "device.`serial no`"]})

    assert "attribute-not-read" not in _rules(found)


@pytest.mark.parametrize(
    ("states", "type_", "says"),
    [
        ([_state("a", to=(_to("x", "$input.I.t > 1", "b"),))], "structure", "non-existent state b"),
        ([_state("a", events=(_event("e", "$input.I.t >"),))], "expression-syntax", "Failed to parse expression"),
        ([_state("a", events=(_event("e", "$input.I.t + 1"),))], "data-type", "not a valid condition expression"),
        ([_state("a", events=(_event("e", "!5 || $input.I.t > 1"),))], "data-type", "for the operator [!]"),
        (
            [_state("a", events=(_event("e", "contains(5, 'a') || $input.I.t > 1"),))],
            "data-type",
            "for the function [contains]",
        ),
        ([_state("a", events=(_event("e", "true"),))], "structure", "at least one Input in a condition"),
        (
            [_state("a", events=(_event("e", "$input.I.t > 1", {"setTimer": {"timerName": "t", "seconds": 9}}),))],
            "service-limits",
            "at least 60 seconds",
        ),
        ([_state("a", events=(_event("e", "$input.I.t + 'x' > 1"),))], "data-type", "[Integer, String]"),
        ([_state("a", events=(_event("e", "$input.I.t"),))], "", ""),
        ([_state("a", events=(_event("e", "timeout('t') && $input.I.t > 1"),))], "referenced-data", "timer t is used"),
        ([_state("a", events=(_event("e", "$variable.v > $input.I.t"),))], "referenced-data", "variable v is used"),
        (
            [_state("a", events=(_event("e", "$input.I.t > 1", {"teleport": {}}),))],
            "supported-actions",
            "Invalid action type present in action definition: teleport.",
        ),
    ],
    ids=[
        "target",
        "syntax",
        "sum",
        "negation",
        "function",
        "input",
        "short",
        "types",
        "silent",
        "timer",
        "variable",
        "action",
    ],
)
def test_each_of_the_seven_analyses_speaks_in_aws_words(states: list[dict], type_: str, says: str):
    found = analyse(_model(states)["detectorModelDefinition"], {"I": ["t"]})

    errors = [each for each in found if each.level == "ERROR"]
    assert [(each.type, says in each.message) for each in errors] == ([(type_, True)] if type_ else [])


def test_a_hostile_definition_is_analysed_in_bounded_work():
    condition = " || ".join(f"$input.I.a{n} > {n} && $variable.v{n} != {n}" for n in range(10))
    events = tuple(_event(f"e{n}", condition, _set(f"v{n}", f"$variable.v{n} + $input.I.x")) for n in range(10))
    states = [
        _state(
            f"s{n}",
            events=events,
            to=tuple(_to(f"t{k}", f"$input.I.z == {k} && ({condition})", f"s{k}") for k in range(20)),
        )
        for n in range(20)
    ]

    found = analyse(_model(states)["detectorModelDefinition"], {"I": ["x"]})

    assert not any("unreachable" in each.message for each in found)


def test_an_alarm_model_that_starts_disabled_is_named():
    rule = {"simpleRule": {"inputProperty": "$input.I.t", "comparisonOperator": "GREATER", "threshold": "80"}}

    found = lint({"alarmModelName": "a", "roleArn": "r", "alarmRule": rule}, {"I": ["t"]})

    assert _rules(found) == {"alarm-starts-disabled"}
