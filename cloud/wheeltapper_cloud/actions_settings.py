"""What an operator may say about actions: which AWS account, and what stands in for which target."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from wheeltapper.judge.delivery import DeliverySettings

# The type of a mapping for what nobody has acknowledged in time; its target is the model's name.
ESCALATION = "escalation"

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Texts = Annotated[list[str], msgspec.Meta(min_length=1)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class AwsAccount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The account whose services are really called; credentials come from boto3's own chain.

    Attributes:
        region: where no ARN or URL names one.
        profile: of ``~/.aws/config``; empty is the default.
        endpoint_url: another address for every service, such as a local emulator.
    """

    region: str = "us-east-1"
    profile: str = ""
    endpoint_url: str = ""


class _Mapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="to"):
    """
    What stands in for targets.

    Attributes:
        target: an ARN, URL, topic, table or input name, or a pattern with ``*`` and ``?``.
        type: only actions of this type; empty is any but ``escalation``.
    """

    target: str = "*"
    type: str = ""


class ToBroker(_Mapping, frozen=True, kw_only=True, tag="mqtt"):
    """Publish the payload on a topic; ``{thing}`` in it becomes the thing."""

    topic: str


class ToWebhook(_Mapping, frozen=True, kw_only=True, tag="webhook"):
    """
    POST the payload, signed with HMAC-SHA256 by the secret in a file; https, or http on loopback.

    Attributes:
        secret_file: at least 16 characters, mode 0600.
        timeout_s: how long all of it may take, from looking up the name to the last byte.
        ca: certificate of the authority that the server is verified by; else those that the system trusts.
    """

    url: str
    secret_file: Path
    timeout_s: Seconds = 10.0
    ca: Path | None = None


class ToEmail(_Mapping, frozen=True, kw_only=True, tag="email"):
    """Send the payload as an e-mail through the SMTP server of the settings."""

    sender: str
    recipients: Texts
    subject: str = "{model}: {event} ({thing})"


class ToFile(_Mapping, frozen=True, kw_only=True, tag="file"):
    """Append one line of JSON."""

    path: Path


class ToCommand(_Mapping, frozen=True, kw_only=True, tag="command"):
    """Run a command of the operator's list, without a shell; the payload is its standard input."""

    name: str


class ToInput(_Mapping, frozen=True, kw_only=True, tag="input"):
    """Make the payload a message of an input."""

    input: str


Mapping = ToBroker | ToWebhook | ToEmail | ToFile | ToCommand | ToInput


class SmtpSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The server that takes e-mail; ``none`` is for loopback only.

    Attributes:
        password_file: mode 0600; goes together with ``username``.
        ca: certificate of the authority that the server is verified by; else those that the system trusts.
        timeout_s: how long all of it may take for one mail, from looking up the name to the last byte.
    """

    host: str = "127.0.0.1"
    port: Port = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str = ""
    password_file: Path | None = None
    ca: Path | None = None
    timeout_s: Seconds = 60.0


class CommandSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A program with its arguments, and how long it may take."""

    run: Texts
    timeout_s: Seconds = 30.0


class NotificationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Alarm models' notifications.

    Attributes:
        sender: from whom e-mail comes where an alarm model does not say.
        escalate_after_s: an open alarm that nobody has acknowledged after the first of these is told to ``escalate_to``,
            again when the second has passed after that, and so on.
        escalate_to: e-mail addresses, phone numbers that begin with ``+``, or people; none where a mapping of type
            ``escalation`` stands in.
        people: identity-store user id, as alarm models name recipients → e-mail address, phone number, or both.
    """

    sender: str = "wheeltapper@localhost"
    escalate_after_s: list[float] = []
    escalate_to: list[str] = []
    people: dict[str, str | list[str]] = {}


class ActionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Everything about actions.

    Attributes:
        map: first match counts; before the account and before the broker.
        aws: the account; None calls nothing at AWS.
        commands: name → what ``to = "command"`` may run.
        smtp: None sends no e-mail.
    """

    map: list[Mapping] = []
    aws: AwsAccount | None = None
    commands: dict[str, CommandSettings] = {}
    smtp: SmtpSettings | None = None
    notifications: NotificationSettings = NotificationSettings()
    delivery: DeliverySettings = DeliverySettings()
