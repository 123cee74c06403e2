"""What stands in for AWS: webhooks, e-mail, files and commands that meet a hostile or tired other side."""

import json
import socketserver
import ssl
import threading
from email import message_from_string
from email.policy import default
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.executing import action, run
from tests.loopback import free_port
from wheeltapper.certs import Authority
from wheeltapper.clock import ManualClock, SystemClock
from wheeltapper.errors import MessageError, SettingsError, UnavailableError
from wheeltapper_cloud.actions import Router
from wheeltapper_cloud.actions_local import CommandExecutor, EmailExecutor, FileExecutor, Mailer, WebhookExecutor
from wheeltapper_cloud.actions_settings import (
    ActionSettings,
    CommandSettings,
    SmtpSettings,
    ToEmail,
    ToFile,
    ToWebhook,
)


def secret(tmp_path, mode=0o600):
    path = tmp_path / "secret"
    path.write_text("0123456789abcdef0123\n")
    path.chmod(mode)
    return path


# --- commands --------------------------------------------------------------------------------------------------------


def shell(script, **settings):
    return CommandExecutor("siren", CommandSettings(run=["/bin/sh", "-c", script], **settings))


def test_a_command_that_never_stops_talking_fills_no_memory():
    import tracemalloc

    tracemalloc.start()
    try:
        result = run(
            shell("head -c 50000000 /dev/zero; head -c 50000000 /dev/zero >&2; echo last words >&2; exit 3"), action()
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (result.outcome, result.detail[-10:]) == ("retry", "last words")
    assert peak < 5_000_000


def test_a_command_may_leave_something_running_and_is_not_waited_for():
    assert run(shell("sleep 30 & exit 0", timeout_s=20), action()).outcome == "delivered"


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    sign = tmp_path / "sign"
    executor = shell(f"(sleep 1.2; touch {sign}) & sleep 30", timeout_s=0.3)

    with pytest.raises(UnavailableError, match="longer than"):
        run(executor, action())

    threading.Event().wait(1.5)
    assert not sign.exists()


def test_a_command_need_not_read_what_it_is_given():
    assert run(shell("exit 0"), action(payload=b"x" * 1_000_000)).outcome == "delivered"


def test_a_command_sees_nothing_of_our_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-tell")
    out = tmp_path / "out"

    run(shell(f"env > {out}"), action())

    assert "do-not-tell" not in out.read_text()


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (b'"\\ud800"', "\ud800"),
        (b'{"x": NaN}', '{"x": NaN}'),
        (b"[" * 100_000, "[" * 100_000),
        (b"\xff", "\ufffd"),
    ],
)
def test_every_payload_becomes_a_line_of_valid_json(tmp_path, payload, told):
    path = tmp_path / "actions.jsonl"

    assert run(FileExecutor(path), action(payload=payload)).outcome == "delivered"

    line = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))
    assert line["payload"] == told


