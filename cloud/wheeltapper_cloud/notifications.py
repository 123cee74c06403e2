"""
Alarm notifications: the Lambda event that AWS documents, else e-mail and SMS, and again to more people until somebody
acknowledges.
"""

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from wheeltapper.clock import Clock
from wheeltapper.errors import MessageError, SettingsError, UnavailableError
from wheeltapper.judge import Action, AlarmRecord, Judge
from wheeltapper.judge.delivery import Executor, Result, Settled
from wheeltapper_cloud.actions_aws import AwsExecutor
from wheeltapper_cloud.actions_email import Mailer
from wheeltapper_cloud.actions_json import as_json
from wheeltapper_cloud.actions_settings import NotificationSettings
from wheeltapper_cloud.tables import moment

if TYPE_CHECKING:
    from wheeltapper_cloud.actions import Router

log = logging.getLogger(__name__)

_ESCALATION = "ESCALATION"
_LOOK_S = 5.0
_MOST_ALARMS = 100_000
_REMEMBERED = 1_000
_SILENT_STATES = ("ACKNOWLEDGED", "SNOOZE_DISABLED", "DISABLED")


class People:
    """
    Whom alarm models and settings name, by their addresses.

    Raises:
        SettingsError: somebody's address is neither e-mail nor phone number.
    """

    def __init__(self, people: Mapping[str, str | Sequence[str]]) -> None:
        self._addresses = {name: [given] if isinstance(given, str) else list(given) for name, given in people.items()}
        for name, addresses in self._addresses.items():
            for address in addresses:
                if not (_is_mail(address) or _is_phone(address)):
                    raise SettingsError(
                        f"actions.notifications.people {name}: {address!r} must be an e-mail address, or a phone number"
                        " that begins with +"
                    )

    def addresses(self, recipient: str) -> list[str]:
        """Everything by which a recipient is reached; empty where it is an id that nobody knows."""
        return [recipient] if _is_mail(recipient) or _is_phone(recipient) else self._addresses.get(recipient, [])

    def reached(self, recipients: Sequence[str], way: Callable[[str], bool], missed: list[str]) -> list[str]:
        """The addresses of one kind; ``missed`` is told who has none, and what to do."""
        found = []
        for recipient in recipients:
            fit = [address for address in self.addresses(recipient) if way(address)]
            found += fit
            if not fit:
                kind = "an e-mail address" if way is _is_mail else "a phone number"
                missed.append(
                    f"recipient {recipient!r} has no address of that kind: give {kind} for this identity-store user id in"
                    " actions.notifications.people"
                )
        return found


