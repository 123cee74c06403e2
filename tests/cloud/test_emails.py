"""E-mails that meet a hostile or tired server."""

import socket
import threading
from email import message_from_string
from email.policy import default

import pytest

from tests.executing import action, run
from tests.loopback import free_port
from wheeltapper.errors import MessageError, SettingsError, UnavailableError
from wheeltapper_cloud import actions_connection
from wheeltapper_cloud.actions_email import EmailExecutor, Mailer
from wheeltapper_cloud.actions_settings import SmtpSettings, ToEmail


def test_mail_without_encryption_is_for_loopback():
    with pytest.raises(SettingsError, match="loopback"):
        Mailer(SmtpSettings(host="mail.example", security="none"))


class Post:
    """Enough of SMTP to take or refuse a mail; ``answers`` maps the beginning of a line to the answer."""

    def __init__(self, **answers):
        self.answers = {"EHLO": "250 ok", "MAIL": "250 ok", "RCPT": "250 ok", "DATA": "354 go", "QUIT": "221 bye"}
        self.answers.update({word.replace("_", " "): answer for word, answer in answers.items()})
        self.mails, self.recipients, self.greetings = [], [], []

    def __call__(self, connection):
        stream = connection.makefile("rwb")

        def say(line):
            stream.write(line.encode() + b"\r\n")
            stream.flush()

        say("220 ready")
        while line := stream.readline().decode():
            word = line[:4].upper()
            if word == "EHLO":
                self.greetings.append(line.split()[1])
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


def dripping(before):
    """A server that answers drop by drop once it has heard what begins so."""

    def drip(connection):
        stream = connection.makefile("rwb", buffering=0)
        stream.write(b"220 ready\r\n" if before else b"")
        while before and (line := stream.readline()) and not line.upper().startswith(before):
            stream.write(b"250 ok\r\n")
        while True:
            stream.write(b"2")
            threading.Event().wait(0.05)

    return drip


@pytest.mark.parametrize("before", [b"", b"EHLO", b"MAIL", b"DATA"], ids=["greeting", "hello", "sender", "content"])
def test_a_mail_server_that_answers_drop_by_drop_is_given_up_in_time(serving, before):
    with pytest.raises(UnavailableError, match=r"longer than 1 s"):
        mailer(serving(dripping(before)), timeout_s=1).send("p@x.example", ["a@x.example"], "s", "b", "a1", 0)


def test_a_machine_that_cannot_learn_its_own_name_sends_mail_under_its_address(serving, monkeypatch):
    over, post = threading.Event(), Post()
    monkeypatch.setattr(actions_connection, "_OWN_NAME_S", 0.1)
    monkeypatch.setattr(socket, "getfqdn", lambda *_: over.wait(90))
    sender = mailer(serving(post))

    for number in range(3):
        sender.send("p@x.example", ["a@x.example"], "s", "b", f"a{number}", 0)

    over.set()
    assert len(post.mails) == 3
    assert set(post.greetings) == {"[127.0.0.1]"}


def test_a_mail_that_is_taken_is_not_sent_again_because_the_farewell_fails(serving):
    post = Post(QUIT="421 goodbye, anyway")

    assert mailer(serving(post)).send("p@x.example", ["a@x.example"], "s", "b", "a1", 0) == ""
    assert len(post.mails) == 1


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


def test_a_mail_server_that_is_away_is_tried_again():
    with pytest.raises(UnavailableError):
        mailer(free_port()).send("p@x.example", ["a@x.example"], "s", "b", "a1", 0)


def test_a_recipient_refused_among_others_is_told(serving):
    post = Post(**{"RCPT_TO:<B@": "550 gone"})
    executor = EmailExecutor(
        ToEmail(sender="p@x.example", recipients=["a@x.example", "b@x.example"]), mailer(serving(post))
    )

    result = run(executor, action())

    assert result.outcome == "delivered"
    assert "b@x.example" in result.detail
    assert "550" in result.detail


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


def test_a_user_without_a_password_file_is_refused():
    with pytest.raises(SettingsError, match="password_file"):
        Mailer(SmtpSettings(username="plant"))
