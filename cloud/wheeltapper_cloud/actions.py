"""
Which executor carries out which action.

In this order: what the operator has mapped; ``iotEvents`` goes back into an input; ``iotTopicPublish`` goes to the broker;
everything else to the AWS account. Where none of these is there, nobody carries it out, and it is recorded so.
"""

import re
from typing import Any

from wheeltapper.clock import Clock
from wheeltapper.errors import SettingsError
from wheeltapper.judge import Action, Judge
from wheeltapper.judge.delivery import Executor
from wheeltapper.judge.executors import BrokerExecutor, InputExecutor
from wheeltapper.transport import Transport
from wheeltapper_cloud.actions_aws import AwsExecutor
from wheeltapper_cloud.actions_command import CommandExecutor
from wheeltapper_cloud.actions_email import EmailExecutor, Mailer
from wheeltapper_cloud.actions_file import FileExecutor
from wheeltapper_cloud.actions_settings import (
    ESCALATION,
    ActionSettings,
    ToBroker,
    ToCommand,
    ToEmail,
    ToFile,
    ToInput,
    ToWebhook,
)
from wheeltapper_cloud.actions_webhook import WebhookExecutor
from wheeltapper_cloud.notifications import NotificationExecutor

_TYPES = (
    *("sns", "sqs", "lambda", "firehose", "dynamoDB", "dynamoDBv2", "iotTopicPublish", "iotSiteWise", "iotEvents"),
    ESCALATION,
)


class Router:
    """
    The route of a Delivery.

    Args:
        transport: the broker; None where there is none.

    Raises:
        SettingsError: a mapping needs what the settings do not give.
    """

    def __init__(
        self, settings: ActionSettings, judge: Judge, hop_limit: int, clock: Clock, transport: Transport | None
    ) -> None:
        self._settings = settings
        self._judge = judge
        self._hop_limit = hop_limit
        self._clock = clock
        self._broker = BrokerExecutor(transport) if transport is not None else None
        self._transport = transport
        self._aws = AwsExecutor(settings.aws) if settings.aws is not None else None
        self._mailer = Mailer(settings.smtp) if settings.smtp is not None else None
        self._inputs = InputExecutor(judge, hop_limit)
        self._mapped = [(_type_of(mapping), _pattern(mapping.target), self._make(mapping)) for mapping in settings.map]
        self._check_escalation()
        self._notifications = NotificationExecutor(settings.notifications, self, judge, self._aws, self._mailer)

    def __call__(self, action: Action) -> Executor | None:
        if action.type == "publish":
            return self._broker
        if action.type == "notification":
            return self._notifications
        return self.executor_of(action.type, action.target)

    def executor_of(self, action_type: str, target: str) -> Executor | None:
        """Who carries out an action of a definition; None where nobody does."""
        for wanted_type, pattern, executor in self._mapped:
            if wanted_type in ("", action_type) and pattern.fullmatch(target):
                return executor
        if action_type == "iotEvents":
            return self._inputs
        if action_type == "iotTopicPublish" and self._broker is not None:
            return self._broker
        if self._aws is not None and self._aws.carries_out(action_type):
            return self._aws
        return None

    def escalation_of(self, model: str) -> Executor | None:
        """Who is told that nobody acknowledges an alarm of a model; None where only addresses are."""
        for wanted_type, pattern, executor in self._mapped:
            if wanted_type == ESCALATION and pattern.fullmatch(model):
                return executor
        return None

    def _check_escalation(self) -> None:
        told = self._settings.notifications
        if (
            told.escalate_after_s
            and not told.escalate_to
            and not any(kind == ESCALATION for kind, _, _ in self._mapped)
        ):
            raise SettingsError(
                "actions.notifications.escalate_after_s: there is nobody to escalate to; add escalate_to, or an"
                f' actions.map of type = "{ESCALATION}"'
            )

    def _make(self, mapping: Any) -> Executor:
        match mapping:
            case ToBroker(topic=topic):
                if self._transport is None:
                    raise SettingsError(f"actions.map {mapping.target!r}: to mqtt needs a broker; set broker")
                return BrokerExecutor(self._transport, topic)
            case ToWebhook():
                return WebhookExecutor(mapping, self._clock)
            case ToEmail():
                if self._mailer is None:
                    raise SettingsError(f"actions.map {mapping.target!r}: to email needs [actions.smtp]")
                return EmailExecutor(mapping, self._mailer)
            case ToFile(path=path):
                return FileExecutor(path)
            case ToCommand(name=name):
                command = self._settings.commands.get(name)
                if command is None:
                    raise SettingsError(
                        f"actions.map {mapping.target!r}: command {name!r} is not in [actions.commands]"
                    )
                return CommandExecutor(name, command)
            case ToInput(input=name):
                return InputExecutor(self._judge, self._hop_limit, name)
        raise SettingsError(f"actions.map {mapping!r}: unknown")


def _type_of(mapping: Any) -> str:
    kind: str = mapping.type
    if kind and kind not in _TYPES:
        raise SettingsError(f"actions.map type {kind!r}: must be one of {', '.join(_TYPES)}")
    return kind


def _pattern(text: str) -> re.Pattern[str]:
    """A pattern in which only ``*`` and ``?`` are special: names hold brackets of their own."""
    return re.compile(re.escape(text).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)