# --- webhooks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["https://example.com:99999/x", "https://ada:secret@example.com/x", "https://example.com/a b", "https:///x"]
)
def test_a_webhooks_address_that_cannot_work_is_refused(tmp_path, url):
    with pytest.raises(SettingsError) as refused:
        WebhookExecutor(ToWebhook(url=url, secret_file=secret(tmp_path)), ManualClock())

    assert "ada:secret" not in str(refused.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_secret_that_others_may_read_is_refused_with_the_fix(tmp_path, mode):
    path = secret(tmp_path, mode)

    with pytest.raises(SettingsError, match=f"chmod 600 {path}"):
        WebhookExecutor(ToWebhook(url="https://example.com/x", secret_file=path), ManualClock())
    with pytest.raises(SettingsError, match=f"chmod 600 {path}"):
        Mailer(SmtpSettings(username="plant", password_file=path))


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


def answer_ok(connection):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def test_a_webhook_that_answers_drop_by_drop_is_given_up_in_time(serving, tmp_path):
    def drip(connection):
        connection.recv(65536)
        for _ in range(200):
            connection.sendall(b"HTTP/1.1 200 OK"[:1])
            threading.Event().wait(0.1)

    url = f"http://127.0.0.1:{serving(drip)}/x"
    executor = WebhookExecutor(ToWebhook(url=url, secret_file=secret(tmp_path), timeout_s=0.5), ManualClock())

    with pytest.raises(UnavailableError, match=r"longer than 0\.5 s"):
        run(executor, action())


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


def test_a_webhooks_certificate_is_verified_against_the_authority_that_the_settings_name(serving, tmp_path, tls):
    port = serving(answer_ok, tls.context)
    url = f"https://localhost:{port}/x"
    known = ToWebhook(url=url, secret_file=secret(tmp_path), ca=tls.ca)
    unknown = ToWebhook(url=url, secret_file=secret(tmp_path))
    elsewhere = ToWebhook(url=f"https://127.0.0.1:{port}/x", secret_file=secret(tmp_path), ca=tls.ca)

    assert run(WebhookExecutor(known, ManualClock()), action()).outcome == "delivered"
    for wrong in (unknown, elsewhere):
        with pytest.raises(UnavailableError, match="certificate"):
            run(WebhookExecutor(wrong, ManualClock()), action())
    with pytest.raises(SettingsError, match="ca"):
        WebhookExecutor(ToWebhook(url=url, secret_file=secret(tmp_path), ca=tmp_path / "none"), ManualClock())


def test_a_webhook_says_what_kind_of_body_it_brings(serving, tmp_path):
    heads = []

    def note(connection):
        heads.append(connection.recv(65536).decode())
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    settings = ToWebhook(url=f"http://127.0.0.1:{serving(note)}/x", secret_file=secret(tmp_path))
    executor = WebhookExecutor(settings, ManualClock())

    run(executor, action())
    run(executor, action(payload=b"Too hot"))

    assert "Content-Type: application/json\r\n" in heads[0]
    assert "Content-Type: text/plain; charset=utf-8\r\n" in heads[1]


# --- e-mail ----------------------------------------------------------------------------------------------------------


class Post:
    """Enough of SMTP to take or refuse a mail; ``answers`` maps the beginning of a line to the answer."""

    def __init__(self, **answers):
        self.answers = {"EHLO": "250 ok", "MAIL": "250 ok", "RCPT": "250 ok", "DATA": "354 go", "QUIT": "221 bye"}
        self.answers.update({word.replace("_", " "): answer for word, answer in answers.items()})
        self.mails, self.recipients = [], []

    def __call__(self, connection):
        stream = connection.makefile("rwb")

        def say(line):
            stream.write(line.encode() + b"\r\n")
            stream.flush()

        say("220 ready")
        while line := stream.readline().decode():
            word = line[:4].upper()
            if word == "RCPT":
                self.recipients.append(line.strip()[8:])
            found = [answer for start, answer in self.answers.items() if line.upper().startswith(start.upper())]
            say(found[-1] if found else "502 what?")
            if word == "DATA":
                lines = []
                while (content := stream.readline()) != b".\r\n":
                    lines.append(content)
                self.mails.append(message_from_string(b"".join(lines).decode(), policy=default))
                say(self.answers.get("body", "250 taken"))


def mailer(port, **settings):
    return Mailer(SmtpSettings(port=port, security="none", **settings))


def test_a_mail_says_when_and_that_no_person_wrote_it(serving):
    post = Post()
    executor = EmailExecutor(ToEmail(sender="plant@example.com", recipients=["ops@example.com"]), mailer(serving(post)))

    assert run(executor, action(event="hot\r\nBcc: all@example.com")).outcome == "delivered"

    mail = post.mails[0]
    assert mail["Date"] == "Tue, 14 Nov 2023 22:13:20 -0000"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"] == "<a1@wheeltapper>"
    assert mail["Bcc"] is None
    assert mail["Subject"] == "Motor: hot Bcc: all@example.com (m1)"
    assert post.recipients == ["<ops@example.com>"]


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ({"RCPT": "450 greylisted"}, UnavailableError),
        ({"RCPT": "550 no such user"}, MessageError),
        ({"MAIL": "451 later"}, UnavailableError),
        ({"MAIL": "553 not you"}, MessageError),
        ({"body": "452 full"}, UnavailableError),
        ({"body": "554 spam"}, MessageError),
        ({"RCPT_TO:<B@": "451 later"}, UnavailableError),
    ],
)
def test_a_servers_answer_decides_whether_a_mail_is_sent_again(serving, answers, kind):
    with pytest.raises(kind):
        mailer(serving(Post(**answers))).send("p@x.example", ["a@x.example", "b@x.example"], "s", "b", "a1", 0)


