"""What the journal's rows hold: a kind and its bytes, readable for as long as the journal is kept."""

from typing import Any

import msgspec

from wheeltapper.detector.handle import Kind, handle_of
from wheeltapper.judge.types import AlarmOperation, Deployment, DetectorUpdate, Message

MESSAGES = "messages"
TIMERS = "timers"
INPUTS = "inputs"
DEPLOY = "deploy"
WITHDRAW = "withdraw"
UPDATE = "update"
DELETE = "delete"
OPERATE = "operate"


class Timers(msgspec.Struct, frozen=True):
    """The timers due by then fired; ``late`` after the host was down."""

    until_ms: int
    late: bool = False


class Inputs(msgspec.Struct, frozen=True):
    """The inputs that exist from here on."""

    inputs: dict[str, list[str]]


class Deploy(msgspec.Struct, frozen=True):
    """A definition came into force."""

    deployment: Deployment
    migrate: bool = False

    @property
    def handle(self) -> str:
        return self.deployment.handle


class Withdraw(msgspec.Struct, frozen=True):
    """A definition went out of force."""

    name: str
    kind: Kind = "detector"

    @property
    def handle(self) -> str:
        return handle_of(self.kind, self.name)


class Update(msgspec.Struct, frozen=True):
    """Detectors were put into a state."""

    updates: list[DetectorUpdate]


class Delete(msgspec.Struct, frozen=True):
    """Detectors, as (model, key), were deleted."""

    targets: list[tuple[str, str]]


class Operate(msgspec.Struct, frozen=True):
    """An operator acted on alarms."""

    operations: list[AlarmOperation]


Command = Timers | Inputs | Deploy | Withdraw | Update | Delete | Operate

KIND_OF: dict[type, str] = {
    Timers: TIMERS,
    Inputs: INPUTS,
    Deploy: DEPLOY,
    Withdraw: WITHDRAW,
    Update: UPDATE,
    Delete: DELETE,
    Operate: OPERATE,
}

_encoder = msgspec.msgpack.Encoder()
_json_encoder = msgspec.json.Encoder()
_messages = msgspec.msgpack.Decoder(list[Message])
_commands: dict[str, msgspec.json.Decoder[Any]] = {kind: msgspec.json.Decoder(of) for of, kind in KIND_OF.items()}


def encode_messages(messages: list[Message]) -> bytes:
    """A row of messages."""
    return _encoder.encode(messages)


def decode_messages(entries: bytes) -> list[Message]:
    """The messages of a row."""
    return _messages.decode(entries)


def encode_command(command: Command) -> bytes:
    """A row of any other kind; definitions stay verbatim in it."""
    return _json_encoder.encode(command)


def decode_command(kind: str, entries: bytes) -> Command:
    """What a row of any other kind says."""
    command: Command = _commands[kind].decode(entries)
    return command
