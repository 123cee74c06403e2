"""
Conversations with the servers that carry out actions: over in time, whatever the other side does, and with whom they should.

A socket's own timeout starts anew with every byte, and looking up a name knows none at all.
"""

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wheeltapper.clock import SystemClock
from wheeltapper.errors import SettingsError
from wheeltapper_cloud.actions_patience import Patience

LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_OWN_NAME_S = 2.0

_names = Patience(32)
_own_names = Patience(1)


class Deadline:
    """By when a conversation must be over; see ``deadline``."""

    def __init__(self, seconds: float) -> None:
        self._clock = SystemClock()
        self._end = self._clock.monotonic() + seconds
        self._connections: list[socket.socket] = []
        self._lock = threading.Lock()

    def connect(self, host: str, port: int) -> socket.socket:
        """
        A connection to the first of a host's addresses that answers; none may use up the time of those behind it.

        Raises:
            OSError: none does, or the time is up.
        """
        failure = OSError(f"{host} has no address")
        addresses = self._addresses(host, port)
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(self._left() / (len(addresses) - number))
                connection.connect(address)
                connection.settimeout(self._left())
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._watch(connection)
            except OSError as error:
                connection.close()
                failure = error
            else:
                return connection
        raise failure

    def _addresses(self, host: str, port: int) -> list[Any]:
        try:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            return _names.wait(self._left(), lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except UnicodeError as error:
            raise OSError(f"{host}: no name of a host") from error

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self._clock.monotonic() >= self._end

    def _left(self) -> float:
        left = self._end - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError("the time is up")
        return left

    def _watch(self, connection: socket.socket) -> None:
        """Keep a handle of our own: TLS takes the connection over, and whoever closes it frees its number for others."""
        with self._lock:
            self._left()  # later than that, nobody comes any more to shut it
            self._connections.append(connection.dup())

    def shut(self) -> None:
        """End the conversation; whoever waits for the other side fails."""
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def let_go(self) -> None:
        """Forget the conversation."""
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[Deadline]:
    """
    A conversation that is ended when its time is up.

    Raises:
        TimeoutError: what failed did so because of that.
    """
    until = Deadline(seconds)
    timer = threading.Timer(seconds, until.shut)
    timer.daemon = True
    timer.start()
    try:
        yield until
    except (OSError, http.client.HTTPException) as error:
        if until.over:
            raise TimeoutError(f"took longer than {seconds:g} s") from error
        raise
    finally:
        timer.cancel()
        until.let_go()


def own_name(connection: socket.socket) -> str:
    """This machine's full name; where it has none, or nobody says it in time, its address, as mail servers are told it."""
    with contextlib.suppress(TimeoutError):
        name = _own_names.wait(_OWN_NAME_S, socket.getfqdn)
        if "." in name:
            return name
    address = connection.getsockname()[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def tls_context(whose: str, ca: Path | None) -> ssl.SSLContext:
    """
    What verifies servers: by the authority in a file, or those that the system trusts.

    Raises:
        SettingsError: the file holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise SettingsError(f"{whose} ca {ca}: {error.strerror or error}") from error
