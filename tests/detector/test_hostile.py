"""Hostile definitions and expressions: a clear error soon, and nothing is executed."""

import json
import os
import random
import string
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.detector.bodies import alarm_model, detector_model, event, message, set_variable, state
from tests.detector.random_models import Maker
from wheeltapper.detector.expression import parse, show
from wheeltapper.detector.model import read_model
from wheeltapper.detector.runtime import Shard
from wheeltapper.errors import DefinitionError

ROUNDS = 20_000 if os.environ.get("WHEELTAPPER_LONG") == "1" else 400

HOSTILE = {
    "ten megabytes of string": "'" + "a" * 10_000_000 + "'",
    "ten megabytes of open string": "'" + "a" * 10_000_000,
    "parentheses": "(" * 60_000 + "1" + ")" * 5_000,
    "not": "!" * 60_000 + "true",
    "minus": "-" * 60_000 + "1",
    "plus": "1+" * 30_000 + "1",
    "or": "true||" * 10_000 + "true",
    "right-nested": "1+(" * 20_000,
    "calls": "isNull(" * 9_000,
    "templates": "'${" * 20_000,
    "quotes": "'" * 60_001,
    "indices": "$input.a" + "[0]" * 20_000,
    "members": "$input" + ".a" * 30_000,
    "integer": "1" * 60_000,
    "hundred thousand digits": "9" * 100_000,
    "decimal": "1." + "1" * 60_000 + "e999",
    "exponent": "1e" + "9" * 60_000,
    "backticks": "$input." + "`a" * 30_000,
    "spaces": " " * 65_000 + "x",
    "nul": "\x00",
    "surrogate": "\ud800",
    "python": "__import__('os').system('true')",
    "lambda": "(lambda: 1)()",
    "dunder": "$input.__class__.__mro__[1].__subclasses__()",
    "walrus": "(x := 1)",
    "f-string": "f'{1}'",
    "comment": "1 # 2",
    "semicolon": "1; import os",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_expression_is_refused(text: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(text)

    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_condition_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(DefinitionError, match=r"^states\[0\]\.onInput\.events\[0\]\.condition"):
        Shard().load(detector_model(state("A", events=[event("e", text)])))


def deep(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"detectorModelDefinition":' * 100_000,
        b"\xff\xfe",
        b"null",
        b"[]",
        b'{"detectorModelDefinition": null}',
        b'{"detectorModelDefinition": {"states": null, "initialStateName": "A"}}',
        b'{"detectorModelDefinition": {"states": [], "initialStateName": "A"}}',
        b'{"detectorModelDefinition": {"states": [{}], "initialStateName": "A"}}',
        b'{"detectorModelDefinition": {"states": [{"stateName": 1}], "initialStateName": "A"}}',
        b'{"alarmRule": {"simpleRule": {}}}',
    ],
)
def test_a_body_that_is_no_model_is_refused(body: bytes) -> None:
    with pytest.raises(DefinitionError):
        Shard().load(body)


@pytest.mark.parametrize("depth", [100, 5_000])
def test_nesting_where_nobody_looks_does_no_harm(depth: int) -> None:
    body = {**detector_model(state("A", events=[event("e", "$input.In.v == 1")])), "tags": deep(depth)}

    assert Shard().load(body).name == "m"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"detectorModelName": "a b"}, "detectorModelName"),
        ({"detectorModelName": "x" * 10_000_000}, "detectorModelName"),
        ({"key": "a..b"}, "key"),
        ({"key": "a" * 10_000_000}, "key"),
        ({"key": "$(rm -rf)"}, "key"),
        ({"evaluationMethod": "PARALLEL"}, "evaluationMethod"),
    ],
)
def test_names_out_of_bounds_are_refused_with_their_place(change: dict[str, Any], path: str) -> None:
    body = {**detector_model(state("A", events=[event("e", "$input.In.v == 1")])), **change}

    with pytest.raises(DefinitionError) as caught:
        Shard().load(body)

    assert caught.value.path == path
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "action",
    [
        {},
        {"setVariable": {"variableName": "1a", "value": "1"}},
        {"setVariable": {"variableName": "a\nimport os", "value": "1"}},
        {"setVariable": {"variableName": "a", "value": "1"}, "sns": {"targetArn": "a"}},
        {"setVariable": {"variableName": "a"}},
        {"setTimer": {"timerName": "t"}},
        {"setTimer": {"timerName": "t", "seconds": 60, "durationExpression": "60"}},
        {"setTimer": {"timerName": "t", "seconds": 10**30}},
        {"setTimer": {"timerName": "", "seconds": 60}},
        {"resetTimer": {"timerName": "t" * 129}},
        {"exec": {"code": "1"}},
        {"sns": {"targetArn": "a", "payload": {"contentExpression": " ", "type": "JSON"}}},
        {"sns": {"targetArn": "a", "payload": {"contentExpression": "'x'", "type": "XML"}}},
        {"dynamoDB": {"hashKeyField": "plain", "hashKeyValue": "'v'", "tableName": "'t'"}},
    ],
    ids=json.dumps,
)
def test_a_faulty_action_is_refused_with_its_place(action: dict[str, Any]) -> None:
    model = detector_model(state("A", events=[event("e", "$input.In.v == 1", action)]))

    with pytest.raises(DefinitionError) as caught:
        Shard().load(model)

    assert caught.value.path.startswith("states[0].onInput.events[0].actions[0]")


