"""The executor that POSTs payloads, signed."""

import contextlib
import hashlib
import hmac
import http.client
import re
from urllib.parse import urlsplit

from wheeltapper.clock import Clock
from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.judge import Action
from wheeltapper.judge.delivery import Result, Settled
from wheeltapper.secret_files import read_secret
from wheeltapper_cloud.actions_connection import LOOPBACK, Deadline, deadline, tls_context
from wheeltapper_cloud.actions_json import decoded
from wheeltapper_cloud.actions_settings import ToWebhook

_RETRIED_STATUS = {408, 425, 429}
_PATH = re.compile(r"[!-~]*")
_SECRET_LENGTH = 16


class WebhookExecutor:
    """
    POSTs payloads.

    Headers: ``X-Wheeltapper-Action-Id`` (the same in every repeat), ``X-Wheeltapper-Time`` (seconds) and
    ``X-Wheeltapper-Signature`` = ``sha256=`` HMAC of ``time.id.body``. Redirects are not followed.

    Raises:
        SettingsError: the URL is neither https nor http on loopback, or the secret cannot be read or is short.
    """

    immediate = False

    def __init__(self, settings: ToWebhook, clock: Clock) -> None:
        self._host, self._port, self._path, tls = _address(settings.url)
        self._context = tls_context("webhook", settings.ca) if tls else None
        self._secret = read_secret(settings.secret_file, "webhook secret_file").encode()
        if len(self._secret) < _SECRET_LENGTH:
            raise SettingsError(
                f"webhook secret_file {settings.secret_file}: must hold at least {_SECRET_LENGTH} characters"
            )
        self._timeout_s = settings.timeout_s
        self._clock = clock

    def execute(self, action: Action, settled: Settled) -> None:
        stamp = str(self._clock.time_ms() // 1000)
        signed = b".".join((stamp.encode(), action.id.encode(), action.payload))
        kind = "text/plain; charset=utf-8" if decoded(action.payload) is None else "application/json"
        headers = {
            "Content-Type": kind,
            "X-Wheeltapper-Action-Id": action.id,
            "X-Wheeltapper-Time": stamp,
            "X-Wheeltapper-Signature": "sha256=" + hmac.new(self._secret, signed, hashlib.sha256).hexdigest(),
        }
        settled(_judged(self._post(action.payload, headers)))

    def _post(self, body: bytes, headers: dict[str, str]) -> int:
        try:
            with deadline(self._timeout_s) as until, contextlib.closing(self._connected(until)) as connection:
                connection.request("POST", self._path, body, headers)
                return connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(f"webhook {self._host}: {error or type(error).__name__}") from error

    def _connected(self, until: Deadline) -> http.client.HTTPConnection:
        if self._context is None:
            plain = http.client.HTTPConnection(self._host, self._port)
            plain.sock = until.connect(self._host, plain.port)
            return plain
        secure = http.client.HTTPSConnection(self._host, self._port, context=self._context)
        connection = until.connect(self._host, secure.port)
        secure.sock = self._context.wrap_socket(connection, server_hostname=self._host)
        return secure


def _address(url: str) -> tuple[str, int | None, str, bool]:
    """
    Host, port, path with query, and whether it is TLS.

    Raises:
        SettingsError: it is neither https nor http on loopback, holds credentials, or is no address.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise SettingsError(f"webhook {url!r}: {error}") from error
    if parts.username is not None or parts.password is not None:
        raise SettingsError(f"webhook {host}: no credentials in the address; receivers verify the signature")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not host or not _PATH.fullmatch(path):
        raise SettingsError(f"webhook {url!r}: must be https://host/path, without blanks")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in LOOPBACK):
        raise SettingsError(f"webhook {url!r}: must be https, or http on loopback")
    return host, port, path, parts.scheme == "https"


def _judged(status: int) -> Result:
    if 200 <= status < 300:
        return Result("delivered", f"HTTP {status}")
    return Result("retry" if status >= 500 or status in _RETRIED_STATUS else "failed", f"HTTP {status}")
