"""
Recipes as files: read as a nucleus reads them, and what a check has found in one.

YAML and JSON are both taken; a key that stands twice, which parsers silently resolve, is a finding.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from wheeltapper.errors import SettingsError

Severity = Literal["error", "warning", "note"]
Target = Literal["both", "lite", "classic"]
Recipe = dict[str, Any]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """
    One thing that a recipe says and a nucleus minds.

    Args:
        nucleus: where it matters; ``classic`` with a warning is something that only classic offers.
        where: the path inside the recipe, such as ``Manifests[0].Platform.runtime``; empty for the whole file.
        message: what is wrong, why, and what to write instead.
    """

    file: str
    where: str
    rule: str
    severity: Severity
    nucleus: Target
    message: str


class Findings:
    """
    Collects what is found in one file.

    Args:
        target: the nucleus that the recipe is for; what matters only on the other is left out.
    """

    def __init__(self, file: str, target: Target = "both") -> None:
        self._file = file
        self._target = target
        self.found: list[Finding] = []

    @property
    def for_lite(self) -> bool:
        """Whether the recipe must hold on nucleus lite."""
        return self._target != "classic"

    def error(self, rule: str, where: str, message: str, nucleus: Target = "both") -> None:
        """It fails, or does not do what it says."""
        self._add("error", rule, where, message, nucleus)

    def warn(self, rule: str, where: str, message: str, nucleus: Target = "both") -> None:
        """It works, but not everywhere or not for long."""
        self._add("warning", rule, where, message, nucleus)

    def note(self, rule: str, where: str, message: str, nucleus: Target = "both") -> None:
        """Worth knowing."""
        self._add("note", rule, where, message, nucleus)

    def keys(self, value: Any, known: Mapping[str, bool], where: str, *, others: bool = False) -> dict[str, Any]:
        """
        Check a mapping's keys.

        Args:
            known: key → whether it must be there.
            others: further keys are allowed.

        Returns:
            The mapping with its known keys spelt right; empty where it is no mapping.
        """
        if not isinstance(value, dict):
            self.error("type", where, f"is {type_name(value)}; an object is needed")
            return {}
        by_lower = {key.lower(): key for key in known}
        found: dict[str, Any] = {}
        for key, content in value.items():
            right = key if key in known else by_lower.get(str(key).lower())
            if right is None:
                if not others:
                    allowed = ", ".join(known)
                    self.error("unknown-key", below(where, key), f"no nucleus knows this key; known here: {allowed}")
            elif right != key:
                self.error(
                    "key-case", below(where, key), f"is written {right}; nucleus lite minds the case", nucleus="lite"
                )
            found.setdefault(right or key, content)
        for key, needed in known.items():
            if needed and key not in found:
                self.error("missing-key", below(where, key), "is missing")
        return found

    def text(self, value: Any, where: str) -> str | None:
        """The value if it is a text, not empty; a finding and None otherwise."""
        if isinstance(value, str) and value.strip():
            return value
        said = "is empty" if isinstance(value, str) else f"is {type_name(value)}; a text is needed, in YAML in quotes"
        self.error("type", where, said)
        return None

    def _add(self, severity: Severity, rule: str, where: str, message: str, nucleus: Target) -> None:
        if self._target != "classic" or nucleus == "both":  # what only classic offers is fine there
            self.found.append(
                Finding(file=self._file, where=where, rule=rule, severity=severity, nucleus=nucleus, message=message)
            )


def read_recipe(path: Path, findings: Findings) -> Recipe | None:
    """
    A recipe's content; None, with a finding, where it is neither JSON nor YAML.

    Raises:
        SettingsError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        findings.error("syntax", "", "is not UTF-8")
        return None
    twice: list[str] = []
    is_json = path.suffix.lower() == ".json"
    try:
        content = _read_json(text, twice) if is_json else _read_yaml(text, twice)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        findings.error("syntax", "", f"is not {'JSON' if is_json else 'YAML'}: {' '.join(str(error).split())}")
        return None
    for key in twice:
        findings.error("duplicate-key", key, "stands twice in the same object; one of them is silently lost")
    if not isinstance(content, dict):
        findings.error("syntax", "", "holds no object of keys and values")
        return None
    return content


def leaves(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Every value that is no object or list, with its path."""
    if isinstance(value, dict):
        for key, content in value.items():
            yield from leaves(content, below(where, key))
    elif isinstance(value, list):
        for place, content in enumerate(value):
            yield from leaves(content, f"{where}[{place}]")
    else:
        yield where, value


def below(where: str, key: object) -> str:
    """
    The path of a member.

    >>> below("Manifests[0]", "Platform"), below("", "Manifests")
    ('Manifests[0].Platform', 'Manifests')
    """
    return f"{where}.{key}" if where else str(key)


def type_name(value: Any) -> str:
    """What a value is, in the words of JSON."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
    return names.get(type(value), "null" if value is None else type(value).__name__)


def _read_json(text: str, twice: list[str]) -> Any:
    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        twice.extend(key for key in found if sum(key == other for other, _ in pairs) > 1)
        return found

    return json.loads(text, object_pairs_hook=collect)


class _Loader(yaml.SafeLoader):
    """Leaves dates as they are written: RecipeFormatVersion looks like one."""

    twice: list[str]


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
    loader.twice.extend(name for name in dict.fromkeys(names) if names.count(name) > 1)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def _read_yaml(text: str, twice: list[str]) -> Any:
    loader = _Loader(text)
    loader.twice = twice
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
