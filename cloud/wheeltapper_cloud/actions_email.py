"""The executor that sends payloads as e-mails, and the mailer that notifications share with it."""

import contextlib
import smtplib
import socket
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import formatdate, getaddresses

from wheeltapper.errors import MessageError, SettingsError, UnavailableError
from wheeltapper.judge import Action
from wheeltapper.judge.delivery import Result, Settled
from wheeltapper.secret_files import read_secret
from wheeltapper_cloud.actions_connection import LOOPBACK, Deadline, deadline, own_name, tls_context
from wheeltapper_cloud.actions_json import as_json, describe
from wheeltapper_cloud.actions_settings import SmtpSettings, ToEmail


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
        self._password = read_secret(settings.password_file, "smtp password_file") if settings.password_file else ""
        if settings.security == "none" and settings.host not in LOOPBACK:
            raise SettingsError(f'smtp {settings.host}: security = "none" is for loopback only; use starttls or tls')
        self._context = tls_context("smtp", settings.ca)

    def send(
        self, sender: str, recipients: Sequence[str], subject: str, body: str, message_id: str, time_ms: int
    ) -> str:
        """
        Send one mail; the id becomes its Message-ID, so that a repeat can be told.

        Returns:
            Whom the server refused, where it took others; else nothing.

        Raises:
            UnavailableError: the server is away, takes too long, or asks, for anyone of them, to come again.
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
        except OSError as error:
            raise UnavailableError(f"{where}: {error}") from error
        if any(code < 500 for code, _ in refused.values()):
            raise UnavailableError(f"{where}: recipients refused for now: {_refusals(refused)}")
        return f"recipients refused: {_refusals(refused)}" if refused else ""

    def _deliver(self, mail: EmailMessage) -> dict[str, tuple[int, bytes]]:
        settings = self._settings
        with deadline(settings.timeout_s) as until, contextlib.closing(self._connected(until)) as server:
            if settings.security == "starttls":
                server.starttls(context=self._context)
            if settings.username:
                server.login(settings.username, self._password)
            refused = server.send_message(mail)
            with contextlib.suppress(OSError):
                server.quit()
        return refused

    def _connected(self, until: Deadline) -> "_Conversation":
        settings = self._settings
        return _Conversation(settings.host, settings.port, until, self._context if settings.security == "tls" else None)


class _Conversation(smtplib.SMTP):
    """SMTP over a connection with a deadline, encrypted from the first byte where there is a context."""

    def __init__(self, host: str, port: int, until: Deadline, context: ssl.SSLContext | None) -> None:
        self._until = until
        self._context = context
        self._own_name = ""
        super().__init__(host, port, local_hostname="")
        self.local_hostname = self._own_name

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connection = self._until.connect(host, port)
        self._own_name = own_name(connection)
        if self._context is None:
            return connection
        return self._context.wrap_socket(connection, server_hostname=host)


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
