"""
The HTTP server: finds the operation a request asks for, has it checked and answered, and nothing else.

Operations that wait for the judge run on a few threads; BatchPutMessage waits in the event loop, so that any number of
senders can wait for one group commit. Beside the operations there are ``/health/live``, ``/health/ready`` and ``/metrics``.
"""

import asyncio
import functools
import inspect
import itertools
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from wheeltapper.clock import Clock
from wheeltapper.errors import UnavailableError
from wheeltapper_cloud.guard import Guard
from wheeltapper_cloud.iotevents import AsyncHandler, Handler, service_error
from wheeltapper_cloud.iotevents_account import Call
from wheeltapper_cloud.metrics import CONTENT_TYPE, Metrics
from wheeltapper_cloud.received import is_unread, raw_path, read_body, signed_request
from wheeltapper_cloud.settings import ServerSettings
from wheeltapper_cloud.wire import NO_CONTENT, Operation, Operations, ServiceError

THREADS = 8


class Endpoint:
    """The ASGI application that answers every operation of both services."""

    def __init__(
        self,
        operations: Operations,
        handlers: Mapping[str, Handler | AsyncHandler],
        guard: Guard,
        metrics: Metrics,
        clock: Clock,
        settings: ServerSettings,
    ) -> None:
        self._operations = operations
        self._guard = guard
        self._metrics = metrics
        self._clock = clock
        self._body_limit = settings.body_limit
        self._timeout_s = settings.timeout_s
        self._process_id = str(uuid.uuid4())[:24].encode()
        self._numbers = itertools.count(1)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="operation")
        self._answers = {name: self._awaitable(handler) for name, handler in handlers.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = self._clock.monotonic()
        name = "unknown"
        headers = [(b"x-amzn-requestid", self._request_id())]
        try:
            body = await read_body(scope, receive, self._body_limit)
            operation, labels = self._find(scope)
            name = operation.name
            status, answer = operation.status, await self._answer(scope, operation, labels, body)
        except ClientDisconnect:
            return
        except Exception as error:  # the edge of a request: every failure is an answer
            refusal = service_error(error)
            status, answer = refusal.status, refusal.body()
            headers.append((b"x-amzn-errortype", refusal.code.encode()))
            if is_unread(refusal):
                headers.append((b"connection", b"close"))
        if status != NO_CONTENT:
            headers += [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})
        self._metrics.answered(name, status, self._clock.monotonic() - began)

    def _request_id(self) -> bytes:
        """In the form of a UUID: a random beginning for this process, then a count."""
        return b"%b%012x" % (self._process_id, next(self._numbers) & 0xFFFFFFFFFFFF)

    def _find(self, scope: Scope) -> tuple[Operation, dict[str, str]]:
        found = self._operations.find(scope["method"], raw_path(scope))
        if found is None:
            raise ServiceError("UnknownOperationException", f"no operation is {scope['method']} {scope['path']}"[:1024])
        return found

    async def _answer(self, scope: Scope, operation: Operation, labels: dict[str, str], body: bytes) -> bytes:
        signed = signed_request(scope, body)
        by = self._guard.admit(signed, operation.service)
        request = operation.read(labels, signed.query, body)
        call = Call(request=request, by=by, migrate=_wants_migration(scope))
        try:
            async with asyncio.timeout(self._timeout_s):
                return operation.write(await self._answers[operation.name](call))
        except TimeoutError as error:
            raise UnavailableError("judge: did not answer in time; send the request again") from error

    def _awaitable(self, handler: Handler | AsyncHandler) -> Callable[[Call], Awaitable[dict[str, Any]]]:
        if inspect.iscoroutinefunction(handler):
            return handler
        return functools.partial(self._on_thread, cast(Handler, handler))

    async def _on_thread(self, handler: Handler, call: Call) -> dict[str, Any]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, handler, call)


def application(endpoint: Endpoint, metrics: Metrics, ready: Callable[[], str], more: Sequence[Route] = ()) -> ASGIApp:
    """
    The whole of what one port serves.

    Args:
        endpoint: answers the operations.
        metrics: answers Prometheus.
        ready: why work cannot be taken now; empty when it can.
        more: further routes for people; no operation may begin as they do.
    """

    def live(request: Request) -> Response:
        return JSONResponse({"status": "live"})

    def readiness(request: Request) -> Response:
        reason = ready()
        return JSONResponse({"status": reason or "ready"}, 503 if reason else 200)

    def scrape(request: Request) -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    routes = [Route("/health/live", live), Route("/health/ready", readiness), Route("/metrics", scrape), *more]
    beginnings = frozenset(_beginning(route.path) for route in routes)
    for_people = Starlette(routes=routes)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        chosen = for_people if _beginning(scope["path"]) in beginnings else endpoint
        await chosen(scope, receive, send)

    return serve


def _beginning(path: str) -> str:
    """The first segment of a path."""
    return path[1:].partition("/")[0]


def _wants_migration(scope: Scope) -> bool:
    if b"migrate=true" in scope["query_string"].split(b"&"):
        return True
    return any(name == b"x-wheeltapper-migrate" and value.lower() == b"true" for name, value in scope["headers"])
