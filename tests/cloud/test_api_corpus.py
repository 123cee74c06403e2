"""One long conversation with the HTTP API, each answer as the specification's rule demands it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.companion import serving
from wheeltapper_cloud.wire import MODELS, Operations, load_model

SERVICES = [load_model(service) for service in MODELS]
JSON_TYPES: dict[str, tuple[type, ...]] = {
    "structure": (dict,),
    "list": (list,),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "timestamp": (int, float),
}
CORPUS = Path(__file__).with_name("corpus") / "api.jsonl"


def contains(wanted: Any, found: Any) -> bool:
    """Whether what is wanted is in what was found, member by member."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(name in found and contains(wanted[name], found[name]) for name in wanted)
    if isinstance(wanted, list):
        return isinstance(found, list) and len(wanted) == len(found) and all(map(contains, wanted, found))
    return type(wanted) is type(found) and bool(wanted == found)


def fault(wanted: dict[str, Any], status: int, answer: Any, headers: Any) -> str:
    if status != wanted["status"] or headers.get("x-amzn-errortype", "") != wanted.get("errorType", ""):
        return f"{status} {headers.get('x-amzn-errortype', '')}"
    if "body" in wanted and answer != wanted["body"]:
        return "another body"
    if any(name in answer for name in wanted.get("bodyLacks", ())):
        return "a member too many"
    return "" if contains(wanted.get("bodyHas", answer), answer) else "members are missing"


def misfits(value: Any, shapes: dict[str, Any], name: str, path: str) -> Iterator[str]:
    """Where an answer is not of its shape in the service model; botocore would drop or garble it in silence."""
    shape = shapes[name]
    if type(value) not in JSON_TYPES[shape["type"]]:
        yield f"{path} is no {shape['type']}"
    elif shape["type"] == "structure":
        yield from (f"{path} lacks {member}" for member in shape.get("required", ()) if member not in value)
        for member, item in value.items():
            if member in shape["members"]:
                yield from misfits(item, shapes, shape["members"][member]["shape"], f"{path}.{member}")
            else:
                yield f"{path} has {member}"
    elif shape["type"] == "list":
        for place, item in enumerate(value):
            yield from misfits(item, shapes, shape["member"]["shape"], f"{path}[{place}]")
    elif shape["type"] == "string" and value not in shape.get("enum", [value]):
        yield f"{path} is {value}"


def misfit(operation: str, status: int, answer: Any, headers: Any) -> str:
    """What the service model does not foresee in an answer."""
    for model in SERVICES:
        if operation not in model["operations"]:
            continue
        found = model["operations"][operation]
        if status >= 400:
            foreseen = [error["shape"] for error in found["errors"]]
            return "" if headers["x-amzn-errortype"] in foreseen and answer.get("message") else "another error"
        if status != found["http"].get("responseCode", 200):
            return "another status"
        return "; ".join(misfits(answer, model["shapes"], found["output"]["shape"], "") if answer else ())
    return "no such operation"


def test_every_exchange_is_answered_as_its_rule_says(tmp_path: Path) -> None:
    faults, operations = [], Operations()
    with serving(tmp_path) as cloud:
        for case in map(json.loads, CORPUS.read_text(encoding="utf-8").splitlines()):
            request = case["request"]
            status, answer, headers = cloud.call(request["method"], request["uri"], request.get("body"))
            if what := fault(case["expect"], status, answer, headers):
                faults.append(f"{case['id']} {case['title']} ({case['rule']}): {what}: {answer}")
            called = operations.find(request["method"], request["uri"].partition("?")[0])
            if called and (what := misfit(called[0].name, status, answer, headers)):
                faults.append(f"{case['id']} {called[0].name}: {what}: {answer}")

    assert not faults, "\n".join(faults)
