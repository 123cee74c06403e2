"""BatchPutMessage over keep-alive connections, each answer checked."""

import base64
import itertools
import json
import multiprocessing
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.cloud_site import INPUTS, MOTORS, Site, payload


def measure_http(site: Site, seconds: float = 5.0, connections: int = 32) -> dict[str, float]:
    """BatchPutMessage calls a second, of one message and of ten."""
    return {f"batch_put_{size}_requests_per_s": _http_rate(site, seconds, connections, size) for size in (1, 10)}


def _http_rate(site: Site, seconds: float, connections: int, size: int) -> float:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    calling = context.Process(target=_call, args=(site.port, seconds, connections, size, results))
    calling.start()
    rate: float = results.get()
    calling.join()
    return rate


def _call(port: int, seconds: float, connections: int, size: int, results: Any) -> None:
    """Keep every connection waiting for an answer; each is checked, and the next request sent at once."""
    numbers = itertools.count()
    poll, sockets = select.poll(), {}
    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[connection.fileno()] = connection
        poll.register(connection, select.POLLIN)
        connection.sendall(_request(numbers, size))
    answers: dict[int, bytes] = {}
    answered, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        for number, _event in poll.poll(1000):
            answers[number] = answer = answers.get(number, b"") + sockets[number].recv(65_536)
            if answer.endswith(b"}"):
                assert answer.startswith(b"HTTP/1.1 200"), answer
                assert answer.endswith(b'{"BatchPutMessageErrorEntries":[]}'), answer
                answers[number] = b""
                answered += 1
                sockets[number].sendall(_request(numbers, size))
    results.put(answered / took)


def _request(numbers: Iterator[int], size: int) -> bytes:
    entries = []
    for number in itertools.islice(numbers, size):
        content = base64.b64encode(payload(number, number % MOTORS, 50.0)).decode()
        entries.append({"messageId": f"{size}-{number}", "inputName": INPUTS[0], "payload": content})
    body = json.dumps({"messages": entries}).encode()
    head = f"POST /inputs/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Content-Type: application/json\r\n\r\n" + body