def test_a_recipient_refused_among_others_is_told(serving):
    post = Post(**{"RCPT_TO:<B@": "550 gone"})
    executor = EmailExecutor(
        ToEmail(sender="p@x.example", recipients=["a@x.example", "b@x.example"]), mailer(serving(post))
    )

    result = run(executor, action())

    assert result.outcome == "delivered"
    assert "b@x.example" in result.detail
    assert "550" in result.detail


def test_a_mail_that_is_taken_is_not_sent_again_because_the_farewell_fails(serving):
    post = Post(QUIT="421 goodbye, anyway")

    assert mailer(serving(post)).send("p@x.example", ["a@x.example"], "s", "b", "a1", 0) == ""
    assert len(post.mails) == 1


@pytest.mark.parametrize(
    ("sender", "recipients"),
    [
        ("p@x.example\r\nBcc: all@x.example", ["a@x.example"]),
        ("p@x.example", ["a@x.example\r\nBcc: all@x.example"]),
        ("p@x.example", ["a@x.example, b@x.example"]),
        ("p@x.example", ["bücher@x.example"]),
    ],
)
def test_an_address_that_is_none_or_more_than_one_is_refused(serving, sender, recipients):
    post = Post()

    with pytest.raises(MessageError):
        mailer(serving(post)).send(sender, recipients, "s", "b", "a1", 0)

    assert post.mails == []


def test_a_mail_is_never_sent_in_clear_where_encryption_is_asked_for(serving):
    post = Post()

    with pytest.raises((MessageError, UnavailableError)):
        Mailer(SmtpSettings(port=serving(post))).send("p@x.example", ["a@x.example"], "s", "b", "a1", 0)

    assert post.recipients == []


def test_mail_over_tls_goes_to_a_server_that_the_settings_authority_vouches_for(serving, tls):
    post = Post()
    port = serving(post, tls.context)

    Mailer(SmtpSettings(host="localhost", port=port, security="tls", ca=tls.ca)).send(
        "p@x.example", ["a@x.example"], "s", "b", "a1", 0
    )
    with pytest.raises(UnavailableError, match="certificate"):
        Mailer(SmtpSettings(host="localhost", port=port, security="tls")).send("p@x", ["a@x"], "s", "b", "a1", 0)

    assert len(post.mails) == 1


def test_a_user_without_a_password_file_is_refused():
    with pytest.raises(SettingsError, match="password_file"):
        Mailer(SmtpSettings(username="plant"))


def test_a_mail_server_that_is_away_is_tried_again():
    with pytest.raises(UnavailableError):
        mailer(free_port()).send("p@x.example", ["a@x.example"], "s", "b", "a1", 0)


# --- mappings --------------------------------------------------------------------------------------------------------


def router(tmp_path, *mappings):
    return Router(ActionSettings(map=list(mappings)), None, 8, ManualClock(), None)


def test_only_stars_and_question_marks_are_patterns(tmp_path):
    route = router(tmp_path, ToFile(target="/line[1]/temp*", path=tmp_path / "a"))

    assert route(action("iotSiteWise", target="/line[1]/temperature")) is not None
    assert route(action("iotSiteWise", target="/line1/temperature")) is None


def test_a_mapping_of_a_type_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"'SNS'.*sns"):
        router(tmp_path, ToFile(type="SNS", path=tmp_path / "a"))
