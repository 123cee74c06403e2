"""MQTT 3.1.1 on the wire: the packets a client of QoS 1 sends, and a splitter for what it receives."""

import struct
from collections.abc import Sequence

from wheeltapper.errors import MessageError

CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK = 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x90
PINGRESP = 0xD0
PINGREQ, DISCONNECT = b"\xc0\x00", b"\xe0\x00"

_MAX_LENGTH = 268_435_455
_number = struct.Struct(">H")


def connect(
    client_id: str, *, clean: bool, keep_alive_s: int, username: str = "", password: str | None = None
) -> bytes:
    """CONNECT (§3.1)."""
    flags = (0x02 if clean else 0) | (0x80 if username else 0) | (0x40 if username and password is not None else 0)
    body = _text("MQTT") + bytes([4, flags]) + _number.pack(keep_alive_s) + _text(client_id)
    if username:
        body += _text(username)
        if password is not None:
            body += _text(password)
    return _packet(0x10, body)


def subscribe(number: int, filters: Sequence[str]) -> bytes:
    """SUBSCRIBE at QoS 1 (§3.8)."""
    return _packet(0x82, _number.pack(number) + b"".join(_text(name) + b"\x01" for name in filters))


def publish(topic: str, payload: bytes, number: int) -> bytes:
    """
    PUBLISH at QoS 1 (§3.3).

    Raises:
        MessageError: topic or payload are longer than the protocol allows.
    """
    return _packet(0x32, _text(topic) + _number.pack(number) + payload)


def answer(kind: int, number: bytes) -> bytes:
    """PUBACK, PUBREC or PUBCOMP for a packet number of two bytes."""
    return bytes((kind, 2)) + number


def number_of(body: bytes) -> int:
    """The packet number that an acknowledgement begins with."""
    return int.from_bytes(body[:2], "big")


def read_publish(kind: int, body: bytes) -> tuple[str, bytes, bytes]:
    """
    Topic, payload and number (two bytes; none with QoS 0) of a PUBLISH.

    Raises:
        ValueError: the body is not one of a PUBLISH.
    """
    end = 2 + (body[0] << 8 | body[1])
    topic = body[2:end].decode()
    if not kind & 0x06:
        return topic, body[end:], b""
    return topic, body[end + 2 :], body[end : end + 2]


class Splitter:
    """
    Takes a stream of bytes apart into packets.

    >>> splitter = Splitter()
    >>> splitter.feed(b"\\x40\\x02\\x00"), splitter.feed(b"\\x07\\xd0\\x00")
    ([], [(64, b'\\x00\\x07'), (208, b'')])
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._missing = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """
        The packets that are whole by now, as (first byte, body).

        Raises:
            ValueError: a length is not one of MQTT.
        """
        self._pieces.append(data)
        self._missing -= len(data)
        if self._missing > 0:
            return []
        buffer = data if len(self._pieces) == 1 else b"".join(self._pieces)
        found: list[tuple[int, bytes]] = []
        place, end, stop = 0, len(buffer), 0
        while place < end:
            length, start = _length(buffer, place + 1)
            stop = start + length
            if stop > end:
                break
            found.append((buffer[place], buffer[start:stop]))
            place = stop
        self._pieces = [buffer[place:]] if place < end else []
        self._missing = max(stop - end, 0)
        return found


def _length(buffer: bytes, place: int) -> tuple[int, int]:
    """Remaining length and where the body starts (§2.2.3); one byte beyond the buffer where it does not end in it."""
    end = len(buffer)
    if place < end and buffer[place] < 0x80:
        return buffer[place], place + 1
    length = shift = 0
    while place < end:
        digit = buffer[place]
        length |= (digit & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if digit < 0x80:
            return length, place
        if shift > 21:
            raise ValueError("a remaining length of more than four bytes")
    return 1, end


def _text(text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) > 65_535:
        raise MessageError(f"{text[:40]!r}…: longer than the 65535 bytes that MQTT allows")
    return _number.pack(len(encoded)) + encoded


def _packet(kind: int, body: bytes) -> bytes:
    length, head = len(body), bytearray([kind])
    if length > _MAX_LENGTH:
        raise MessageError(f"message of {length} bytes: MQTT allows {_MAX_LENGTH}")
    while length > 127:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + body
