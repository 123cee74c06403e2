"""Every constraint of every member of every request, as the service models state them, is checked and named."""

import copy
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from wheeltapper_cloud.wire import MODELS, Operations, ServiceError, load_model

OPERATIONS = Operations()
SERVICES = {service: load_model(service) for service in MODELS}
NAMES = [(service, name) for service, model in SERVICES.items() for name in model["operations"]]
MATCHING = {"FirehoseSeparator": ","}


def valid(shapes: dict[str, Any], name: str) -> Any:
    """A value with every member."""
    shape = shapes[name]
    match shape["type"]:
        case "structure":
            return {member: valid(shapes, place["shape"]) for member, place in shape["members"].items()}
        case "list":
            return [valid(shapes, shape["member"]["shape"])]
        case "string":
            return shape["enum"][0] if "enum" in shape else MATCHING.get(name, "a")
        case "blob":
            return "e30="
    return True if shape["type"] == "boolean" else 1


def read(service: str, operation: str, request: dict[str, Any]) -> dict[str, Any]:
    """Sends a request through the reader, each member where it travels."""
    model = SERVICES[service]
    members = model["shapes"][model["operations"][operation]["input"]["shape"]]["members"]
    labels, query, body = {}, {}, {}
    for member, value in request.items():
        place = members[member]
        name = place.get("locationName", member)
        if place.get("location") == "uri":
            labels[name] = str(value)
        elif place.get("location") == "querystring":
            query[name] = value
        else:
            body[member] = value
    return OPERATIONS.by_name[operation].read(labels, urlencode(query, doseq=True), json.dumps(body).encode())


def broken(value: Any, shape: dict[str, Any]) -> Iterator[tuple[Any, str]]:
    """Values that break one constraint of a shape, and what is said of each."""
    many = isinstance(value, list | str)
    kind = "length" if many else "value"
    if shape.get("min"):
        yield value[:0] if many else shape["min"] - 1, f"have {kind} greater than or equal to {shape['min']}"
    if shape.get("max", 2**31) < 2**31 - 1:
        yield value * (shape["max"] + 1), f"have {kind} less than or equal to {shape['max']}"
    if "pattern" in shape:
        yield "!!", "satisfy regular expression pattern"
    if "enum" in shape:
        yield "zz", "satisfy enum value set"


def violations(
    shapes: dict[str, Any], name: str, value: Any, path: str, steps: list[Any]
) -> Iterator[tuple[str, list[Any], Any, str]]:
    """For every member within a value: its path, the steps to it, a value that breaks a constraint, what is said."""
    shape = shapes[name]
    for wrong, said in broken(value, shape):
        yield path, steps, wrong, said
    if shape["type"] == "list":
        yield from violations(shapes, shape["member"]["shape"], value[0], f"{path}.1.member", [*steps, 0])
    for member, place in shape.get("members", {}).items():
        inner = f"{path}.{member}" if path else member
        if member in shape.get("required", ()) and place.get("location") != "uri":
            yield inner, [*steps, member], None, "not be null"
        yield from violations(shapes, place["shape"], value[member], inner, [*steps, member])


@pytest.mark.parametrize(("service", "operation"), NAMES)
def test_whatever_breaks_a_constraint_is_refused_by_its_path(service, operation):
    model = SERVICES[service]
    name = model["operations"][operation]["input"]["shape"]
    whole = valid(model["shapes"], name)
    assert read(service, operation, whole).keys() == whole.keys()

    for path, steps, wrong, said in violations(model["shapes"], name, whole, "", []):
        request = copy.deepcopy(whole)
        holder = request
        for step in steps[:-1]:
            holder = holder[step]
        if wrong is None:
            del holder[steps[-1]]
        else:
            holder[steps[-1]] = wrong
        with pytest.raises(ServiceError) as refused:
            read(service, operation, request)
        assert refused.value.code == "InvalidRequestException"
        assert f"at '{path}' failed to satisfy constraint: Member must {said}" in refused.value.message
