"""
AWS's REST-JSON protocol, derived from the service models that this package ships.

An ``Operation`` reads a request and writes an answer; an ``Operations`` finds the operation of a method and a path. All
is compiled when the models are loaded: a request costs only the calls.
"""

from importlib.resources import files
from typing import Any
from urllib.parse import unquote, unquote_plus

import msgspec

from wheeltapper_cloud.wire_shapes import (
    Reader,
    SerializationError,
    Shapes,
    Writer,
    fault,
    structure_reader,
    text_reader,
    writer,
)

# What AWS's front end answers before any service does.
_FRONT_END = {
    "AccessDeniedException": 403,
    "RequestEntityTooLargeException": 413,
    "RequestTimeoutException": 408,
    "SerializationException": 400,
    "UnknownOperationException": 404,
}

NO_CONTENT = 204
MODELS = {"iotevents": "2018-07-27", "iotevents-data": "2018-10-23"}

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class ServiceError(Exception):
    """An error of the service's own: a code of the service model, its HTTP status, what its body says."""

    def __init__(self, code: str, message: str, *, status: int | None = None, **members: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = STATUS_OF[code] if status is None else status
        self.message = message
        self.members = members

    def body(self) -> bytes:
        """The error's JSON."""
        return _encode({"message": self.message, **self.members})


def load_model(service: str) -> dict[str, Any]:
    """One service model as botocore reads it, without prose."""
    source = files("wheeltapper_cloud") / "service_models" / service / MODELS[service] / "service-2.json"
    model: dict[str, Any] = msgspec.json.decode(source.read_bytes())
    return model


def _status_of_errors() -> dict[str, int]:
    """Error code → HTTP status, those of the models and those that AWS's front end answers before any service."""
    found = dict(_FRONT_END)
    for service in MODELS:
        for name, shape in load_model(service)["shapes"].items():
            if shape.get("exception"):
                found[name] = shape["error"]["httpStatusCode"]
    return found


STATUS_OF = _status_of_errors()


class Operation:
    """One operation of one service: how its requests are read and its answers written."""

    def __init__(self, model: dict[str, Any], name: str) -> None:
        found = model["operations"][name]
        shapes: Shapes = model["shapes"]
        self.name = name
        self.service: str = model["metadata"]["signingName"]
        self.method: str = found["http"]["method"]
        self.uri: str = found["http"]["requestUri"]
        self.status: int = found["http"].get("responseCode", 200)
        request = shapes[found["input"]["shape"]]
        self._required: list[str] = request.get("required", [])
        self._texts: list[tuple[str, str, str, Reader, bool]] = []
        body = {}
        for member, place in request["members"].items():
            if "location" not in place:
                body[member] = place
                continue
            is_list = shapes[place["shape"]]["type"] == "list"
            read = _list_of_texts(shapes, place["shape"]) if is_list else text_reader(shapes, place["shape"])
            self._texts.append((member, place["location"], place.get("locationName", member), read, is_list))
        self._read_body = structure_reader(shapes, body, [n for n in self._required if n in body]) if body else None
        self._write: Writer | None = writer(shapes, found["output"]["shape"]) if "output" in found else None

    def read(self, labels: dict[str, str], query: str, body: bytes) -> dict[str, Any]:
        """
        The request, by the names of its members.

        Raises:
            ServiceError: SerializationException where the types are wrong, InvalidRequestException naming every constraint
                that is broken.
        """
        faults: list[str] = []
        try:
            parsed = self._read_texts(labels, query, faults) if self._texts else {}
            if self._read_body is not None:
                parsed |= self._read_body(decode_object(body), "", faults)
        except SerializationError as error:
            raise ServiceError("SerializationException", str(error)) from error
        if faults:
            count = "1 validation error" if len(faults) == 1 else f"{len(faults)} validation errors"
            raise ServiceError("InvalidRequestException", f"{count} detected: {'; '.join(faults)}")
        return parsed

    def write(self, answer: dict[str, Any]) -> bytes:
        """The answer's body; empty where the status says that there is none."""
        if self.status == NO_CONTENT:
            return b""
        return _encode(answer if self._write is None else self._write(answer))

    def _read_texts(self, labels: dict[str, str], query: str, faults: list[str]) -> dict[str, Any]:
        parameters = parse_query(query)
        parsed = {}
        for member, location, name, read, is_list in self._texts:
            given: Any = labels.get(name) if location == "uri" else parameters.get(name)
            if given is not None:
                parsed[member] = read(given if is_list or location == "uri" else given[-1], member, faults)
            elif member in self._required:
                faults.append(fault(None, member, "not be null"))
        return parsed


def _list_of_texts(shapes: Shapes, name: str) -> Reader:
    read_member = text_reader(shapes, shapes[name]["member"]["shape"])

    def read(values: list[str], path: str, faults: list[str]) -> list[Any]:
        return [read_member(value, f"{path}.{place}.member", faults) for place, value in enumerate(values, 1)]

    return read


def decode_object(body: bytes) -> dict[str, Any]:
    """
    The JSON object of a body; an empty body is an empty object.

    Raises:
        SerializationError: it is not one.
    """
    if not body:
        return {}
    try:
        value = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SerializationError(f"the body is not JSON: {error}") from error
    if type(value) is not dict:
        raise SerializationError("the body is not a JSON object")
    return value


def parse_query(query: str) -> dict[str, list[str]]:
    """
    Query parameter → its values, in order.

    >>> parse_query("keyValue=a%20b&tagKeys=x&tagKeys=y")
    {'keyValue': ['a b'], 'tagKeys': ['x', 'y']}
    """
    parameters: dict[str, list[str]] = {}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        parameters.setdefault(unquote_plus(name), []).append(unquote_plus(value))
    return parameters


class _Branch:
    """One place in the tree of paths."""

    def __init__(self) -> None:
        self.literals: dict[str, _Branch] = {}
        self.label: _Branch | None = None
        self.methods: dict[str, tuple[Operation, list[str]]] = {}


class Operations:
    """Every operation of every service, found by method and path; a slash at the end makes no difference."""

    def __init__(self) -> None:
        self._root = _Branch()
        self.by_name: dict[str, Operation] = {}
        for service in MODELS:
            model = load_model(service)
            for name in model["operations"]:
                self._add(Operation(model, name))

    def _add(self, operation: Operation) -> None:
        self.by_name[operation.name] = operation
        branch, names = self._root, []
        for segment in _segments(operation.uri):
            if segment.startswith("{"):
                names.append(segment.strip("{}"))
                branch.label = branch.label or _Branch()
                branch = branch.label
            else:
                branch = branch.literals.setdefault(segment, _Branch())
        branch.methods[operation.method] = (operation, names)

    def find(self, method: str, raw_path: str) -> tuple[Operation, dict[str, str]] | None:
        """The operation that a method and a path, still percent-encoded, ask for, and the labels in the path."""
        return _find(self._root, method, _segments(raw_path), 0, [])


def _find(
    branch: _Branch, method: str, segments: list[str], depth: int, values: list[str]
) -> tuple[Operation, dict[str, str]] | None:
    if depth == len(segments):
        if method not in branch.methods:
            return None
        operation, names = branch.methods[method]
        return operation, dict(zip(names, values, strict=True))
    segment = segments[depth]
    if segment in branch.literals:
        found = _find(branch.literals[segment], method, segments, depth + 1, values)
        if found is not None:
            return found
    if branch.label is None or not segment:
        return None
    return _find(branch.label, method, segments, depth + 1, [*values, unquote(segment)])


def _segments(path: str) -> list[str]:
    return path.strip("/").split("/")
