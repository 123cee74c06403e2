"""Ports of 127.0.0.1: whether one is free, and one that is."""

import contextlib
import errno
import random
import socket

from wheeltapper.errors import UnavailableError

# Below the range from which systems take the near end of a connection (Linux from 32768, others from 49152): a port from
# there may be somebody's by the time a server asks for it, and a client that keeps trying it may end up connected to itself.
_OURS = range(20_000, 32_000)


def check_port(port: int) -> None:
    """
    Raise unless a server may listen on this port of 127.0.0.1.

    Raises:
        UnavailableError: it is taken, or no port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            why = "is taken" if taken else f"cannot be used ({error})"
            raise UnavailableError(f"port {port} on 127.0.0.1 {why}; choose another with --port N") from error


def free_port() -> int:
    """
    A port of 127.0.0.1 that nobody listens on, and that nobody is likely to take before it is used.

    Raises:
        UnavailableError: none of very many is free.
    """
    for port in random.SystemRandom().sample(_OURS, 1_000):
        with contextlib.suppress(UnavailableError):
            check_port(port)
            return port
    raise UnavailableError("no port of 127.0.0.1 is free; end some of what listens there")
