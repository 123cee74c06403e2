"""A request as it was received: its body, no larger and no slower than is allowed, and what a signature covers."""

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from wheeltapper_cloud.signature import SignedRequest
from wheeltapper_cloud.wire import ServiceError

_TIMEOUT_S = 30.0
_UNREAD = ("RequestEntityTooLargeException", "RequestTimeoutException")


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """
    The whole body.

    Raises:
        ServiceError: it is larger than the limit, or does not arrive in time.
        ClientDisconnect: nobody is there any more.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or int(value) > limit):
            raise _too_large(limit)
    parts: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > limit:
                    raise _too_large(limit)
                more = message.get("more_body", False)
    except TimeoutError as error:
        raise ServiceError("RequestTimeoutException", "the body did not arrive in time") from error
    return parts[0] if len(parts) == 1 else b"".join(parts)


def raw_path(scope: Scope) -> str:
    """The path as it came, percent-encoded."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.decode("latin-1").partition("?")[0]


def signed_request(scope: Scope, body: bytes) -> SignedRequest:
    """What a signature is verified against."""
    query = scope["query_string"].decode("latin-1")
    return SignedRequest(scope["method"], raw_path(scope), query, scope["headers"], body)


def is_unread(refusal: ServiceError) -> bool:
    """Whether a request was refused before all of its body was read, so that its connection is of no more use."""
    return refusal.code in _UNREAD


def _too_large(limit: int) -> ServiceError:
    return ServiceError("RequestEntityTooLargeException", f"the body exceeds {limit} bytes")
