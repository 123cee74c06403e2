"""Ports on 127.0.0.1, and waiting for what servers do, for tests that start them."""

import socket
import time
from collections.abc import Callable

from wheeltapper.up.ports import free_port as free_port


def wait_for_port(port: int, timeout_s: float = 60.0) -> None:
    """Return when somebody listens on the port of 127.0.0.1."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError(f"nobody listens on port {port}")


def wait_until(holds: Callable[[], bool], timeout_s: float = 90.0) -> None:
    """Return when it holds."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError("what was waited for did not come")
        time.sleep(0.01)