class NotificationExecutor:
    """
    Carries out one notification of an alarm model: the action's payload is the event for its Lambda function.

    The function is called where it is mapped or there is an account; otherwise the e-mails and text messages that it would
    have sent are sent from here. A repeat sends those that could not be sent, and after a restart all, under the same id.

    Raises:
        SettingsError: a person has no valid address.
    """

    immediate = False

    def __init__(
        self,
        settings: NotificationSettings,
        router: "Router",
        judge: Judge,
        aws: AwsExecutor | None,
        mailer: Mailer | None,
    ) -> None:
        self._settings = settings
        self._people = People(settings.people)
        self._router = router
        self._judge = judge
        self._aws = aws
        self._mailer = mailer
        self._sent: OrderedDict[str, set[int]] = OrderedDict()
        self._lock = threading.Lock()

    def execute(self, action: Action, settled: Settled) -> None:
        if action.event == _ESCALATION and (reason := self._outdated(action)):
            settled(Result("delivered", f"not sent: {reason}"))
            return
        missed: list[str] = []
        event = self._resolved(json.loads(action.payload), missed)
        executor = self._stand_in(action)
        if executor is not None:
            call = msgspec.structs.replace(action, type="lambda", payload=json.dumps(event).encode())
            executor.execute(call, lambda result: settled(_with_detail(result, missed)))
            return
        settled(self._send_all(action, event, missed))

    def _stand_in(self, action: Action) -> Executor | None:
        if action.event == _ESCALATION:
            return self._router.escalation_of(action.model)
        return self._router.executor_of("lambda", action.target) if action.target else None

    def _outdated(self, action: Action) -> str:
        """Why an escalation is not wanted any more; empty where it is."""
        alarm = self._judge.raised_alarm(str(action.parameters.get("alarm")))
        return silenced(alarm) if alarm is not None else ""

    def _resolved(self, event: dict[str, Any], missed: list[str]) -> dict[str, Any]:
        """The event with people's ids replaced by their addresses."""
        for email in event["emailConfigurations"]:
            email["to"] = self._people.reached(email.get("to") or [], _is_mail, missed)
        for sms in event["smsConfigurations"]:
            sms["phoneNumbers"] = self._people.reached(sms.get("phoneNumbers") or [], _is_phone, missed)
        return event

    def _send_all(self, action: Action, event: Mapping[str, Any], missed: list[str]) -> Result:
        """Send each e-mail and text message that was not sent before, whatever becomes of the others."""
        later: list[str] = []
        refused: list[str] = []
        sent = self._sent_before(action.id)
        for number, send in enumerate([*self._mails(action, event, missed), *self._texts(event, missed)]):
            if number in sent:
                continue
            try:
                refused += filter(None, [send()])
                sent.add(number)
            except UnavailableError as error:
                later.append(str(error))
            except MessageError as error:
                refused.append(str(error))
        detail = "; ".join(later + refused + missed)
        if later:
            return Result("retry", detail)
        with self._lock:
            self._sent.pop(action.id, None)
        if sent:
            return Result("delivered", detail)
        return Result("failed", detail) if refused else Result("undelivered", detail or "names no recipient")

    def _sent_before(self, action_id: str) -> set[int]:
        with self._lock:
            sent = self._sent.setdefault(action_id, set())
            if len(self._sent) > _REMEMBERED:
                self._sent.popitem(last=False)
            return sent

    def _mails(self, action: Action, event: Mapping[str, Any], missed: list[str]) -> Iterator[Callable[[], str]]:
        wanted = [email for email in event["emailConfigurations"] if email["to"]]
        mailer = self._mailer
        if mailer is None:
            missed += ["e-mail: no server is configured; add [actions.smtp]"] if wanted else []
            return
        for number, email in enumerate(wanted):
            message_id = f"{action.id}-{number + 1}" if number else action.id
            yield partial(self._mail, mailer, email, event, message_id, action.time_ms)

    def _mail(
        self, mailer: Mailer, email: Mapping[str, Any], event: Mapping[str, Any], message_id: str, time_ms: int
    ) -> str:
        subject = email.get("subject") or _headline(event)
        body = "\n\n".join(filter(None, [email.get("additionalMessage"), _readable(event)]))
        sender = email.get("from") or self._settings.sender
        return mailer.send(sender, email["to"], subject, body, message_id, time_ms)

    def _texts(self, event: Mapping[str, Any], missed: list[str]) -> Iterator[Callable[[], str]]:
        wanted = [(number, sms) for sms in event["smsConfigurations"] for number in sms["phoneNumbers"]]
        aws = self._aws
        if aws is None:
            missed += ["SMS: no AWS account is configured; add [actions.aws], or map the function"] if wanted else []
            return
        for number, sms in wanted:
            yield partial(_text, aws, number, sms, event)


def _text(aws: AwsExecutor, number: str, sms: Mapping[str, Any], event: Mapping[str, Any]) -> str:
    aws.send_text(number, sms.get("additionalMessage") or _headline(event), sms.get("senderId") or "")
    return ""


