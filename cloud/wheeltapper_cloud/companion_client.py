"""
Asks a running cloud companion over HTTP or HTTPS, signed where the environment holds an access key.

The same variables count as for boto3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_CA_BUNDLE for a certificate of an
authority of one's own.
"""

import json
import os
import ssl
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from wheeltapper.errors import DataError, SettingsError, UnavailableError
from wheeltapper_cloud.guard import is_loopback

_TIMEOUT_S = 30
_AUTHORITY = "AWS_CA_BUNDLE"


def ask(server: str, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """
    One request to a cloud companion.

    Args:
        server: its address, ``http://…`` or ``https://…``.
        method: of HTTP.
        path: encoded, with the query.
        body: sent as JSON.

    Raises:
        SettingsError: the address or the authority's file is none.
        UnavailableError: nobody answers, or not now.
        DataError: the request is refused; says why.
    """
    opener = _opener(server)
    content = None if body is None else json.dumps(body).encode()
    url = server.rstrip("/") + path
    headers = _signed(method, url, content)
    try:
        request = urllib.request.Request(url, content, headers, method=method)  # noqa: S310 - the opener has http and https only
        with opener.open(request, timeout=_TIMEOUT_S) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        raise _refusal(server, error) from error
    except (OSError, ValueError) as error:
        raise UnavailableError(f"{server}: {_why(error)}") from error
    if not isinstance(answer, dict):
        raise UnavailableError(f"{server}: whoever answers there is no cloud companion")
    return answer


def _opener(server: str) -> urllib.request.OpenerDirector:
    """Speaks HTTP and HTTPS to the server that is named, and goes nowhere else: a companion points to no other."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({} if is_loopback(_host_of(server)) else None),  # no proxy leads to this machine
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=_context()),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _host_of(server: str) -> str:
    try:
        parts = urlsplit(server)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts.hostname
    except ValueError:
        pass
    raise SettingsError(f"--server {server}: must be http:// or https://, a host and its port")


def _context() -> ssl.SSLContext:
    authority = os.environ.get(_AUTHORITY)
    try:
        return ssl.create_default_context(cafile=authority or None)
    except OSError as error:
        raise SettingsError(f"{_AUTHORITY}={authority}: {error.strerror or 'holds no certificate'}") from error


def _refusal(server: str, error: urllib.error.HTTPError) -> DataError | UnavailableError:
    try:
        said = str(json.loads(error.read())["message"])
    except (OSError, ValueError, KeyError, TypeError):
        return UnavailableError(f"{server}: whoever answers there is no cloud companion (HTTP {error.code})")
    if error.code >= 500:
        return UnavailableError(f"{server}: {said}")
    if error.code == 403 and not _credentials():
        said += "; export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY as `wheeltapper cloud keys create` shows them"
    return DataError(said)


def _why(error: OSError | ValueError) -> str:
    """What went wrong on the way, and what to do about it."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        if "mismatch" in reason.verify_message:
            return f"its certificate is for another name ({reason.verify_message.rstrip('.')})"
        return f"its certificate is not trusted ({reason.verify_message}); name the authority's file in {_AUTHORITY}"
    if isinstance(reason, ssl.SSLError):
        return "does not speak HTTPS; say http://"
    if isinstance(reason, ConnectionRefusedError):
        return "nobody answers; start it with: wheeltapper cloud serve; or say where it is: --server"
    if isinstance(reason, TimeoutError):
        return f"no answer within {_TIMEOUT_S} s"
    if isinstance(reason, ValueError | ConnectionError):
        return "whoever answers there is no cloud companion, or speaks https:// only"
    return str(getattr(reason, "strerror", None) or reason)


def _credentials() -> tuple[str, str] | None:
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    return (key, secret) if key and secret else None


def _signed(method: str, url: str, content: bytes | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    credentials = _credentials()
    if credentials is None:
        return headers
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest(method=method, url=url, data=content or b"", headers=headers)
    SigV4Auth(Credentials(*credentials), "iotevents", os.environ.get("AWS_REGION", "us-east-1")).add_auth(request)
    return dict(request.headers)
