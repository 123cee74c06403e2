"""The executors that need no AWS: webhook, e-mail, file, command."""

import contextlib
import errno
import hashlib
import hmac
import http.client
import json
import os
import re
import smtplib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from email.utils import formatdate, getaddresses
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wheeltapper.clock import Clock
from wheeltapper.errors import MessageError, SettingsError, UnavailableError
from wheeltapper.judge import Action
from wheeltapper.judge.delivery import Result, Settled
from wheeltapper_cloud.actions_program import run_program
from wheeltapper_cloud.actions_settings import CommandSettings, SmtpSettings, ToEmail, ToWebhook

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_RETRIED_STATUS = {408, 425, 429}
_PATH = re.compile(r"[!-~]*")
_SECRET_LENGTH = 16


def as_json(content: Any, indent: int | None = None) -> str:
    """Text that a person can read and UTF-8 can carry: half of a surrogate pair stays an escape."""
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()


def describe(action: Action) -> dict[str, Any]:
    """An action as JSON, for files and commands; a payload that is JSON stays JSON."""
    payload = _decoded(action.payload)
    if payload is None:
        payload = action.payload.decode("utf-8", "replace")
    return {
        "id": action.id,
        "time_ms": action.time_ms,
        "detector": action.model,
        "key": action.key,
        "thing": action.thing,
        "event": action.event,
        "type": action.type,
        "target": action.target,
        "parameters": action.parameters,
        "payload": payload,
    }


def _decoded(payload: bytes) -> Any:
    """What JSON text says; None where it is not JSON (or says null)."""

    def refuse(name: str) -> Any:
        raise ValueError(name)

    try:
        return json.loads(payload, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None


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
        self._context = _tls_context("webhook", settings.ca) if tls else None
        self._secret = _read_secret(settings.secret_file).encode()
        if len(self._secret) < _SECRET_LENGTH:
            raise SettingsError(
                f"webhook secret_file {settings.secret_file}: must hold at least {_SECRET_LENGTH} characters"
            )
        self._timeout_s = settings.timeout_s
        self._clock = clock

    def execute(self, action: Action, settled: Settled) -> None:
        stamp = str(self._clock.time_ms() // 1000)
        signed = b".".join((stamp.encode(), action.id.encode(), action.payload))
        kind = "text/plain; charset=utf-8" if _decoded(action.payload) is None else "application/json"
        headers = {
            "Content-Type": kind,
            "X-Wheeltapper-Action-Id": action.id,
            "X-Wheeltapper-Time": stamp,
            "X-Wheeltapper-Signature": "sha256=" + hmac.new(self._secret, signed, hashlib.sha256).hexdigest(),
        }
        settled(_judged(self._post(action.payload, headers)))

    def _post(self, body: bytes, headers: dict[str, str]) -> int:
        connection = self._connection()
        try:
            connection.connect()
            with _ended_after(self._timeout_s, connection.sock):
                connection.request("POST", self._path, body, headers)
                return connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(f"webhook {self._host}: {error or type(error).__name__}") from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._context)


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
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK):
        raise SettingsError(f"webhook {url!r}: must be https, or http on loopback")
    return host, port, path, parts.scheme == "https"


@contextlib.contextmanager
def _ended_after(seconds: float, connection: socket.socket) -> Iterator[None]:
    """End a conversation when its time is up: a socket's own timeout starts anew with every byte."""
    late = threading.Event()

    def end() -> None:
        late.set()
        with contextlib.suppress(OSError):  # under TLS: its own shutdown would let what is still sent go in clear
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException):
        if late.is_set():
            raise TimeoutError(f"took longer than {seconds:g} s") from None
        raise
    finally:
        timer.cancel()


def _judged(status: int) -> Result:
    if 200 <= status < 300:
        return Result("delivered", f"HTTP {status}")
    return Result("retry" if status >= 500 or status in _RETRIED_STATUS else "failed", f"HTTP {status}")


class Mailer:
    """
    Sends e-mail through one server.

    Raises:
        SettingsError: the password is missing or cannot be read, or would be sent unencrypted off loopback.
    """

    def __init__(self, settings: SmtpSettings) -> None:
        self._settings = settings
        if bool(settings.username) != (settings.password_file is not None):
            raise SettingsError(f"smtp {settings.host}: username and password_file go together; give both or neither")
        self._password = _read_secret(settings.password_file) if settings.password_file else ""
        if settings.security == "none" and settings.host not in _LOOPBACK:
            raise SettingsError(f'smtp {settings.host}: security = "none" is for loopback only; use starttls or tls')
        self._context = _tls_context("smtp", settings.ca)

    def send(
        self, sender: str, recipients: Sequence[str], subject: str, body: str, message_id: str, time_ms: int
    ) -> str:
        """
        Send one mail; the id becomes its Message-ID, so that a repeat can be told.

        Returns:
            Whom the server refused, where it took others; else nothing.

        Raises:
            UnavailableError: the server is away or asks, for anyone of them, to come again.
            MessageError: it refuses sender, all recipients or content, or an address is none.
        """
        mail = _compose(sender, recipients, subject, body)
        mail["Message-ID"] = f"<{message_id}@wheeltapper>"
        mail["Date"] = formatdate(time_ms / 1000)
        where = f"smtp {self._settings.host}"
        try:
            refused = self._deliver(mail)
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
            if all(code >= 500 for code, _ in refused.values()):
                raise MessageError(f"{where}: recipients refused: {_refusals(refused)}") from error
        except smtplib.SMTPResponseException as error:
            kind = UnavailableError if 400 <= error.smtp_code < 500 else MessageError
            raise kind(f"{where}: {error.smtp_code} {_text(error.smtp_error)}") from error
        except smtplib.SMTPNotSupportedError as error:
            raise MessageError(f"{where}: {error}") from error
        except (OSError, smtplib.SMTPException) as error:
            raise UnavailableError(f"{where}: {error}") from error
        if any(code < 500 for code, _ in refused.values()):
            raise UnavailableError(f"{where}: recipients refused for now: {_refusals(refused)}")
        return f"recipients refused: {_refusals(refused)}" if refused else ""

    def _deliver(self, mail: EmailMessage) -> dict[str, tuple[int, bytes]]:
        settings = self._settings
        with contextlib.closing(self._connect()) as server:
            if settings.security == "starttls":
                server.starttls(context=self._context)
            if settings.username:
                server.login(settings.username, self._password)
            refused = server.send_message(mail)
            with contextlib.suppress(OSError, smtplib.SMTPException):
                server.quit()
        return refused

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        if settings.security == "tls":
            return smtplib.SMTP_SSL(settings.host, settings.port, timeout=settings.timeout_s, context=self._context)
        return smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout_s)


