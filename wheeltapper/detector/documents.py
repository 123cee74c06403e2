"""
Text to plain data: JSON, JSON with comments, YAML with CloudFormation's short tags.

Nothing in a text is executed: YAML goes through a safe loader that knows only CloudFormation's tags.
"""

import codecs
import json
import re
from collections.abc import Callable
from typing import Any

import yaml

from wheeltapper.errors import DefinitionError

Remark = Callable[[str, str], None]

# Deeper nesting than any real template; recursion stays far from Python's own limit.
MAX_DEPTH = 100

_HCL = re.compile(r"^[ \t]*(resource|data|provider|variable|module|locals|terraform)\b[^:\n]*\{", re.MULTILINE)

_SHORT_TAGS = (
    *("And", "Base64", "Cidr", "Equals", "FindInMap", "GetAZs", "GetAtt", "If", "ImportValue", "Join", "Length"),
    *("Not", "Or", "Select", "Split", "Sub", "ToJsonString", "Transform"),
)


def decode_text(data: bytes, where: str) -> str:
    """
    The text of a file: UTF-8, or UTF-16 where it begins as PowerShell's redirection makes it begin.

    Raises:
        DefinitionError: it is not text.

    >>> decode_text("{}".encode("utf-16"), "model")
    '{}'
    """
    is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{where}: not text: {error.reason} at byte {error.start}; save it as UTF-8") from error


def parse_document(text: str, where: str, remark: Remark | None = None) -> Any:
    """
    The data in a text, JSON if it starts like JSON, YAML otherwise.

    Args:
        text: the whole document.
        where: its name, for errors.
        remark: told of (where, what) that a strict parser would refuse: comments are silent, repeated members are not.

    Raises:
        DefinitionError: neither JSON nor YAML; says line and column.
    """
    text = text.removeprefix("\ufeff")
    if text.lstrip()[:1] in ("{", "[", "/"):
        return _parse_json(text, where, remark)
    return _parse_yaml(text, where)


def _parse_json(text: str, where: str, remark: Remark | None) -> Any:
    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        read: dict[str, Any] = {}
        for name, value in pairs:
            if name in read and remark is not None:
                remark(where, f"member {name!r} is given twice in one object; the last one counts")
            read[name] = value
        return read

    try:
        document = json.loads(without_comments(text), object_pairs_hook=members, parse_constant=_refuse_constant)
    except RecursionError:
        raise DefinitionError(f"{where}: nested too deeply; {MAX_DEPTH} levels are allowed") from None
    except json.JSONDecodeError as error:
        raise DefinitionError(f"{where}: not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    except ValueError as error:
        raise DefinitionError(f"{where}: not JSON: {error}") from None
    _check_depth(document, where)
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def without_comments(text: str) -> str:
    """
    The text with ``//`` and ``/* */`` comments outside strings blanked out; every other character keeps its place.

    >>> without_comments('{"a": 1, // "one"')
    '{"a": 1,         '
    """
    if "//" not in text and "/*" not in text:
        return text
    out: list[str] = []
    place = 0
    while place < len(text):
        char = text[place]
        end = place + 1
        if char == '"':
            end = _end_of_string(text, place)
            out.append(text[place:end])
        elif text.startswith("//", place):
            newline = text.find("\n", place)
            end = len(text) if newline < 0 else newline
            out.append(" " * (end - place))
        elif text.startswith("/*", place):
            close = text.find("*/", place + 2)
            end = len(text) if close < 0 else close + 2
            out.append("".join("\n" if each == "\n" else " " for each in text[place:end]))
        else:
            out.append(char)
        place = end
    return "".join(out)


def _end_of_string(text: str, start: int) -> int:
    place = start + 1
    while place < len(text) and text[place] != '"':
        place += 2 if text[place] == "\\" else 1
    return min(place + 1, len(text))


class _TemplateLoader(yaml.SafeLoader):
    """Safe YAML that turns ``!Sub x`` into ``{"Fn::Sub": x}`` and leaves dates as text."""


_TemplateLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _construct(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    raise yaml.constructor.ConstructorError(None, None, "unknown kind of node", node.start_mark)


def _tagged(name: str) -> Callable[[yaml.SafeLoader, yaml.Node], Any]:
    def construct(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
        value = _construct(loader, node)
        if name == "Fn::GetAtt" and isinstance(value, str):
            value = value.split(".", 1)
        return {name: value}

    return construct


for _tag in _SHORT_TAGS:
    _TemplateLoader.add_constructor(f"!{_tag}", _tagged(f"Fn::{_tag}"))
_TemplateLoader.add_constructor("!Ref", _tagged("Ref"))
_TemplateLoader.add_constructor("!Condition", _tagged("Condition"))


def _parse_yaml(text: str, where: str) -> Any:
    try:
        document = yaml.load(text, Loader=_TemplateLoader)  # noqa: S506 a SafeLoader with CloudFormation's tags
    except RecursionError:
        raise DefinitionError(f"{where}: nested too deeply; {MAX_DEPTH} levels are allowed") from None
    except yaml.MarkedYAMLError as error:
        _refuse_hcl(text, where)
        mark = error.problem_mark
        place = f" at line {mark.line + 1} column {mark.column + 1}" if mark else ""
        raise DefinitionError(f"{where}: not YAML: {error.problem}{place}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise DefinitionError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    if isinstance(document, str):  # to YAML, nearly everything is a text
        _refuse_hcl(text, where)
    _check_depth(document, where)
    return document


def _refuse_hcl(text: str, where: str) -> None:
    if _HCL.search(text):
        raise DefinitionError(f"{where}: is in Terraform's own language; give what `terraform show -json` prints")


def _check_depth(document: Any, where: str) -> None:
    """Refuse what nests too deeply, or for ever (YAML aliases), or grows without end through aliases."""
    budget = 1_000_000
    stack = [(document, 0)]
    while stack:
        value, depth = stack.pop()
        budget -= 1
        if depth > MAX_DEPTH or budget < 0:
            raise DefinitionError(f"{where}: nested too deeply or too large; {MAX_DEPTH} levels are allowed")
        if isinstance(value, dict):
            stack.extend((each, depth + 1) for each in value.values())
        elif isinstance(value, list):
            stack.extend((each, depth + 1) for each in value)
