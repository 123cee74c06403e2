"""Cases derived from the specification, rule by rule, in the form of the conformance cases."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from wheeltapper.detector.runtime import Shard
from wheeltapper.detector.settings import DEFAULTS
from wheeltapper.detector.simulate import Simulation, evaluate_request

CORPUS = Path(__file__).with_name("corpus")


def cases(kind: str) -> list[Any]:
    lines = (CORPUS / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()
    read = [json.loads(line) for line in lines]
    return [pytest.param(case, id=f"{case['id']} {case['title']}") for case in read]


def same(wanted: Any, found: Any) -> bool:
    """Equal as JSON; an Integer is not a Decimal, nor true 1."""
    if isinstance(wanted, dict):
        return (
            isinstance(found, dict) and wanted.keys() == found.keys() and all(same(wanted[n], found[n]) for n in wanted)
        )
    if isinstance(wanted, float) and isinstance(found, float):
        return math.isclose(wanted, found, rel_tol=1e-12)
    return type(wanted) is type(found) and bool(wanted == found)


def trace_of(case: dict[str, Any], *, interpreted: bool) -> list[dict[str, Any]]:
    simulation = Simulation(case["model"])
    if interpreted:
        simulation.shard = Shard(DEFAULTS, interpreted=True)
        simulation.shard.load(case["model"])
    return [simulation.step(step) for step in case["steps"]]


@pytest.mark.parametrize("case", cases("expr"))
def test_an_expression_has_the_value_that_the_specification_gives_it(case: dict[str, Any]) -> None:
    result = evaluate_request(case)["result"]

    wanted = case["result"]
    if wanted == {"$error": True}:
        assert isinstance(result, dict) and result["$error"]
    else:
        assert same(wanted, result), result


@pytest.mark.parametrize("interpreted", [False, True], ids=["compiled", "interpreted"])
@pytest.mark.parametrize("case", cases("run"))
def test_a_detector_does_what_the_specification_says(case: dict[str, Any], interpreted: bool) -> None:
    trace = trace_of(case, interpreted=interpreted)

    for want in case["expect"]:
        entry = trace[want["afterStep"]]
        detector = entry["detectors"].get(want["key"])
        assert (detector is not None) == want["exists"]
        for member in {"state", "variables"} & want.keys():
            assert same(want[member], detector[member]), (want["afterStep"], member)
        assert detector is None or want.get("timers", detector["timers"]) == detector["timers"]
        if "actions" in want:
            actions = [action for action in entry["actions"] if action["key"] == want["key"]]
            assert len(actions) == len(want["actions"])
            for wanted, action in zip(want["actions"], actions, strict=True):
                assert {name: action.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("case", cases("alarm"))
def test_an_alarm_does_what_the_specification_says(case: dict[str, Any]) -> None:
    trace = trace_of(case, interpreted=False)

    assert [entry["alarms"].get("k", {}).get("stateName") for entry in trace] == case["expect"]