def _compose(sender: str, recipients: Sequence[str], subject: str, body: str) -> EmailMessage:
    for each in recipients:
        if len(getaddresses([each])) != 1:
            raise MessageError(f"e-mail: recipient {each!r}: must be one address")
    mail = EmailMessage()
    try:
        mail["From"], mail["To"], mail["Subject"] = sender, ", ".join(recipients), " ".join(subject.split())
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(body)
    except ValueError as error:
        raise MessageError(f"e-mail: {error}") from error
    return mail


def _refusals(refused: dict[str, tuple[int, bytes]]) -> str:
    return ", ".join(f"{address} ({code} {_text(why)})" for address, (code, why) in refused.items())


def _text(answer: bytes | str) -> str:
    return answer if isinstance(answer, str) else answer.decode("utf-8", "replace")


class EmailExecutor:
    """Sends the payload as an e-mail."""

    immediate = False

    def __init__(self, settings: ToEmail, mailer: Mailer) -> None:
        self._settings = settings
        self._mailer = mailer

    def execute(self, action: Action, settled: Settled) -> None:
        names = {"model": action.model, "event": action.event, "thing": action.thing, "key": action.key}
        subject = self._settings.subject
        for name, value in names.items():
            subject = subject.replace(f"{{{name}}}", value)
        body = as_json(describe(action), indent=2)
        told = self._settings
        refused = self._mailer.send(told.sender, told.recipients, subject, body, action.id, action.time_ms)
        settled(Result("delivered", refused))


class FileExecutor:
    """Appends JSON Lines; a line is whole and on disk before the action counts as delivered."""

    immediate = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def execute(self, action: Action, settled: Settled) -> None:
        line = as_json(describe(action)).encode() + b"\n"
        try:
            with self._lock:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
                try:
                    _append(descriptor, line)
                finally:
                    os.close(descriptor)
        except OSError as error:
            raise UnavailableError(f"{self._path}: {error.strerror}") from error
        settled(Result("delivered"))


def _append(descriptor: int, line: bytes) -> None:
    """Write the whole line and sync it, or leave the file as it was: a disk that fills up takes part of a write."""
    end = os.fstat(descriptor).st_size
    if end and os.pread(descriptor, 1, end - 1) != b"\n":  # a power cut has left half a line
        line = b"\n" + line
    written = os.write(descriptor, line)
    if written < len(line):
        os.ftruncate(descriptor, end)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fdatasync(descriptor)


class CommandExecutor:
    """
    Runs one program of the operator's list: no shell, no argument from outside; the action is its standard input.

    Raises:
        SettingsError: the list is empty or the program is not an absolute path.
    """

    immediate = False

    def __init__(self, name: str, settings: CommandSettings) -> None:
        if not settings.run or not Path(settings.run[0]).is_absolute():
            raise SettingsError(f"actions.commands.{name}: run must begin with the absolute path of a program")
        self._name = name
        self._settings = settings

    def execute(self, action: Action, settled: Settled) -> None:
        given = as_json(describe(action)).encode()
        environment = {"PATH": "/usr/bin:/bin", "WHEELTAPPER_ACTION_ID": action.id}
        timeout_s = self._settings.timeout_s
        try:
            ended = run_program(self._settings.run, given, environment, timeout_s)
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(f"command {self._name}: took longer than {timeout_s:g} s") from error
        except OSError as error:
            raise UnavailableError(f"command {self._name}: {error.strerror}") from error
        if ended.status == 0:
            settled(Result("delivered"))
        else:
            settled(Result("retry", f"command {self._name}: exit status {ended.status}: {ended.said[-200:]}"))


def _tls_context(whose: str, ca: Path | None) -> ssl.SSLContext:
    """
    What verifies servers: by the authority in a file, or those that the system trusts.

    Raises:
        SettingsError: the file holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise SettingsError(f"{whose} ca {ca}: {error.strerror or error}") from error


def _read_secret(path: Path) -> str:
    """
    What a file holds that only its owner may read.

    Raises:
        SettingsError: it cannot be read, or others may read it too.
    """
    try:
        mode = path.stat().st_mode
        secret = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not text") from error
    if mode & 0o077:
        raise SettingsError(f"{path}: holds a secret that others may read; run: chmod 600 {path}")
    return secret
