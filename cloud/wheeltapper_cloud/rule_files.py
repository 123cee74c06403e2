"""
Rules as they are kept: ``aws iot get-topic-rule``, the payload of ``create-topic-rule``, CloudFormation, Terraform.

Of each rule the statement and its ``iotEvents`` actions are taken; actions of other kinds are not carried out here, which is
logged.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from wheeltapper.definition_files import in_settings
from wheeltapper.detector.cloudformation import is_template, read_template
from wheeltapper.detector.documents import decode_text, parse_document
from wheeltapper.detector.terraform import is_terraform
from wheeltapper.errors import DefinitionError, SettingsError
from wheeltapper_cloud.rule_terraform import terraform_rules
from wheeltapper_cloud.rules import RuleSettings

log = logging.getLogger(__name__)

_TABLE = "parameters"
_RESOURCE = "AWS::IoT::TopicRule"
_INPUT = re.compile("[a-zA-Z][a-zA-Z0-9_]*")
_VERSIONS = ("2015-10-08", "2016-03-23", "beta")


class _Rule(msgspec.Struct, rename="camel"):
    sql: str
    actions: list[dict[str, Any]]
    rule_name: str = ""
    rule_disabled: bool = False
    aws_iot_sql_version: str = _VERSIONS[0]
    error_action: dict[str, Any] | None = None


class _Action(msgspec.Struct, rename="camel"):
    """An ``iotEvents`` action."""

    input_name: str
    message_id: str = ""
    batch_mode: bool = False


def expand(rules: Sequence[RuleSettings], parameters: Mapping[str, str] | None = None) -> list[RuleSettings]:
    """
    The rules, those of a ``file`` in its place.

    Args:
        rules: as the settings have them.
        parameters: of the templates among the files, and ``AWS::AccountId`` and others that templates name.

    Raises:
        SettingsError: a file cannot be read, holds no rule, or one that cannot be taken over; says which and why.
    """
    found: list[RuleSettings] = []
    for settings in rules:
        found += [settings] if settings.file is None else _read(settings, settings.file, parameters or {})
    return found


def _read(settings: RuleSettings, path: Path, parameters: Mapping[str, str]) -> list[RuleSettings]:
    if settings.filter or settings.sql or settings.input or settings.batch:
        raise SettingsError(f"rule of {path}: leave out filter, sql, input and batch; the file says them")
    if path.suffix == ".tf":
        raise SettingsError(f"{path}: is in Terraform's own language; give what `terraform show -json` prints")
    try:
        document = _document(decode_text(path.read_bytes(), str(path)), str(path))
        bodies = list(_bodies(document, str(path), parameters))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except DefinitionError as error:
        said = in_settings(str(error), _TABLE)
        raise SettingsError(said if said.startswith(str(path)) else f"{path}: {said}") from error
    if not bodies:
        raise SettingsError(
            f"{path}: holds no topic rule; give what `aws iot get-topic-rule` or `terraform show -json` prints, a template"
        )
    rules = [(where, _checked(where, body)) for where, body in bodies]
    if not any(_events_of(rule) for _where, rule in rules):
        raise SettingsError(f"{path}: none of its rules has an iotEvents action; only such rules feed an input")
    return [found for where, rule in rules for found in _rules_of(settings, where, rule)]


def _document(text: str, where: str) -> Any:
    """The data of a text; a list where it is one JSON document after the other, as a loop over rules writes them."""
    try:
        return parse_document(text, where)
    except DefinitionError:
        decoder = json.JSONDecoder()
        documents: list[Any] = []
        rest = text.strip()
        while rest.startswith("{"):
            try:
                _, end = decoder.raw_decode(rest)
            except (ValueError, RecursionError):
                break
            documents.append(parse_document(rest[:end], where))
            rest = rest[end:].lstrip()
        if rest or len(documents) < 2:
            raise
        return documents


def _bodies(document: Any, where: str, parameters: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rules of a document, each with its place."""
    if isinstance(document, list):
        for number, each in enumerate(document):
            yield from _bodies(each, f"{where}[{number}]", parameters)
    if not isinstance(document, dict):
        return
    document = _in_template(document)
    if is_template(document):
        for _kind, body in read_template(document, parameters, partial(_remark, where), {_RESOURCE: "ruleName"}):
            if not isinstance(body.get("topicRulePayload"), dict):
                raise DefinitionError(
                    f"{where}: rule {body['ruleName']}: its TopicRulePayload is no object; write it out"
                )
            yield from _bodies(body, where, parameters)
    elif is_terraform(document):
        for place, body in terraform_rules(document, where):
            yield from _bodies(body, place, parameters)
    elif isinstance(document.get("topicRulePayload"), dict):
        name = document.get("ruleName", "")
        yield f"{where}: rule {name}", {"ruleName": name, **document["topicRulePayload"]}
    elif isinstance(document.get("rule"), dict):
        yield f"{where}: rule {document['rule'].get('ruleName', '')}", document["rule"]
    elif "sql" in document:
        yield where, document


