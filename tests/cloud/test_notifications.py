import json
import socketserver
import threading
from typing import Any

import pytest

from tests.core.judging import ALARM, Bench, deployment
from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.judge import AlarmOperation
from wheeltapper.judge.delivery import Delivery
from wheeltapper_cloud.actions import Router
from wheeltapper_cloud.actions_settings import ActionSettings, AwsAccount, NotificationSettings, SmtpSettings, ToFile
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


def notified(tmp_path, settings, model=NOTIFYING):
    bench = Bench(tmp_path)
    delivery = Delivery(Router(settings, bench.judge, 8, bench.clock, None), bench.clock)
    delivery.attach(bench.judge)
    bench.deliver = delivery.take
    bench.judge.declare_inputs({"Reading": []})
    bench.judge.deploy(deployment(model))
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


def with_notification(**configurations):
    notification = {"action": {"lambdaAction": {"functionArn": FUNCTION}}, **configurations}
    return {**ALARM, "alarmNotification": {"notificationActions": [notification]}}


def sso(*users):
    return [{"ssoIdentity": {"identityStoreId": "d-1", "userId": user}} for user in users]


def email_to(*users, subject="Hot"):
    return {"from": "plant@example.com", "recipients": {"to": sso(*users)}, "content": {"subject": subject}}


class Texts:
    """Stands where an AWS account does; texts that it was asked to send."""

    def __init__(self, *faults):
        self.sent, self.faults = [], list(faults)

    def carries_out(self, action_type):
        return False

    def send_text(self, number, text, sender_id):
        if self.faults and (fault := self.faults.pop(0)):
            raise fault
        self.sent.append((number, text, sender_id))


def test_an_identity_that_nobody_knows_is_named_with_the_fix(tmp_path, mail_server):
    settings = ActionSettings(
        smtp=smtp(mail_server), notifications=NotificationSettings(people={"u-1": "ada@example.com"})
    )
    bench, delivery = notified(tmp_path, settings, with_notification(emailConfigurations=[email_to("u-1", "u-2")]))

    bench.put(90.0)
    delivery.run_due()

    status, detail = status_of_notifications(bench)[-1]
    assert status == "delivered"
    assert "'u-2'" in detail
    assert "'u-1'" not in detail
    assert "actions.notifications.people" in detail


def test_the_functions_event_leaves_out_whom_nobody_knows_and_says_so(tmp_path):
    settings = ActionSettings(
        map=[ToFile(target=FUNCTION, path=tmp_path / "out")],
        notifications=NotificationSettings(people={"u-1": ["ada@example.com", "+4915112345678"]}),
    )
    model = with_notification(
        emailConfigurations=[email_to("u-1", "u-2")],
        smsConfigurations=[{"recipients": sso("u-1"), "senderId": "Plant"}],
    )
    bench, delivery = notified(tmp_path, settings, model)

    bench.put(90.0)
    delivery.run_due()

    event = json.loads((tmp_path / "out").read_text())["payload"]
    assert event["emailConfigurations"][0]["to"] == ["ada@example.com"]
    assert event["smsConfigurations"] == [{"phoneNumbers": ["+4915112345678"], "senderId": "Plant"}]
    status, detail = status_of_notifications(bench)[-1]
    assert (status, "'u-2'" in detail) == ("delivered", True)


def test_one_mail_that_is_refused_keeps_no_other_back(tmp_path, mail_server):
    people = {"u-1": "not one@address, but@two", "u-2": "ada@example.com"}
    settings = ActionSettings(smtp=smtp(mail_server), notifications=NotificationSettings(people=people))
    model = with_notification(emailConfigurations=[email_to("u-1"), email_to("u-2", subject="Second")])
    bench, delivery = notified(tmp_path, settings, model)

    bench.put(90.0)
    delivery.run_due()

    assert ["Subject: Second" in mail for mail in mail_server.mails] == [True]
    status, detail = status_of_notifications(bench)[-1]
    assert status == "delivered"
    assert "must be one address" in detail


def test_what_was_sent_is_not_sent_again_with_what_was_not(tmp_path, mail_server, monkeypatch):
    texts = Texts(UnavailableError("sns: throttled"), None)
    monkeypatch.setattr("wheeltapper_cloud.actions.AwsExecutor", lambda account: texts)
    people = {"u-1": ["ada@example.com", "+491"], "u-2": "+492"}
    settings = ActionSettings(
        smtp=smtp(mail_server), aws=AwsAccount(), notifications=NotificationSettings(people=people)
    )
    model = with_notification(
        emailConfigurations=[email_to("u-1"), email_to("u-1", subject="Second")],
        smsConfigurations=[{"recipients": sso("u-1", "u-2"), "senderId": "Plant", "additionalMessage": "Hot!"}],
    )
    bench, delivery = notified(tmp_path, settings, model)

    bench.put(90.0)
    delivery.run_due()
    assert [sent[0] for sent in texts.sent] == ["+492"]
    bench.clock.advance(5)
    delivery.run_due()

    assert texts.sent == [("+492", "Hot!", "Plant"), ("+491", "Hot!", "Plant")]
    ids = [line for mail in mail_server.mails for line in mail.splitlines() if line.startswith("Message-ID")]
    assert len(ids) == len(set(ids)) == 2
    assert status_of_notifications(bench)[-1] == ("delivered", "")


