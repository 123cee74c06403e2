"""
Alarm notifications: the Lambda event that AWS documents, else e-mail and SMS, and again to more people until somebody
acknowledges.
"""

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from wheeltapper.clock import Clock
from wheeltapper.errors import WheeltapperError
from wheeltapper.judge import Action, AlarmRecord, Judge
from wheeltapper.judge.delivery import Result, Settled
from wheeltapper_cloud.actions_aws import AwsExecutor
from wheeltapper_cloud.actions_local import Mailer
from wheeltapper_cloud.actions_settings import NotificationSettings

if TYPE_CHECKING:
    from wheeltapper_cloud.actions import Router

log = logging.getLogger(__name__)

_LOOK_S = 5.0


class NotificationExecutor:
    """
    Carries out one notification of an alarm model: the action's payload is the event for its Lambda function.

    The function is called where it is mapped or there is an account; otherwise the e-mails and text messages that it would
    have sent are sent from here. A repeat repeats them all, under the same id.
    """

    immediate = False

    def __init__(
        self, settings: NotificationSettings, router: "Router", aws: AwsExecutor | None, mailer: Mailer | None
    ) -> None:
        self._settings = settings
        self._router = router
        self._aws = aws
        self._mailer = mailer

    def execute(self, action: Action, settled: Settled) -> None:
        event = self._resolved(json.loads(action.payload))
        executor = self._router.executor_of("lambda", action.target) if action.target else None
        if executor is not None:
            call = msgspec.structs.replace(action, type="lambda", payload=json.dumps(event).encode())
            executor.execute(call, settled)
            return
        missed: list[str] = []
        sent = sum(self._mail(email, event, action, missed) for email in event["emailConfigurations"])
        sent += sum(self._text(sms, event, missed) for sms in event["smsConfigurations"])
        detail = "; ".join(missed)
        settled(Result("delivered", detail) if sent else Result("undelivered", detail or "names no recipient"))

    def _resolved(self, event: dict[str, Any]) -> dict[str, Any]:
        """The event with people's ids replaced by their addresses."""
        for email in event["emailConfigurations"]:
            email["to"] = self._addresses(email.get("to") or [])
        for sms in event["smsConfigurations"]:
            sms["phoneNumbers"] = self._addresses(sms.get("phoneNumbers") or [])
        return event

    def _addresses(self, recipients: list[str]) -> list[str]:
        found = []
        for recipient in recipients:
            address = (
                recipient if "@" in recipient or recipient.startswith("+") else self._settings.people.get(recipient)
            )
            if address:
                found.append(address)
            else:
                log.warning("notification: recipient %r is not in actions.notifications.people", recipient)
        return found

    def _mail(self, email: Mapping[str, Any], event: Mapping[str, Any], action: Action, missed: list[str]) -> int:
        if not email["to"]:
            missed.append("e-mail: no address is known for its recipients; add them to actions.notifications.people")
            return 0
        if self._mailer is None:
            missed.append("e-mail: no server is configured; add [actions.smtp]")
            return 0
        subject = email.get("subject") or _headline(event)
        body = "\n\n".join(filter(None, [email.get("additionalMessage"), _readable(event)]))
        self._mailer.send(email.get("from") or self._settings.sender, email["to"], subject, body, action.id)
        return 1

    def _text(self, sms: Mapping[str, Any], event: Mapping[str, Any], missed: list[str]) -> int:
        if self._aws is None:
            missed.append("SMS: no AWS account is configured")
            return 0
        for number in sms["phoneNumbers"]:
            self._aws.send_text(number, sms.get("additionalMessage") or _headline(event), sms.get("senderId") or "")
        return len(sms["phoneNumbers"])


class Escalation:
    """
    Looks at the open alarms and tells more people about those that nobody has taken up.

    What it orders goes through the judge's durable actions under an id of alarm and step, so that a restart neither
    forgets nor repeats a step.
    """

    def __init__(self, settings: NotificationSettings, judge: Judge, clock: Clock) -> None:
        self._settings = settings
        self._judge = judge
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="escalation", daemon=True)

    def start(self) -> None:
        """Begin to look, where the settings ask for it."""
        if self._settings.escalate_after_s:
            self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> int:
        """Order what is due now; gives how many steps are due that were not ordered before."""
        due = [action for alarm in self._judge.raised_alarms() for action in self._steps(alarm)]
        return self._judge.order(due) if due else 0

    def _steps(self, alarm: AlarmRecord) -> Iterator[Action]:
        if alarm.acknowledged_ms is not None or alarm.state in ("ACKNOWLEDGED", "SNOOZE_DISABLED"):
            return
        at_ms = float(alarm.raised_ms)
        for number, pause_s in enumerate(self._settings.escalate_after_s):
            at_ms += pause_s * 1000
            if self._clock.time_ms() >= at_ms:
                yield self._step(alarm, number)

    def _step(self, alarm: AlarmRecord, number: int) -> Action:
        body = bytes(alarm.body)
        to = self._settings.escalate_to
        event = {
            "notificationEventPayload": body.decode(),
            "emailConfigurations": [{"to": mails}] if (mails := [each for each in to if "@" in each]) else [],
            "smsConfigurations": [{"phoneNumbers": numbers}]
            if (numbers := [each for each in to if "@" not in each])
            else [],
        }
        return Action(
            id=f"{alarm.id}-escalation-{number + 1}",
            model=alarm.model,
            key=alarm.key,
            thing=json.loads(body).get("thing", ""),
            event="ESCALATION",
            type="notification",
            target="",
            payload=json.dumps(event).encode(),
            time_ms=alarm.raised_ms,
        )

    def _run(self) -> None:
        while not self._clock.wait(self._stop, _LOOK_S):
            try:
                self.look()
            except WheeltapperError as error:
                log.warning("escalation: %s", error)


def _headline(event: Mapping[str, Any]) -> str:
    told = json.loads(event["notificationEventPayload"])
    model, key = told.get("alarmModelName") or told.get("detector", ""), told.get("keyValue") or told.get("key", "")
    state = (told.get("alarmState") or {}).get("stateName") or told.get("state", "")
    return f"Alarm {model} {key}: {state}".replace("  ", " ")


def _readable(event: Mapping[str, Any]) -> str:
    return json.dumps(json.loads(event["notificationEventPayload"]), indent=2, ensure_ascii=False)
