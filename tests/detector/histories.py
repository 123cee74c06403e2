"""Random models and histories, small enough that everything happens in them."""

from typing import Any

from hypothesis import strategies as st

SNS = {"sns": {"targetArn": "arn:aws:sns:us-east-1:123456789012:t"}}

ATOMS = st.sampled_from([
    "$input.I.a > 1", "$input.I.a <= 2", "$input.I.b == 1.5", "$input.I.s == 'x'", "$input.I.s != 'y'", "$input.I.t",
    "$variable.v > 1", "$variable.v != $variable.v", "$variable.w == 'x'", "timeout('p')", "timeout('q')", "true",
    "triggerType('Timer')", "currentInput('I')", "isUndefined($input.I.b)", "$input.I.a + $input.I.b > 3",
    "$input.I.a / 2.0 > $variable.v", "startsWith($input.I.s, 'x')", "$input.I.a * $input.I.a == 4", "$input.I.a",
    "$input.J.z == 1", "-$input.I.b < 0", "$input.I.a / 2 == 1", "$input.I.a == $input.I.s", "$input.I.s < 'y'",
    "$input.I.n.m > 0", "$input.I.a >= $variable.v",
])  # fmt: skip
CONDITIONS = st.recursive(
    ATOMS,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda each: f"({each[0]} {each[1]} {each[2]})")
        | inner.map(lambda each: f"!({each})")
    ),
    max_leaves=4,
)
VALUES = st.sampled_from(["0", "1", "1.5", "'x'", "$variable.v + 1", "$input.I.a", "$input.I.s", "$variable.v", "true"])
TIMERS = st.sampled_from(["p", "q"])
ACTIONS = st.one_of(
    st.tuples(st.sampled_from(["v", "w"]), VALUES).map(
        lambda each: {"setVariable": {"variableName": each[0], "value": each[1]}}
    ),
    st.tuples(TIMERS, st.sampled_from([1, 2, 5, 30])).map(
        lambda each: {"setTimer": {"timerName": each[0], "seconds": each[1]}}
    ),
    TIMERS.map(lambda name: {"resetTimer": {"timerName": name}}),
    TIMERS.map(lambda name: {"clearTimer": {"timerName": name}}),
    st.just(SNS),
)


def _events(name: str, most: int) -> st.SearchStrategy[list[dict]]:
    event = st.builds(
        lambda condition, actions: {"eventName": name, "condition": condition, "actions": actions},
        CONDITIONS,
        st.lists(ACTIONS, max_size=3),
    )
    return st.lists(event, max_size=most)


@st.composite
def models(draw: st.DrawFn) -> dict:
    names = ["s0", "s1", "s2"]
    states = []
    for name in names:
        transitions = draw(_events("t", 2))
        states.append({
            "stateName": name,
            "onEnter": {"events": draw(_events("n", 2))},
            "onInput": {
                "events": [*draw(_events("i", 3)), {"eventName": "x", "condition": "$input.I.a > 99"}],
                "transitionEvents": [{**each, "nextState": draw(st.sampled_from(names))} for each in transitions],
            },
            "onExit": {"events": draw(_events("e", 1))},
        })  # fmt: skip
    definition = {"states": states, "initialStateName": "s0"}
    method = draw(st.sampled_from(["BATCH", "SERIAL"]))
    body = {"detectorModelName": "m", "roleArn": "r", "evaluationMethod": method, "detectorModelDefinition": definition}
    return {**body, "key": "k"} if draw(st.booleans()) else body


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, dict[str, Any]]]:
    payloads = st.fixed_dictionaries(
        {"k": st.sampled_from(["1", "2", "bad key"])},
        optional={
            "a": st.integers(0, 3),
            "b": st.sampled_from([0.0, 1.5, 2.0]),
            "s": st.sampled_from(["x", "xy", "y"]),
            "t": st.booleans(),
        },
    )
    steps = draw(st.lists(st.tuples(st.sampled_from([0, 300, 1000, 1000, 2500, 7000, -500]), payloads), max_size=60))
    repeats = draw(st.integers(1, 4))
    rows, now = [], 1_700_000_000_000
    for step, payload in steps:
        for _ in range(repeats):
            now += step
            rows.append((now, payload))
    return rows
