"""What ``cloud.toml`` wants to be there, put there when the server starts: inputs first, then models."""

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from wheeltapper.definition_files import read_definition_file, warn_of_unused
from wheeltapper.errors import SettingsError
from wheeltapper_cloud.iotevents import Handler
from wheeltapper_cloud.iotevents_account import Account, Call
from wheeltapper_cloud.settings import CloudSettings, InputSettings
from wheeltapper_cloud.store import Kind
from wheeltapper_cloud.wire import Operations, ServiceError

log = logging.getLogger(__name__)

_TABLE = "parameters"
_KINDS: tuple[tuple[Kind, str, str], ...] = (
    ("input", "inputName", "Input"),
    ("detectorModel", "detectorModelName", "DetectorModel"),
    ("alarmModel", "alarmModelName", "AlarmModel"),
)


class Deployer:
    """Creates what is missing and updates what differs, through the same operations that clients call."""

    def __init__(self, account: Account, operations: Operations, handlers: Mapping[str, Any]) -> None:
        self._account = account
        self._operations = operations
        self._handlers = handlers

    def deploy(self, settings: CloudSettings) -> None:
        """
        Bring the account to what the settings want; what they do not mention stays.

        Raises:
            SettingsError: a file cannot be read, or what it defines is refused; says which and why.
        """
        bodies: dict[Kind, list[tuple[str, dict[str, Any]]]] = {"input": [], "detectorModel": [], "alarmModel": []}
        bodies["input"] += [("cloud.toml", _input_body(one)) for one in settings.inputs]
        parameters = settings.template_parameters()
        files = [(str(file), read_definition_file(file, parameters, _TABLE)) for file in settings.models]
        if all(rule.file is None for rule in settings.rules):  # a rule's template may use them
            warn_of_unused(settings.parameters, (found for _, found in files), _TABLE)
        for source, found in files:
            bodies["input"] += [(source, body) for body in found.inputs]
            bodies["detectorModel"] += [(source, body) for body in found.detector_models]
            bodies["alarmModel"] += [(source, body) for body in found.alarm_models]
        for kind, name_member, title in _KINDS:
            for source, body in bodies[kind]:
                try:
                    self._put(kind, name_member, title, body, migrate=settings.migrate)
                except ServiceError as error:
                    raise SettingsError(f"{source}: {body.get(name_member, title)}: {error}") from error

    def _put(self, kind: Kind, name_member: str, title: str, body: dict[str, Any], *, migrate: bool) -> None:
        if kind != "input":
            role = f"arn:aws:iam::{self._account.settings.server.account}:role/wheeltapper"
            body = {"roleArn": role} | {member: value for member, value in body.items() if value is not None}
        request = self._operations.by_name[f"Create{title}"].read({}, "", msgspec.json.encode(body))
        name = request[name_member]
        held = self._account.store.get(kind, name)
        wanted = {member: value for member, value in request.items() if member != "tags"}
        if held is None:
            self._call(f"Create{title}", request)
        elif held.body.get("key") != wanted.get("key"):
            raise ServiceError(
                "InvalidRequestException", "its key differs from the one in force; delete the model first"
            )
        elif held.body != wanted:
            self._call(
                f"Update{title}", {member: value for member, value in wanted.items() if member != "key"}, migrate
            )
        else:
            return
        log.info("%s %s: %s", kind, name, "created" if held is None else "updated")

    def _call(self, operation: str, request: dict[str, Any], migrate: bool = False) -> None:
        handler: Handler = self._handlers[operation]
        handler(Call(request=request, by="cloud.toml", migrate=migrate))


def _input_body(one: InputSettings) -> dict[str, Any]:
    body: dict[str, Any] = {
        "inputName": one.name,
        "inputDefinition": {"attributes": [{"jsonPath": path} for path in one.attributes]},
    }
    return body | ({"inputDescription": one.description} if one.description else {})