def _in_template(document: dict[str, Any]) -> dict[str, Any]:
    """A part of a template, or a rule whose members begin with capitals, as SDKs print it, in a template; others as is."""
    if any(isinstance(each, dict) and each.get("Type") == _RESOURCE for each in document.values()):
        return {"Resources": document}
    if document.get("Type") == _RESOURCE:
        return {"Resources": {"Rule": document}}
    for payload in (document.get("TopicRulePayload"), document.get("Rule"), document):
        if isinstance(payload, dict) and "Sql" in payload:
            name = str(document.get("RuleName") or payload.get("RuleName") or "Rule")
            return {"Resources": {name: {"Type": _RESOURCE, "Properties": {"TopicRulePayload": payload}}}}
    return document


def _remark(file: str, where: str, what: str) -> None:
    """Log what a rule assumes, and that its condition leaves it out; other resources are no matter here."""
    if where.endswith((".Sql", ".InputName", ".MessageId")) or what.startswith("left out: its condition"):
        log.warning("%s: %s: %s", file, where, in_settings(what, _TABLE))


def _given(members: Any) -> Any:
    """The members of an object that are not null, as what Terraform and SDKs print of one that is not set."""
    return (
        {name: value for name, value in members.items() if value is not None} if isinstance(members, dict) else members
    )


def _checked(where: str, body: dict[str, Any]) -> _Rule:
    try:
        rule = msgspec.convert(_given(body), _Rule, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{where}: {error}") from error
    if rule.aws_iot_sql_version not in _VERSIONS:
        raise SettingsError(f"{where}: awsIotSqlVersion {rule.aws_iot_sql_version!r} is not supported")
    return rule


def _events_of(rule: _Rule) -> list[Any]:
    return [action["iotEvents"] for action in rule.actions if action.get("iotEvents") is not None]


def _rules_of(settings: RuleSettings, where: str, rule: _Rule) -> list[RuleSettings]:
    """One for each of the rule's ``iotEvents`` actions."""
    found = _events_of(rule)
    if rule.rule_disabled or not found:
        log.warning("%s: left out: %s", where, "it is disabled" if found else "it has no iotEvents action")
        return []
    others = {kind for action in rule.actions for kind, value in action.items() if value is not None} - {"iotEvents"}
    for kind in [*sorted(others), *(["errorAction"] if rule.error_action else [])]:
        log.warning("%s: %s is not carried out here", where, kind)
    return [_settings(settings, where, rule.sql, action) for action in found]


def _settings(settings: RuleSettings, where: str, sql: str, body: Any) -> RuleSettings:
    try:
        action = msgspec.convert(_given(body), _Action, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{where}: iotEvents: {error}") from error
    if "${" not in action.input_name and not _INPUT.fullmatch(action.input_name):
        raise SettingsError(
            f"{where}: iotEvents: {action.input_name!r} is no input's name; write its name into the file"
        )
    if action.batch_mode and action.message_id:
        raise SettingsError(f"{where}: iotEvents: with batchMode there is no messageId")
    if action.message_id and "${" not in action.message_id:
        log.warning("%s: messageId %r is taken for the member that holds the id", where, action.message_id)
    return msgspec.structs.replace(
        settings,
        file=None,
        sql=sql,
        input=action.input_name,
        batch=action.batch_mode,
        message_id=action.message_id or settings.message_id,
    )
