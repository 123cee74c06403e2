"""A broker that speaks MQTT 3.1.1, and hangs up on what it forbids."""

import contextlib
import socketserver
import threading
from collections.abc import Iterator
from typing import cast

from wheeltapper.transport.mqtt_packets import CONNACK, PUBACK, PUBLISH, SUBACK, Splitter, answer, read_publish

SUBSCRIBE = 0x82


class _Session(socketserver.BaseRequestHandler):
    """MQTT 3.1.1 as far as most need it; hangs up on topics that begin with ``forbidden``."""

    def handle(self) -> None:
        splitter, server = Splitter(), cast(HangingUp, self.server)
        while data := self.request.recv(65_536):
            for kind, body in splitter.feed(data):
                if kind & 0xF0 == 0x10:
                    self.request.sendall(bytes((CONNACK, 2, 0, 0)))
                elif kind == SUBSCRIBE:
                    self.request.sendall(bytes((SUBACK, 3)) + body[:2] + b"\x01")
                elif kind & 0xF0 == PUBLISH:
                    topic, payload, number = read_publish(kind, body)
                    if topic.startswith("forbidden"):
                        return
                    server.heard.append(payload.decode())
                    self.request.sendall(answer(PUBACK, number))


class HangingUp(socketserver.ThreadingTCPServer):
    """A broker that knows no other way to say no."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.heard: list[str] = []


@contextlib.contextmanager
def hanging_up() -> Iterator[HangingUp]:
    """Such a broker, until the block ends."""
    with HangingUp() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
