"""
The shapes of a service model, compiled into functions once, when the server starts.

A reader turns decoded JSON (or the text of a label or a query parameter) into a request: it drops nulls and members that
the model does not name, decodes blobs, and collects every broken constraint in AWS's words. A writer turns an answer,
whose times are milliseconds since the epoch, into what JSON carries.
"""

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

Reader = Callable[[Any, str, list[str]], Any]
Writer = Callable[[Any], Any]
Shapes = dict[str, dict[str, Any]]

_RANGES = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
_SHOWN = 1024


class SerializationError(Exception):
    """The body is not JSON of the operation's types; AWS calls it SerializationException."""


def fault(value: object, path: str, constraint: str) -> str:
    """
    One broken constraint as AWS words it.

    >>> fault("", "key", "have length greater than or equal to 1")
    "Value '' at 'key' failed to satisfy constraint: Member must have length greater than or equal to 1"
    """
    shown = "null" if value is None else f"'{str(value)[:_SHOWN]}'"
    return f"Value {shown} at '{path}' failed to satisfy constraint: Member must {constraint}"


def kind_of(value: object) -> str:
    """What JSON calls a value, as AWS names it when it cannot convert one."""
    if isinstance(value, bool):
        return "TRUE_VALUE" if value else "FALSE_VALUE"
    if isinstance(value, int | float):
        return "NUMBER_VALUE"
    if isinstance(value, dict | list):
        return "Start of structure or map" if isinstance(value, dict) else "Start of list"
    return "STRING_VALUE"


def reader(shapes: Shapes, name: str) -> Reader:
    """The reader of one shape in a body."""
    shape = shapes[name]
    return _READERS[shape["type"]](shapes, shape)


def text_reader(shapes: Shapes, name: str) -> Reader:
    """The reader of one shape in a label or a query parameter, where everything is text."""
    shape = shapes[name]
    read = reader(shapes, name)
    if shape["type"] not in _RANGES:
        return read

    def read_number(text: str, path: str, faults: list[str]) -> Any:
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", text):
            raise SerializationError(f"STRING_VALUE '{text[:_SHOWN]}' at '{path}' can not be converted to an Integer")
        return read(int(text), path, faults)

    return read_number


def structure_reader(shapes: Shapes, members: dict[str, dict[str, Any]], required: list[str]) -> Reader:
    """The reader of a structure with these members, of which those required may not be null or missing."""
    compiled = [(name, reader(shapes, member["shape"]), name in required) for name, member in members.items()]

    def read(value: Any, path: str, faults: list[str]) -> dict[str, Any]:
        if type(value) is not dict:
            raise SerializationError(f"{kind_of(value)} can not be converted to a structure at '{path}'")
        parsed = {}
        prefix = f"{path}." if path else ""
        for name, read_member, needed in compiled:
            item = value.get(name)
            if item is not None:
                parsed[name] = read_member(item, prefix + name, faults)
            elif needed:
                faults.append(fault(None, prefix + name, "not be null"))
        return parsed

    return read


def _read_structure(shapes: Shapes, shape: dict[str, Any]) -> Reader:
    return structure_reader(shapes, shape["members"], shape.get("required", []))


def _read_list(shapes: Shapes, shape: dict[str, Any]) -> Reader:
    read_member = reader(shapes, shape["member"]["shape"])
    check_length = _length_check(shape)

    def read(value: Any, path: str, faults: list[str]) -> list[Any]:
        if type(value) is not list:
            raise SerializationError(f"{kind_of(value)} can not be converted to a list at '{path}'")
        check_length(value, path, faults)
        parsed = []
        for place, item in enumerate(value, 1):
            where = f"{path}.{place}.member"
            if item is None:
                faults.append(fault(None, where, "not be null"))
            else:
                parsed.append(read_member(item, where, faults))
        return parsed

    return read