class Escalation:
    """
    Looks at the open alarms and tells more people about those that nobody has taken up.

    What it orders goes through the judge's durable actions under an id of alarm and step, so that a restart neither
    forgets nor repeats a step. Of steps that fell due while nobody looked, only the last is told.

    Raises:
        SettingsError: it is to escalate to somebody who has no address.
    """

    def __init__(self, settings: NotificationSettings, judge: Judge, clock: Clock) -> None:
        self._settings = settings
        self._judge = judge
        self._clock = clock
        people = People(settings.people)
        unknown = [each for each in settings.escalate_to if not people.addresses(each)]
        if unknown:
            raise SettingsError(
                f"actions.notifications.escalate_to {unknown[0]!r}: must be an e-mail address, a phone number that begins"
                " with +, or one of actions.notifications.people"
            )
        if any(pause <= 0 for pause in settings.escalate_after_s):
            raise SettingsError("actions.notifications.escalate_after_s: must be seconds greater than 0")
        self._addresses = [address for each in settings.escalate_to for address in people.addresses(each)]
        self._ordered: set[str] = set()
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
        alarms = self._judge.raised_alarms(limit=_MOST_ALARMS)
        due = {f"{alarm.id}-escalation-{step}": alarm for alarm in alarms if (step := self._step_of(alarm))}
        self._ordered &= due.keys()
        fresh = [self._action(action_id, alarm) for action_id, alarm in due.items() if action_id not in self._ordered]
        new = self._judge.order(fresh) if fresh else 0
        self._ordered |= due.keys()
        return new

    def _step_of(self, alarm: AlarmRecord) -> int:
        """The last step that is due, from 1; 0 for none."""
        if silenced(alarm):
            return 0
        at_ms, due = float(alarm.raised_ms), 0
        for number, pause_s in enumerate(self._settings.escalate_after_s, 1):
            at_ms += pause_s * 1000
            if self._clock.time_ms() >= at_ms:
                due = number
        return due

    def _action(self, action_id: str, alarm: AlarmRecord) -> Action:
        body = bytes(alarm.body)
        name = f"{alarm.model} {alarm.key}".strip()
        told = (
            f"Nobody has acknowledged since {moment(alarm.raised_ms)}: alarm {name}: {alarm.state}."
            f" To take it up: wheeltapper alarms ack {alarm.id[-8:]}"
        )
        mails = [each for each in self._addresses if _is_mail(each)]
        numbers = [each for each in self._addresses if _is_phone(each)]
        email = {"to": mails, "subject": f"Not acknowledged: alarm {name}: {alarm.state}", "additionalMessage": told}
        event = {
            "notificationEventPayload": body.decode(),
            "emailConfigurations": [email] if mails else [],
            "smsConfigurations": [{"phoneNumbers": numbers, "additionalMessage": told}] if numbers else [],
        }
        return Action(
            id=action_id,
            model=alarm.model,
            key=alarm.key,
            thing=json.loads(body).get("thing", ""),
            event=_ESCALATION,
            type="notification",
            target="",
            payload=json.dumps(event).encode(),
            parameters={"alarm": alarm.id},
            time_ms=self._clock.time_ms(),
            kind=alarm.kind,
        )

    def _run(self) -> None:
        while not self._clock.wait(self._stop, _LOOK_S):
            try:
                self.look()
            except UnavailableError as error:
                log.warning("escalation: %s", error)
            except Exception:
                log.exception("escalation: failed; going on")


def silenced(alarm: AlarmRecord) -> str:
    """Why nobody else need be told of an alarm; empty where somebody must."""
    if alarm.acknowledged_ms is not None:
        return f"acknowledged by {alarm.acknowledged_by}".removesuffix(" by ")
    if alarm.cleared_ms is not None:
        return "over"
    if alarm.shelved is not None:
        return "out of service" if alarm.shelved.until_ms is None else "shelved"
    return alarm.state.lower() if alarm.state in _SILENT_STATES else ""


def _is_mail(address: str) -> bool:
    return "@" in address


def _is_phone(address: str) -> bool:
    return address.startswith("+")


def _with_detail(result: Result, missed: Sequence[str]) -> Result:
    return result._replace(detail="; ".join(filter(None, [result.detail, *missed])))


def _headline(event: Mapping[str, Any]) -> str:
    told = json.loads(event["notificationEventPayload"])
    model, key = told.get("alarmModelName") or told.get("detector", ""), told.get("keyValue") or told.get("key", "")
    state = (told.get("alarmState") or {}).get("stateName") or told.get("state", "")
    return f"Alarm {model} {key}: {state}".replace("  ", " ")


def _readable(event: Mapping[str, Any]) -> str:
    return as_json(json.loads(event["notificationEventPayload"]), indent=2)
