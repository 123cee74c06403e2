"""The executors that need no AWS: webhook, e-mail, file, command."""

import errno
import hashlib
import hmac
import http.client
import json
import os
import smtplib
import ssl
import subprocess
import threading
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wheeltapper.clock import Clock
from wheeltapper.errors import MessageError, SettingsError, UnavailableError
from wheeltapper.judge import Action
from wheeltapper.judge.delivery import Result, Settled
from wheeltapper_cloud.actions_settings import CommandSettings, SmtpSettings, ToEmail, ToWebhook

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_RETRIED_STATUS = {408, 425, 429}


def describe(action: Action) -> dict[str, Any]:
    """An action as JSON, for files and commands; a payload that is JSON stays JSON."""
    try:
        payload: Any = json.loads(action.payload)
    except ValueError:
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
        parts = urlsplit(settings.url)
        loopback = parts.hostname in _LOOPBACK
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and loopback)):
            raise SettingsError(f"webhook {settings.url!r}: must be https, or http on loopback")
        self._host, self._port, self._tls = parts.hostname, parts.port, parts.scheme == "https"
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._secret = _read_secret(settings.secret_file).encode()
        if len(self._secret) < 16:
            raise SettingsError(f"webhook secret_file {settings.secret_file}: must hold at least 16 characters")
        self._timeout_s = settings.timeout_s
        self._clock = clock

    def execute(self, action: Action, settled: Settled) -> None:
        stamp = str(self._clock.time_ms() // 1000)
        signed = b".".join((stamp.encode(), action.id.encode(), action.payload))
        headers = {
            "Content-Type": "application/json",
            "X-Wheeltapper-Action-Id": action.id,
            "X-Wheeltapper-Time": stamp,
            "X-Wheeltapper-Signature": "sha256=" + hmac.new(self._secret, signed, hashlib.sha256).hexdigest(),
        }
        settled(_judged(self._post(action.payload, headers)))

    def _post(self, body: bytes, headers: dict[str, str]) -> int:
        connection: http.client.HTTPConnection
        if self._tls:
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=context)
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        try:
            connection.request("POST", self._path, body, headers)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(f"webhook {self._host}: {error}") from error
        finally:
            connection.close()


def _judged(status: int) -> Result:
    if 200 <= status < 300:
        return Result("delivered", f"HTTP {status}")
    return Result("retry" if status >= 500 or status in _RETRIED_STATUS else "failed", f"HTTP {status}")


class Mailer:
    """
    Sends e-mail through one server.

    Raises:
        SettingsError: the password cannot be read, or would be sent unencrypted off loopback.
    """

    def __init__(self, settings: SmtpSettings) -> None:
        self._settings = settings
        self._password = _read_secret(settings.password_file) if settings.password_file else ""
        if settings.security == "none" and settings.host not in _LOOPBACK:
            raise SettingsError(f'smtp {settings.host}: security = "none" is for loopback only; use starttls or tls')

    def send(self, sender: str, recipients: list[str], subject: str, body: str, message_id: str) -> None:
        """
        Send one mail; the id becomes its Message-ID, so that a repeat can be told.

        Raises:
            UnavailableError: the server is away or asks to come again.
            MessageError: it refuses sender, recipients or content.
        """
        mail = EmailMessage()
        try:
            mail["From"], mail["To"], mail["Subject"] = sender, ", ".join(recipients), " ".join(subject.split())
            mail["Message-ID"] = f"<{message_id}@wheeltapper>"
        except ValueError as error:
            raise MessageError(f"e-mail: {error}") from error
        mail.set_content(body)
        try:
            with self._connect() as server:
                if self._settings.username:
                    server.login(self._settings.username, self._password)
                server.send_message(mail)
        except smtplib.SMTPResponseException as error:
            kind = UnavailableError if 400 <= error.smtp_code < 500 else MessageError
            raise kind(f"smtp {self._settings.host}: {error.smtp_code} {error.smtp_error!r}") from error
        except smtplib.SMTPRecipientsRefused as error:
            raise MessageError(
                f"smtp {self._settings.host}: recipients refused: {', '.join(error.recipients)}"
            ) from error
        except (OSError, smtplib.SMTPException) as error:
            raise UnavailableError(f"smtp {self._settings.host}: {error}") from error

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        if settings.security == "tls":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(settings.host, settings.port, timeout=settings.timeout_s, context=context)
        server = smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout_s)
        if settings.security == "starttls":
            server.starttls(context=ssl.create_default_context())
        return server


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
        body = json.dumps(describe(action), indent=2, ensure_ascii=False)
        self._mailer.send(self._settings.sender, self._settings.recipients, subject, body, action.id)
        settled(Result("delivered"))


class FileExecutor:
    """Appends JSON Lines; a line is whole and on disk before the action counts as delivered."""

    immediate = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def execute(self, action: Action, settled: Settled) -> None:
        line = json.dumps(describe(action), ensure_ascii=False).encode() + b"\n"
        try:
            with self._lock:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
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
        given = json.dumps(describe(action)).encode()
        environment = {"PATH": "/usr/bin:/bin", "WHEELTAPPER_ACTION_ID": action.id}
        try:
            done = subprocess.run(
                self._settings.run, input=given, capture_output=True, timeout=self._settings.timeout_s, env=environment,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(f"command {self._name}: took longer than {self._settings.timeout_s} s") from error
        except OSError as error:
            raise UnavailableError(f"command {self._name}: {error.strerror}") from error
        if done.returncode == 0:
            settled(Result("delivered"))
        else:
            said = done.stderr.decode("utf-8", "replace").strip()[-200:]
            settled(Result("retry", f"command {self._name}: exit status {done.returncode}: {said}"))


def _read_secret(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
