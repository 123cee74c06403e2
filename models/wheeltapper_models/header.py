"""
The head of an ONNX file, read without the onnx library, which the edge does not have.

Only the fields of ModelProto that matter before a runtime sees the file: IR version (1), opsets (8), metadata (14).
"""

from collections.abc import Iterator
from typing import NamedTuple

from wheeltapper.errors import ModelError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Header(NamedTuple):
    """What a file says of itself; ``opset`` is that of the standard operators, ``other_domains`` need a special runtime."""

    ir_version: int
    opset: int
    other_domains: dict[str, int]
    metadata: dict[str, str]


def read_header(model: bytes, where: str) -> Header:
    """
    The head of a model's bytes.

    Raises:
        ModelError: these are not the bytes of an ONNX model.
    """
    ir_version, opset, others, metadata = 0, 0, {}, {}
    try:
        for field, value in _fields(model):
            if field == 1 and isinstance(value, int):
                ir_version = value
            elif field == 8 and isinstance(value, bytes):
                parts = dict(_fields(value))
                domain, version = _text(parts.get(1, b"")), _number(parts.get(2, 0))
                if domain in ("", "ai.onnx"):
                    opset = version
                else:
                    others[domain] = version
            elif field == 14 and isinstance(value, bytes):
                parts = dict(_fields(value))
                metadata[_text(parts.get(1, b""))] = _text(parts.get(2, b""))
    except (IndexError, ValueError) as error:
        raise ModelError(f"{where}: is not an ONNX file, or is cut short") from error
    if not ir_version:
        raise ModelError(f"{where}: is not an ONNX file: it has no IR version")
    return Header(ir_version, opset, others, metadata)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            length, place = _varint(message, place)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        if place + length > len(message):
            raise IndexError(place)
        yield tag >> 3, message[place : place + length]
        place += length


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("a number is longer than 64 bits")


def _text(value: int | bytes) -> str:
    if not isinstance(value, bytes):
        raise ValueError("text expected")
    return value.decode()


def _number(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("number expected")
    return value
