import json
import socketserver
import threading
from typing import Any

import pytest

from tests.core.judging import ALARM, Bench, deployment
from wheeltapper.judge import AlarmOperation
from wheeltapper.judge.delivery import Delivery
from wheeltapper_cloud.actions import Router
from wheeltapper_cloud.actions_settings import ActionSettings, NotificationSettings, SmtpSettings, ToFile
from wheeltapper_cloud.notifications import Escalation

FUNCTION = "arn:aws:lambda:eu-west-1:123456789012:function:notify"
NOTIFYING: dict[str, Any] = {
    **ALARM,
    "alarmNotification": {
        "notificationActions": [
            {
                "action": {"lambdaAction": {"functionArn": FUNCTION}},
                "emailConfigurations": [
                    {
                        "from": "plant@example.com",
                        "recipients": {"to": [{"ssoIdentity": {"identityStoreId": "d-1", "userId": "u-1"}}]},
                        "content": {"subject": "Hot", "additionalMessage": "Look at it."},
                    }
                ],
            }
        ]
    },
}


class _Smtp(socketserver.StreamRequestHandler):
    """Enough of SMTP to take a mail."""

    def handle(self):
        self.wfile.write(b"220 ready\r\n")
        while line := self.rfile.readline():
            word = line[:4].upper()
            if word == b"DATA":
                self.wfile.write(b"354 go\r\n")
                lines = []
                while (content := self.rfile.readline()) != b".\r\n":
                    lines.append(content)
                self.server.mails.append(b"".join(lines).decode())
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")


@pytest.fixture
def mail_server():
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Smtp)
    server.mails = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def notified(tmp_path, settings):
    bench = Bench(tmp_path)
    delivery = Delivery(Router(settings, bench.judge, 8, bench.clock, None), bench.clock)
    delivery.attach(bench.judge)
    bench.deliver = delivery.take
    bench.judge.declare_inputs({"Reading": []})
    bench.judge.deploy(deployment(NOTIFYING))
    return bench, delivery


def smtp(server):
    return SmtpSettings(port=server.server_address[1], security="none")


def status_of_notifications(bench):
    return [(each.status, each.detail) for each in bench.judge.actions() if each.action.type == "notification"]


def test_the_lambda_function_gets_the_documented_event(tmp_path):
    out = tmp_path / "lambda.jsonl"
    settings = ActionSettings(
        map=[ToFile(target=FUNCTION, path=out)], notifications=NotificationSettings(people={"u-1": "ada@example.com"})
    )
    bench, delivery = notified(tmp_path, settings)

    bench.put(90.0)
    delivery.run_due()

    event = json.loads(out.read_text().splitlines()[-1])["payload"]
    told = json.loads(event["notificationEventPayload"])
    assert (told["alarmModelName"], told["keyValue"], told["severity"]) == ("Overheat", "m1", 3)
    assert told["alarmState"]["stateName"] == "ACTIVE"
    rule = told["alarmState"]["ruleEvaluation"]["simpleRule"]
    assert (rule["inputProperty"], rule["operator"], rule["threshold"]) == (90.0, "GREATER", 80)
    assert event["emailConfigurations"][0]["to"] == ["ada@example.com"]


def test_without_the_function_the_mail_is_sent_from_here(tmp_path, mail_server):
    settings = ActionSettings(
        smtp=smtp(mail_server), notifications=NotificationSettings(people={"u-1": "ada@example.com"})
    )
    bench, delivery = notified(tmp_path, settings)

    bench.put(90.0)
    delivery.run_due()

    assert "To: ada@example.com" in mail_server.mails[-1]
    assert "Subject: Hot" in mail_server.mails[-1]
    assert "Look at it." in mail_server.mails[-1]
    assert status_of_notifications(bench)[-1] == ("delivered", "")


def test_recipients_that_nobody_knows_are_shown_as_undelivered(tmp_path, mail_server):
    bench, delivery = notified(tmp_path, ActionSettings(smtp=smtp(mail_server)))

    bench.put(90.0)
    delivery.run_due()

    status, detail = status_of_notifications(bench)[-1]
    assert status == "undelivered"
    assert "actions.notifications.people" in detail


def test_more_people_are_told_until_somebody_acknowledges(tmp_path, mail_server):
    wanted = NotificationSettings(escalate_after_s=[900, 3600], escalate_to=["chief@example.com"])
    bench, delivery = notified(tmp_path, ActionSettings(smtp=smtp(mail_server), notifications=wanted))
    escalation = Escalation(wanted, bench.judge, bench.clock)
    bench.put(90.0)

    bench.clock.advance(899)
    assert escalation.look() == 0
    bench.clock.advance(2)
    assert escalation.look() == 1
    assert escalation.look() == 0
    delivery.run_due()
    assert "To: chief@example.com" in mail_server.mails[-1]
    bench.crash()
    escalation = Escalation(wanted, bench.judge, bench.clock)
    assert escalation.look() == 0

    bench.judge.operate_alarms([AlarmOperation(model="Overheat", key="m1", operation="acknowledge", by="ada")])
    bench.clock.advance(7200)

    assert escalation.look() == 0