@pytest.mark.parametrize(
    "wrong",
    [
        NotificationSettings(people={"u-1": "ada"}),
        NotificationSettings(escalate_after_s=[60]),
        NotificationSettings(escalate_after_s=[60], escalate_to=["u-9"]),
        NotificationSettings(escalate_after_s=[0], escalate_to=["a@x.example"]),
    ],
)
def test_settings_that_reach_nobody_are_refused(tmp_path, wrong):
    bench = Bench(tmp_path)

    with pytest.raises(SettingsError, match=r"actions\.notifications"):
        Router(ActionSettings(notifications=wrong), bench.judge, 8, bench.clock, None)
        Escalation(wrong, bench.judge, bench.clock)


def escalating(tmp_path, mail_server, *after_s):
    wanted = NotificationSettings(escalate_after_s=list(after_s), escalate_to=["chief@example.com"])
    bench, delivery = notified(tmp_path, ActionSettings(smtp=smtp(mail_server), notifications=wanted), ALARM)
    bench.put(90.0)
    return bench, delivery, Escalation(wanted, bench.judge, bench.clock)


def operate(bench, operation, **more):
    wanted = AlarmOperation(model="Overheat", key="m1", operation=operation, by="ada", **more)
    assert bench.judge.operate_alarms([wanted]) == []


@pytest.mark.parametrize("operation", ["acknowledge", "disable", "snooze", "reset"])
def test_an_operator_silences_an_escalation(tmp_path, mail_server, operation):
    bench, _, escalation = escalating(tmp_path, mail_server, 60, 600)

    operate(bench, operation, snooze_s=10_000 if operation == "snooze" else None)
    bench.clock.advance(5000)

    assert escalation.look() == 0


def test_an_alarm_that_comes_again_is_escalated_anew(tmp_path, mail_server):
    bench, _, escalation = escalating(tmp_path, mail_server, 60)
    bench.clock.advance(61)
    assert escalation.look() == 1
    operate(bench, "acknowledge")
    bench.put(20.0)
    bench.put(90.0)

    assert escalation.look() == 0
    bench.clock.advance(61)
    assert escalation.look() == 1


def test_an_alarm_whose_cause_is_gone_is_escalated_until_somebody_acknowledges(tmp_path, mail_server):
    bench, _, escalation = escalating(tmp_path, mail_server, 60, 600)
    bench.put(20.0)

    bench.clock.advance(61)
    assert escalation.look() == 1
    operate(bench, "acknowledge")
    bench.clock.advance(1000)

    assert escalation.look() == 0


def test_of_steps_that_fell_due_while_nobody_looked_only_the_last_is_told(tmp_path, mail_server):
    bench, delivery, escalation = escalating(tmp_path, mail_server, 60, 60, 60)
    bench.clock.advance(125)

    assert escalation.look() == 1
    assert escalation.look() == 0
    delivery.run_due()

    mail = mail_server.mails[-1]
    assert len(mail_server.mails) == 1
    assert "Subject: Not acknowledged: alarm Overheat m1: ACTIVE" in mail
    assert "wheeltapper alarms ack" in mail
    assert "-escalation-2@wheeltapper" in mail


def test_an_escalation_goes_on_where_it_was_after_a_restart(tmp_path, mail_server):
    bench, _, escalation = escalating(tmp_path, mail_server, 60, 600)
    bench.clock.advance(61)
    assert escalation.look() == 1
    settings = escalation._settings

    bench.deliver = None
    bench.crash()
    escalation = Escalation(settings, bench.judge, bench.clock)
    assert escalation.look() == 0
    bench.clock.advance(601)

    assert escalation.look() == 1
    steps = [each.action.id[-1] for each in bench.judge.actions() if each.action.event == "ESCALATION"]
    assert sorted(steps) == ["1", "2"]


def test_an_escalation_that_was_delivered_long_ago_is_not_told_again_when_it_is_forgotten(tmp_path, mail_server):
    bench, delivery, escalation = escalating(tmp_path, mail_server, 60)
    bench.clock.advance(40 * 86_400)

    assert escalation.look() == 1
    delivery.run_due()
    for _ in range(20):
        bench.put(20.0, key="m2")
        bench.clock.advance(60)
        bench.judge.tick()

    assert Escalation(escalation._settings, bench.judge, bench.clock).look() == 0


def test_an_escalation_that_waited_is_not_sent_once_somebody_has_acknowledged(tmp_path, mail_server):
    bench, delivery, escalation = escalating(tmp_path, mail_server, 60)
    bench.clock.advance(61)
    assert escalation.look() == 1

    operate(bench, "acknowledge")
    delivery.run_due()

    assert mail_server.mails == []
    assert status_of_notifications(bench) == [("delivered", "not sent: acknowledged by ada")]


def test_an_escalation_may_go_where_a_mapping_says(tmp_path):
    out = tmp_path / "out"
    wanted = NotificationSettings(escalate_after_s=[60])
    mappings = [ToFile(target="*", path=tmp_path / "others"), ToFile(type="escalation", target="Over*", path=out)]
    bench, delivery = notified(tmp_path, ActionSettings(map=mappings, notifications=wanted), ALARM)
    bench.put(90.0)
    bench.clock.advance(61)

    assert Escalation(wanted, bench.judge, bench.clock).look() == 1
    delivery.run_due()

    line = json.loads(out.read_text())
    assert (line["detector"], line["key"], line["event"]) == ("Overheat", "m1", "ESCALATION")


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
