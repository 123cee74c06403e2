"""Webhooks that meet a hostile or tired other side."""

import contextlib
import hashlib
import hmac
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.executing import action, run, secret
from wheeltapper.clock import ManualClock, SystemClock
from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper_cloud.actions_email import Mailer
from wheeltapper_cloud.actions_settings import SmtpSettings, ToWebhook
from wheeltapper_cloud.actions_webhook import WebhookExecutor


class Receiver(BaseHTTPRequestHandler):
    status = 200

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def webhook(tmp_path):
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    server.received, server.status = [], 200
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/hook?x=1"
    server.settings = ToWebhook(url=url, secret_file=secret(tmp_path))
    yield server
    server.shutdown()
    server.server_close()


def test_a_webhook_is_signed_and_carries_the_id(webhook):
    executor = WebhookExecutor(webhook.settings, ManualClock(5_000))

    result = run(executor, action())

    assert result.outcome == "delivered"
    path, headers, body = webhook.received[0]
    assert (path, body, headers["X-Wheeltapper-Action-Id"]) == ("/hook?x=1", b'{"a": 1}', "a1")
    expected = hmac.new(b"0123456789abcdef0123", b"5.a1." + body, hashlib.sha256).hexdigest()
    assert headers["X-Wheeltapper-Signature"] == f"sha256={expected}"


@pytest.mark.parametrize(("status", "outcome"), [(503, "retry"), (429, "retry"), (404, "failed"), (302, "failed")])
def test_a_webhooks_answer_decides(webhook, status, outcome):
    webhook.status = status

    assert run(WebhookExecutor(webhook.settings, ManualClock()), action()).outcome == outcome


def test_a_webhook_that_is_away_is_tried_again(webhook):
    webhook.shutdown()
    webhook.server_close()

    with pytest.raises(UnavailableError):
        run(WebhookExecutor(webhook.settings, ManualClock()), action())


def test_the_documents_receiver_tells_genuine_webhooks_from_others(webhook):
    document = (Path(__file__).resolve().parents[2] / "docs" / "actions.md").read_text()
    receiver = {}
    exec(re.search(r"```python\n(.*?)```", document, re.DOTALL)[1], receiver)  # noqa: S102 - our own document
    genuine, key = receiver["genuine"], b"0123456789abcdef0123"

    run(WebhookExecutor(webhook.settings, SystemClock()), action())
    run(WebhookExecutor(webhook.settings, ManualClock(5_000)), action())

    (_, headers, body), (_, old, _) = webhook.received
    assert genuine(key, headers, body)
    assert not genuine(key, headers, body + b" ")
    assert not genuine(b"another secret!!", headers, body)
    assert not genuine(key, {**headers, "X-Wheeltapper-Action-Id": "a2"}, body)
    assert not genuine(key, {**headers, "X-Wheeltapper-Time": old["X-Wheeltapper-Time"]}, body)
    assert not genuine(key, old, body)


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


def answer_ok(connection):
    heard = b""
    while not heard.endswith(b"}"):  # who closes before having read all takes the answer away again
        heard += connection.recv(65536)
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


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_webhook_whose_server_says_nothing_is_given_up_in_time(serving, tmp_path, scheme):
    over = threading.Event()
    url = f"{scheme}://127.0.0.1:{serving(lambda _connection: over.wait(90))}/x"
    executor = WebhookExecutor(ToWebhook(url=url, secret_file=secret(tmp_path), timeout_s=0.5), ManualClock())

    with pytest.raises(UnavailableError, match=r"longer than 0\.5 s"):
        run(executor, action())

    over.set()


def test_a_webhook_whose_name_nobody_resolves_is_given_up_in_time(tmp_path, monkeypatch):
    over = threading.Event()

    def resolve(*_, flags=0, **__):
        if flags == socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        over.wait(90)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    settings = ToWebhook(url="https://example.com/x", secret_file=secret(tmp_path), timeout_s=0.2)

    with pytest.raises(UnavailableError, match=r"longer than 0\.2 s"):
        run(WebhookExecutor(settings, ManualClock()), action())

    over.set()


def test_an_address_that_never_answers_leaves_the_others_of_its_name_their_time(serving, tmp_path, monkeypatch):
    port = serving(answer_ok)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as waiting:
        for _ in range(4):  # the system answers nobody else while these are not accepted
            connection = waiting.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex(full.getsockname())
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", full.getsockname())]
        found += [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))] * 199
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        settings = ToWebhook(url="http://localhost/x", secret_file=secret(tmp_path), timeout_s=60)

        assert run(WebhookExecutor(settings, ManualClock()), action()).outcome == "delivered"


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