def test_structural_faults_are_refused() -> None:
    fine = event("e", "$input.In.v == 1")
    for states in (
        [state("A", events=[fine]), state("A")],
        [state("A", events=[fine], transitions=[event("t", "true", to="Nowhere")])],
        [state("A", events=[fine], transitions=[event("t", " ", to="A")])],
        [state("", events=[fine])],
        [state("A", events=[event("", "$input.In.v == 1")])],
    ):
        with pytest.raises(DefinitionError):
            Shard().load(detector_model(*states))


def test_a_growing_variable_stops_growing() -> None:
    square = event("e", "currentInput('In')", set_variable("n", "$variable.n * $variable.n"))
    shard = Shard()
    shard.load(detector_model(state("A", enter=[event("i", None, set_variable("n", "10"))], events=[square])))

    for number in range(20):
        shard.put(message(), float(number))

    assert shard.export("m", "k").variables == {"n": 10**16}  # type: ignore[union-attr]


def test_thousands_of_states_and_events_load_soon() -> None:
    states = [
        state(f"s{place}", events=[event(f"e{n}", "$input.In.v == 1", set_variable("n", "1")) for n in range(10)])
        for place in range(1_000)
    ]
    shard = Shard()
    shard.load(detector_model(*states))

    assert shard.put(message(v=1), 0.0)[0].state == "s0"


def test_a_long_condition_is_run_all_the_same() -> None:
    wide = " || ".join(f"$input.In.v == {number}" for number in range(2, 130))
    long = "(" * 70 + "$input.In.v" + " + 1)" * 70 + " == 71"
    shard = Shard()
    shard.load(
        detector_model(
            state("A", events=[event("w", wide, set_variable("w", "1")), event("l", long, set_variable("l", "1"))])
        )
    )

    shard.put(message(v=1), 0.0)
    shard.put(message(v=129), 1.0)

    assert shard.export("m", "k").variables == {"l": 1, "w": 1}  # type: ignore[union-attr]


@settings(max_examples=ROUNDS, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(alphabet=st.sampled_from("$input.variable'\"`{}[]()!&|<>=+-*/0123456789 ab\\\n,~^"), max_size=60))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        tree = parse(text)
    except DefinitionError:
        return

    assert repr(parse(show(tree))) == repr(tree)


def damage(source: random.Random, value: Any) -> Any:
    """The same JSON with one thing in it replaced by something else."""
    if isinstance(value, dict) and value and source.random() < 0.9:
        name = source.choice(list(value))
        return {**value, name: damage(source, value[name])}
    if isinstance(value, list) and value and source.random() < 0.9:
        place = source.randrange(len(value))
        return [*value[:place], damage(source, value[place]), *value[place + 1 :]]
    junk = "".join(source.choices(string.printable, k=10))
    return source.choice((None, True, -1, 10**400, 1.5, "", junk, [], {}, [None], {"": None}, "\ud800", "'${'"))


def test_damaged_models_are_refused_or_run() -> None:
    reached: list[str] = []
    watched = ("os.system", "subprocess.Popen", "socket.connect")
    watching = True
    sys.addaudithook(lambda name, _: reached.append(name) if watching and name in watched else None)
    refused = run = 0
    for seed in range(ROUNDS):
        source = random.Random(seed)
        maker = Maker(source)
        model = damage(source, maker.model() if seed % 3 else alarm_model())
        shard = Shard()
        try:
            shard.load(model)
        except DefinitionError:
            refused += 1
            continue
        run += 1
        for number in range(3):
            shard.put(maker.message(number), float(number * 10))
        shard.restore(shard.snapshot())

    watching = False
    assert refused > ROUNDS / 20 and run > ROUNDS / 20
    assert reached == []


def test_reading_gives_back_what_was_written() -> None:
    body = detector_model(state("A", events=[event("e", "$input.In.v == 1")]))

    assert read_model(json.dumps(body).encode()).source == body


@pytest.mark.parametrize("value", ["$variable.s + $variable.s", "'${$variable.s}${$variable.s}'"])
def test_a_text_that_doubles_with_every_message_stops_growing(value: str) -> None:
    shard = Shard()
    first = event("first", "isUndefined($variable.s)", set_variable("s", "'" + "x" * 1000 + "'"))
    shard.load(detector_model(state("A", events=[first, event("grow", "$input.In.v > 0", set_variable("s", value))])))

    for second in range(40):
        shard.put(message(v=1), float(second))

    grown = shard.export("m", "k").variables["s"]
    assert 1_000_000 < len(grown) < 10_000_000
