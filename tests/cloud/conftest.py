"""Servers that do as told, for the tests of what stands in for AWS."""

import socketserver
import ssl
import threading
from pathlib import Path
from typing import NamedTuple

import pytest

from wheeltapper.certs import Authority
from wheeltapper.clock import SystemClock


def serve(answer, context=None):
    """A server that does one thing with every connection; gives its port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            try:
                connection = self.request if context is None else context.wrap_socket(self.request, server_side=True)
                answer(connection)
            except OSError:
                pass

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def serving():
    servers = []

    def start(answer, context=None):
        servers.append(serve(answer, context))
        return servers[-1].server_address[1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class Tls(NamedTuple):
    """A server's side of TLS, and the authority that vouches for it."""

    context: ssl.SSLContext
    ca: Path


@pytest.fixture
def tls(tmp_path):
    authority = Authority(tmp_path / "certs", SystemClock())
    authority.create()
    folder = authority.issue("broker", names=["localhost"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "broker.crt", folder / "broker.key")
    return Tls(context, tmp_path / "certs" / "ca" / "ca.crt")
