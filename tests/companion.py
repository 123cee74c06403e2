"""A cloud companion on a free loopback port, for tests that call it as clients do."""

import contextlib
import http.client
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.loopback import free_port, wait_for_port
from wheeltapper.clock import Clock, SystemClock
from wheeltapper.transport import Transport
from wheeltapper_cloud.serve import Companion, http_server
from wheeltapper_cloud.settings import CloudSettings


class Served:
    """A companion that is being served."""

    def __init__(self, companion: Companion, port: int) -> None:
        self.companion = companion
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def call(
        self, method: str, uri: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        """One request; a body that is not bytes is sent as JSON. Gives status, decoded body and headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, uri, sent, dict(headers or {}))
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text[:1] in (b"{", b"[") else text, response.headers
        finally:
            connection.close()


@contextlib.contextmanager
def serving(
    data_dir: Path,
    settings: CloudSettings | None = None,
    *,
    clock: Clock | None = None,
    transport: Transport | None = None,
) -> Iterator[Served]:
    """Serve until the block ends."""
    settings = settings or CloudSettings()
    companion = Companion(settings, data_dir, clock or SystemClock(), transport)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = None
    try:
        companion.start()
        server = http_server(companion, settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        wait_for_port(port)
        yield Served(companion, port)
    finally:
        if thread is not None:
            server.should_exit = True
            thread.join(20)
        listener.close()
        companion.close()


def start(port: int, data_dir: Path) -> subprocess.Popen[bytes]:
    """A companion in a process of its own, once it listens."""
    command = [sys.executable, "-m", "wheeltapper.cli", "cloud", "serve"]
    server = subprocess.Popen(
        [*command, "--port", str(port), "--data-dir", str(data_dir)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for_port(port, 60.0)
    return server


@contextlib.contextmanager
def in_own_process(data_dir: Path, ending: signal.Signals) -> Iterator[Served]:
    """Serve in a process of its own, which a signal ends with the block."""
    port = free_port()
    server = start(port, data_dir)
    try:
        yield Served(None, port)  # type: ignore[arg-type]  # it is in another process
    finally:
        server.send_signal(ending)
        server.wait(60)


@contextlib.contextmanager
def logging_kept() -> Iterator[None]:
    """Take back what a command that ran in this process did to the root logger."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
