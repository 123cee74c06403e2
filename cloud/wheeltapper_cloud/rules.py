"""
Rules: which topics feed which input, and what becomes of a message on the way.

A rule is a topic filter with a few settings, or the statement of an AWS IoT topic rule.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from wheeltapper.errors import MessageError, SettingsError
from wheeltapper.judge import Message
from wheeltapper.topics import check_filter
from wheeltapper_cloud.iotsql import Context, Expression, Select, parse_statement, parse_template
from wheeltapper_cloud.iotsql_values import UNDEFINED, TooMuchWorkError, read_json, to_string

_MAX_ID = 128


class RuleSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    One rule.

    Attributes:
        input: the input that receives what the rule selects; a name, or a template such as ``${topic(1)}``.
        filter: an MQTT topic filter; not with ``sql``, which names its own.
        sql: the statement of an AWS IoT topic rule.
        file: a rule as it is kept (``aws iot get-topic-rule``, CloudFormation, Terraform), which says the three above and
            ``batch``; relative to the settings' own folder.
        basic_ingest: name under which Basic Ingest reaches the rule, too: on topics ``$aws/rules/NAME/…``.
        payload: dotted path of the object to pass on; empty is the whole payload.
        message_id: path of the id that makes repeats harmless, or a template such as ``${topic(2)}-${seq}``; where the
            message has none, it is never taken for a repeat.
        timestamp: path, or template, of the time it was measured, in ms since the epoch; where the message has none, its
            arrival counts.
        share: name of a shared subscription, so that several workers divide the messages.
        batch: where an array is passed on, each of its items is a message of its own.
    """

    input: str = ""
    filter: str = ""
    sql: str = ""
    file: Path | None = None
    basic_ingest: str = ""
    payload: str = ""
    message_id: str = "message_id"
    timestamp: str = "time_ms"
    share: str = ""
    batch: bool = False


class Rule:
    """
    A rule, compiled.

    Args:
        settings: what it is.
        account: what accountid() gives.

    Raises:
        SettingsError: neither or both of filter and sql, no input, no topic, or SQL that is not supported.
    """

    def __init__(self, settings: RuleSettings, account: str = "") -> None:
        where = f"rule for input {settings.input!r}"
        if not settings.input:
            raise SettingsError(f"rule {settings.sql or settings.filter!r}: give the input that it feeds")
        if bool(settings.filter) == bool(settings.sql):
            raise SettingsError(f"{where}: give either filter or sql")
        if not {"/", "+", "#"}.isdisjoint(settings.share + settings.basic_ingest):
            raise SettingsError(f"{where}: share and basic_ingest are names, without / + #")
        self.input = settings.input
        self._select: Select | None = parse_statement(settings.sql) if settings.sql else None
        named = self._select.topic_filter if self._select else settings.filter
        basic = f"$aws/rules/{settings.basic_ingest}" if settings.basic_ingest else ""
        if not named and not basic:
            raise SettingsError(
                f"{where}: names no topic; add FROM, or basic_ingest where only Basic Ingest reaches it"
            )
        self.filters = [name for name in (named, basic and f"{basic}/#") if name]
        for name in self.filters:
            check_filter(name)
        self.share = settings.share
        self._account = account
        self._batch = settings.batch
        self._path = _members(settings.payload)
        variables = self._select.variables if self._select else {}
        self._id = _reader(settings.message_id, variables)
        self._time = _reader(settings.timestamp, variables)
        self._input = parse_template(settings.input, variables) if "${" in settings.input else None
        self._head = self._plain_head(settings)

    def _plain_head(self, settings: RuleSettings) -> "msgspec.json.Decoder[Any] | None":
        """Where the payload passes as it is, a decoder that reads the id and the time alone."""
        names = {"id": settings.message_id, "time": settings.timestamp}
        simple = all(path and "$" not in path and "." not in path for path in names.values())
        select = self._select
        if (
            self._batch
            or self._path
            or self._input is not None
            or not simple
            or (select is not None and not (select.everything and select.accepts is None))
        ):
            return None
        fields = [(name, Any, msgspec.UNSET) for name in names]
        try:
            return msgspec.json.Decoder(msgspec.defstruct("Head", fields, rename=names))
        except ValueError:  # both are one member, or its name is none that a struct can have
            return None

    def read(self, topic: str, payload: bytes, now_ms: int) -> Sequence[Message]:
        """
        The messages for the input: one; none where the WHERE clause does not hold; one for each item of a batch.

        Raises:
            MessageError: the payload is not a JSON object, or the rule makes none of it.
        """
        if self._head is not None:
            try:
                head = self._head.decode(payload)
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
                raise MessageError(f"{topic}: not a JSON object: {error}") from error
            return (Message(self.input, payload, _id_of(head.id), _time_of(head.time)),)
        try:
            return self._read_whole(topic, payload, now_ms)
        except RecursionError as error:
            raise MessageError(f"{topic}: nested too deeply") from error
        except TooMuchWorkError as error:
            raise MessageError(f"{topic}: the rule for input {self.input!r}: {error}") from error

    def _read_whole(self, topic: str, payload: bytes, now_ms: int) -> Sequence[Message]:
        document = self._document(topic, payload)
        context = Context(document, topic, now_ms, payload, account=self._account)
        content = document
        if self._select is not None:
            context = self._select.prepare(context)
            if self._select.accepts is not None and not self._select.accepts(context):
                return ()
            content = self._select.project(context)
        for member in self._path:
            content = content.get(member) if isinstance(content, dict) else None
        contents = content if self._batch and isinstance(content, list) else [content]
        if not all(isinstance(each, dict) for each in contents):
            raise MessageError(f"{topic}: the rule for input {self.input!r} makes no object of it")
        name = self.input if self._input is None else self._input(context)
        if not isinstance(name, str):
            raise MessageError(f"{topic}: the rule's input {self.input!r} has no value")
        given_id, time_ms = _id_of(self._id(context)), _time_of(self._time(context))
        if contents is not content:
            encoded = payload if content is document else msgspec.json.encode(content)
            return (Message(name, encoded, given_id, time_ms),)
        return [
            Message(name, msgspec.json.encode(each), given_id and _id_of(f"{given_id}-{number}"), time_ms)
            for number, each in enumerate(contents)
        ]

    def _document(self, topic: str, payload: bytes) -> Any:
        try:
            return read_json(payload)
        except ValueError as error:
            if self._select is not None and self._select.any_bytes:
                return UNDEFINED
            raise MessageError(f"{topic}: not JSON: {error}") from error


def _members(path: str) -> list[str]:
    return path.split(".") if path else []


def _reader(path: str, variables: Mapping[str, int]) -> Expression:
    """What finds an id or a time: a template where the text has ``${``, else a dotted path."""
    if "${" in path:
        return parse_template(path, variables)
    members = _members(path)

    def read(context: Context) -> Any:
        value = context.payload if members else UNDEFINED
        for member in members:
            value = value.get(member, UNDEFINED) if isinstance(value, dict) else UNDEFINED
        return value

    return read


def _id_of(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    text: str = to_string(value)
    return text if len(text) <= _MAX_ID else ""


def _time_of(value: Any) -> int | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < 1e15 else None
