"""The event-stream frame, written from its specification: what the stand-in nucleus reads and writes."""

import struct
import zlib
from typing import Any, NamedTuple

MESSAGE, ERROR, PING, PING_RESPONSE, CONNECT, CONNECT_ACK = range(6)
ACCEPTED, TERMINATE = 1, 2

_PRELUDE = 12
_FIXED = {2: ">b", 3: ">h", 4: ">i", 5: ">q", 8: ">q"}


class Frame(NamedTuple):
    """One frame; ``headers`` holds the three that every frame has as well."""

    headers: dict[str, Any]
    payload: bytes

    @property
    def type(self) -> int:
        return int(self.headers[":message-type"])

    @property
    def flags(self) -> int:
        return int(self.headers[":message-flags"])

    @property
    def stream(self) -> int:
        return int(self.headers[":stream-id"])


def frame(type_: int, flags: int, stream: int, payload: bytes = b"", **headers: str) -> bytes:
    """The bytes of a frame; a header's ``_`` stands for ``-`` and a leading ``content`` for ``:content``."""
    named: dict[str, Any] = {
        (":" + name if name.startswith("content") else name).replace("_", "-"): value for name, value in headers.items()
    }
    named |= {":message-type": type_, ":message-flags": flags, ":stream-id": stream}
    block = b"".join(_header(name, value) for name, value in named.items())
    prelude = struct.pack(">II", _PRELUDE + len(block) + len(payload) + 4, len(block))
    head = prelude + struct.pack(">I", zlib.crc32(prelude)) + block + payload
    return head + struct.pack(">I", zlib.crc32(head))


def _header(name: str, value: int | str) -> bytes:
    key = name.encode()
    start = bytes([len(key)]) + key
    if isinstance(value, int):
        return start + struct.pack(">Bi", 4, value)
    text = value.encode()
    return start + struct.pack(">BH", 7, len(text)) + text


def length_of(prelude: bytes) -> int:
    """How long the frame is of which these are the first 12 bytes; ValueError where they were damaged."""
    total, _headers, checksum = struct.unpack(">III", prelude)
    if zlib.crc32(prelude[:8]) != checksum or total < 16:
        raise ValueError("damaged prelude")
    return int(total)


def parse(data: bytes) -> Frame:
    """The frame in exactly these bytes."""
    total, length, _ = struct.unpack(">III", data[:_PRELUDE])
    if zlib.crc32(data[:-4]) != struct.unpack(">I", data[-4:])[0] or total != len(data):
        raise ValueError("damaged frame")
    headers: dict[str, Any] = {}
    place, end = _PRELUDE, _PRELUDE + length
    while place < end:
        size = data[place]
        name = data[place + 1 : place + 1 + size].decode()
        place += 1 + size
        kind = data[place]
        place += 1
        if kind in (0, 1):
            headers[name] = kind == 0
        elif kind in _FIXED:
            width = struct.calcsize(_FIXED[kind])
            headers[name] = struct.unpack(_FIXED[kind], data[place : place + width])[0]
            place += width
        elif kind in (6, 7):
            (width,) = struct.unpack(">H", data[place : place + 2])
            raw = data[place + 2 : place + 2 + width]
            headers[name] = raw.decode() if kind == 7 else raw
            place += 2 + width
        else:
            headers[name] = data[place : place + 16]
            place += 16
    return Frame(headers, data[end:-4])
