"""Just enough MQTT 3.1.1 over a socket to load a broker and to time it without a client library in the way."""

import socket
import struct
from collections.abc import Iterator


def packet(kind: int, body: bytes) -> bytes:
    """One control packet."""
    length, encoded = len(body), b""
    while True:
        digit, length = length % 128, length // 128
        encoded += bytes([digit | (0x80 if length else 0)])
        if not length:
            return bytes([kind]) + encoded + body


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">H", len(encoded)) + encoded


def publish(topic: str, payload: bytes, number: int) -> bytes:
    """A PUBLISH of QoS 1."""
    return packet(0x32, _text(topic) + struct.pack(">H", number % 65535 + 1) + payload)


class RawClient:
    """One connection, blocking; acknowledges what it receives."""

    def __init__(self, port: int, name: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._place = 0
        self.send(packet(0x10, _text("MQTT") + bytes([4, 2]) + struct.pack(">H", 0) + _text(name)))
        next(self.packets())

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def subscribe(self, topic_filter: str) -> None:
        self.send(packet(0x82, struct.pack(">H", 1) + _text(topic_filter) + b"\x01"))
        next(self.packets())

    def packets(self) -> Iterator[tuple[int, bytes]]:
        """Packets as they come: (first byte, body)."""
        while True:
            yield from self._whole()
            data = self._socket.recv(1 << 18)
            if not data:
                return
            self._buffer, self._place = self._buffer[self._place :] + data, 0

    def messages(self) -> Iterator[list[tuple[str, bytes]]]:
        """Received publishes, as many at a time as have come; acknowledged before they are given."""
        while True:
            found, acknowledgements = [], []
            for kind, body in self._whole():
                if kind & 0xF0 == 0x30:
                    end = 2 + struct.unpack_from(">H", body)[0]
                    found.append((body[2:end].decode(), body[end + 2 :]))
                    acknowledgements.append(b"\x40\x02" + body[end : end + 2])
            if acknowledgements:
                self.send(b"".join(acknowledgements))
                yield found
            data = self._socket.recv(1 << 18)
            if not data:
                return
            self._buffer, self._place = self._buffer[self._place :] + data, 0

    def _whole(self) -> Iterator[tuple[int, bytes]]:
        buffer = self._buffer
        while len(buffer) - self._place >= 2:
            length, shift, start = 0, 0, self._place + 1
            while start < len(buffer):
                digit = buffer[start]
                length |= (digit & 0x7F) << shift
                start, shift = start + 1, shift + 7
                if not digit & 0x80:
                    break
            else:
                return
            if len(buffer) < start + length:
                return
            kind = buffer[self._place]
            self._place = start + length
            yield kind, buffer[start : start + length]

    def close(self) -> None:
        self._socket.close()