def _read_string(shapes: Shapes, shape: dict[str, Any]) -> Reader:
    check_length = _length_check(shape)
    allowed = frozenset(shape["enum"]) if "enum" in shape else None
    matches = _pattern(shape["pattern"]).fullmatch if "pattern" in shape else None

    def read(value: Any, path: str, faults: list[str]) -> str:
        if type(value) is not str:
            raise SerializationError(f"{kind_of(value)} can not be converted to a String at '{path}'")
        check_length(value, path, faults)
        if matches is not None and matches(value) is None:
            faults.append(fault(value, path, f"satisfy regular expression pattern: {shape['pattern']}"))
        if allowed is not None and value not in allowed:
            faults.append(fault(value, path, f"satisfy enum value set: [{', '.join(shape['enum'])}]"))
        return value

    return read


def _read_number(shapes: Shapes, shape: dict[str, Any]) -> Reader:
    lowest, highest = _RANGES[shape["type"]]
    title = {"integer": "an Integer", "long": "a Long"}[shape["type"]]
    least, most = shape.get("min"), shape.get("max")

    def read(value: Any, path: str, faults: list[str]) -> int:
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not lowest <= value <= highest:
            raise SerializationError(f"{kind_of(value)} can not be converted to {title} at '{path}'")
        if least is not None and value < least:
            faults.append(fault(value, path, f"have value greater than or equal to {least}"))
        if most is not None and value > most:
            faults.append(fault(value, path, f"have value less than or equal to {most}"))
        return value

    return read


def _read_boolean(shapes: Shapes, shape: dict[str, Any]) -> Reader:
    def read(value: Any, path: str, faults: list[str]) -> bool:
        if type(value) is not bool:
            raise SerializationError(f"{kind_of(value)} can not be converted to a Boolean at '{path}'")
        return value

    return read


def _read_blob(shapes: Shapes, shape: dict[str, Any]) -> Reader:
    def read(value: Any, path: str, faults: list[str]) -> bytes:
        if type(value) is not str:
            raise SerializationError(f"{kind_of(value)} can not be converted to a Blob at '{path}'")
        try:
            return _decode_base64(value)
        except (binascii.Error, ValueError) as error:
            raise SerializationError(f"STRING_VALUE at '{path}' is not base64") from error

    return read


def _decode_base64(text: str) -> bytes:
    """
    The bytes that base64 stands for.

    >>> _decode_base64("YQ=="), _decode_base64("YWJj\\nZA==\\n")
    (b'a', b'abcd')
    """
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return base64.b64decode("".join(text.split()), validate=True)  # in lines, as the shell's base64 prints it


_READERS: dict[str, Callable[[Shapes, dict[str, Any]], Reader]] = {
    "structure": _read_structure,
    "list": _read_list,
    "string": _read_string,
    "integer": _read_number,
    "long": _read_number,
    "boolean": _read_boolean,
    "blob": _read_blob,
}


def _length_check(shape: dict[str, Any]) -> Callable[[Any, str, list[str]], None]:
    least, most = shape.get("min", 0), shape.get("max")

    def check(value: Any, path: str, faults: list[str]) -> None:
        length = len(value)
        if length < least:
            faults.append(fault(value, path, f"have length greater than or equal to {least}"))
        if most is not None and length > most:
            faults.append(fault(value, path, f"have length less than or equal to {most}"))

    return check


def _pattern(pattern: str) -> re.Pattern[str]:
    """The model's patterns are Java's: ASCII classes, and a hyphen after a class is literal."""
    return re.compile(pattern.removeprefix("^").removesuffix("$").replace("[\\w- ]", "[\\w\\- ]"), re.ASCII)


def writer(shapes: Shapes, name: str) -> Writer | None:
    """The writer of one shape; None where answers of that shape are JSON already."""
    shape = shapes[name]
    if shape["type"] == "timestamp":
        return _write_time
    if shape["type"] == "structure":
        members = {member: writer(shapes, found["shape"]) for member, found in shape["members"].items()}
        writers = [(member, write) for member, write in members.items() if write is not None]
        return _structure_writer(writers) if writers else None
    if shape["type"] == "list":
        write_member = writer(shapes, shape["member"]["shape"])
        return None if write_member is None else lambda items: [write_member(item) for item in items]
    return None


def _write_time(time_ms: int) -> float:
    return time_ms / 1000


def _structure_writer(writers: list[tuple[str, Writer]]) -> Writer:
    def write(value: dict[str, Any]) -> dict[str, Any]:
        written = dict(value)
        for name, write_member in writers:
            if name in written:
                written[name] = write_member(written[name])
        return written

    return write
