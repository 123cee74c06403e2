"""
``cloud.toml``: what the cloud companion serves, deploys, listens to and does.

``WHEELTAPPER_CLOUD__SERVER__PORT=8601`` in the environment overrides ``port`` in ``[server]``, and so with every member.
Every section may be missing. A field that does not exist is refused by its name, so that a misspelling cannot pass.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from wheeltapper import config
from wheeltapper.judge import JudgeSettings
from wheeltapper.transport.settings import BrokerSettings
from wheeltapper_cloud.actions_settings import ActionSettings
from wheeltapper_cloud.rules import RuleSettings

ENVIRONMENT_PREFIX = "WHEELTAPPER_CLOUD__"


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Attributes:
        host, port: where to listen; off loopback only with access keys.
        account, region: what ARNs name.
        body_limit: bytes of a request's body; larger ones are refused unread.
        timeout_s: how long a call may wait for the judge before it answers 503.
        certificate, private_key: PEM files; with them the server speaks HTTPS.
    """

    host: str = "127.0.0.1"
    port: int = 8600
    account: str = "123456789012"
    region: str = "us-east-1"
    body_limit: int = 6 * 1024 * 1024
    timeout_s: float = 30.0
    certificate: Path | None = None
    private_key: Path | None = None


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Quotas; 0 is none. Where AWS has a number and an error for it, the default is AWS's.

    Attributes:
        detector_models, versions, analyses: what the account may hold, and how many analyses may run at once.
        inputs, alarm_models: AWS allows 50 of each; here there is no limit unless one is set.
        batch: messages in one BatchPutMessage; alarms always take 10.
        message_bytes: size of one message's payload, over HTTP and MQTT.
    """

    detector_models: int = 50
    versions: int = 500
    analyses: int = 10
    inputs: int = 0
    alarm_models: int = 0
    batch: int = 0
    message_bytes: int = 0


class InputSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An input to create at start: its name and the paths of its attributes."""

    name: str
    attributes: list[str]
    description: str = ""


class CloudSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The whole of ``cloud.toml``.

    Attributes:
        thing: whose health this process reports.
        broker: where to listen and publish: ``mqtt://host:port``, or a table with credentials; empty is none.
        health_s: how often this process reports its health over the broker.
        inputs: created at start where they are missing, updated where they differ.
        models: files of definitions, in any form that ``readers`` knows, relative to the settings' own folder; created
            at start where they are missing, updated where they differ.
        parameters: values for the parameters of templates, of models and of rules; the account and the region are the
            server's.
        migrate: a changed model keeps its detectors' states, variables and timers instead of resetting them.
        rules: which topics feed which input.
        actions: where actions and notifications go.
    """

    thing: str = "cloud"
    broker: str | BrokerSettings = ""
    health_s: float = 10.0
    server: ServerSettings = ServerSettings()
    limits: LimitSettings = LimitSettings()
    judge: JudgeSettings = JudgeSettings()
    inputs: list[InputSettings] = []
    models: list[Path] = []
    parameters: dict[str, str] = {}
    migrate: bool = False
    rules: list[RuleSettings] = []
    actions: ActionSettings = ActionSettings()

    def template_parameters(self) -> dict[str, str]:
        """What a template's parameters are, and those that CloudFormation knows by itself."""
        return {"AWS::AccountId": self.server.account, "AWS::Region": self.server.region, **self.parameters}


def default_data_dir() -> Path:
    """Where the cloud keeps its data unless ``--data-dir`` says otherwise."""
    home = os.environ.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser()
    return Path(home) / "wheeltapper" / "cloud"


def load(
    path: Path | None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[tuple[str, ...], Any] | None = None,
) -> CloudSettings:
    """
    The settings of a file, then of the environment, then of the command line; see ``wheeltapper.config.load``.

    Raises:
        SettingsError: the file cannot be read, is not TOML, or a field is unknown or of the wrong type.
    """
    return config.load(CloudSettings, path, prefix=ENVIRONMENT_PREFIX, environment=environment, overrides=overrides)
