"""
Checks recipes before a device does: every rule that a nucleus classic or lite was seen to enforce, with its reason.

A nucleus lite fails on what a nucleus classic forgives: the case of keys, braces, sizes, hard dependencies. A recipe that
has no error here holds on both.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from wheeltapper_components.recipe import Finding, Findings, Recipe, Target, below, leaves, read_recipe, type_name
from wheeltapper_components.recipe_access import check_access
from wheeltapper_components.recipe_manifest import check_manifests, only_installs
from wheeltapper_models.component import VERSION

# What nucleus lite 2.6 was measured to take.
LITE_RECIPE_BYTES = 8_196
LITE_DESCRIPTION_BYTES = 200
LITE_CONFIGURATION_BYTES = 9_000
LITE_CONFIGURATION_KEYS = 256
LITE_OBJECT_KEYS = 64

FORMAT = "2020-01-25"
GENERIC = "aws.greengrass.generic"
_CLASSIC_TYPES = ("aws.greengrass.plugin", "aws.greengrass.lambda", "aws.greengrass.nucleus")
_TOP = {
    "RecipeFormatVersion": True,
    "ComponentName": True,
    "ComponentVersion": True,
    "ComponentType": False,
    "ComponentDescription": False,
    "ComponentPublisher": False,
    "ComponentSource": False,
    "ComponentConfiguration": False,
    "ComponentDependencies": False,
    "Manifests": True,
    "Lifecycle": False,
}
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_PARTIAL = r"v?(?:\d+|[xX*])(?:\.(?:\d+|[xX*])){0,2}(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?"
_REQUIREMENT = re.compile(rf"\s*(?:(?:[<>]=?|[=~^])?\s*{_PARTIAL}\s*(?:\|\||-\s|,)?\s*)+")
_TOKENS = "aws.greengrass.TokenExchangeService"


class _Read(msgspec.Struct, frozen=True):
    """What is compared between recipes that go to the same device."""

    findings: Findings
    recipe: Recipe
    policy_ids: list[str]


def lint(paths: Sequence[Path], target: Target = "both") -> list[Finding]:
    """
    Check recipes, each by itself and all of them together.

    Args:
        paths: JSON or YAML files.
        target: the nucleus they must hold on.

    Raises:
        SettingsError: a file cannot be read.
    """
    read = [_lint_one(path, target) for path in paths]
    _check_together(read)
    return [finding for one in read for finding in one.findings.found]


def _lint_one(path: Path, target: Target) -> _Read:
    findings = Findings(str(path), target)
    content = read_recipe(path, findings)
    size = path.stat().st_size
    if size > LITE_RECIPE_BYTES:
        findings.error("size", "", f"is {size} bytes; nucleus lite opens up to {LITE_RECIPE_BYTES}", nucleus="lite")
    if content is None:
        return _Read(findings, {}, [])
    recipe = findings.keys(content, _TOP, "")
    _check_header(recipe, findings)
    ids = _check_configuration(recipe, path, findings)
    _check_dependencies(recipe, findings)
    check_manifests(recipe, findings)
    return _Read(findings, recipe, ids)


def _check_header(recipe: Recipe, findings: Findings) -> None:
    texts = ("RecipeFormatVersion", "ComponentName", "ComponentVersion", "ComponentType", "ComponentDescription")
    given = {
        key: text
        for key in (*texts, "ComponentPublisher")
        if key in recipe and (text := findings.text(recipe[key], key)) is not None
    }
    if given.get("RecipeFormatVersion", FORMAT) != FORMAT:
        findings.error("format", "RecipeFormatVersion", f"{given['RecipeFormatVersion']!r}: must be {FORMAT}")
    if not _NAME.fullmatch(given.get("ComponentName", "-")):
        findings.error("name", "ComponentName", "must be 1 to 128 of the characters A-Z a-z 0-9 . _ -")
    version = given.get("ComponentVersion", "0.0.0")
    if not VERSION.fullmatch(version) or len(version) > 64:
        findings.error("version", "ComponentVersion", f"{version!r}: must be MAJOR.MINOR.PATCH, such as 1.0.0")
    kind = given.get("ComponentType", GENERIC)
    if kind in _CLASSIC_TYPES:
        findings.warn("classic-only", "ComponentType", f"{kind}: classic only; nucleus lite runs {GENERIC}", "classic")
    elif kind != GENERIC:
        findings.error("component-type", "ComponentType", f"{kind!r}: must be {GENERIC}")
    size = len(given.get("ComponentDescription", "").encode())
    if size >= LITE_DESCRIPTION_BYTES:
        findings.error(
            "size",
            "ComponentDescription",
            f"is {size} bytes; nucleus lite puts it into a systemd unit with little room: keep it below "
            f"{LITE_DESCRIPTION_BYTES}",
            nucleus="lite",
        )


def _check_configuration(recipe: Recipe, path: Path, findings: Findings) -> list[str]:
    where = "ComponentConfiguration"
    if where not in recipe:
        return []
    defaults = findings.keys(recipe[where], {"DefaultConfiguration": False}, where).get("DefaultConfiguration")
    where = below(where, "DefaultConfiguration")
    if defaults is None:
        return []
    if not isinstance(defaults, dict):
        findings.error("type", where, f"is {type_name(defaults)}; an object is needed")
        return []
    _check_sizes(defaults, where, findings)
    if path.suffix.lower() != ".json":
        for place, value in leaves(defaults, where):
            if isinstance(value, int | float):
                said = "nucleus lite gives it to the component as a text; ship JSON, and convert it in any case"
                findings.warn("yaml-number", place, said, nucleus="lite")
    wrong = next((key for key in defaults if key != "accessControl" and str(key).lower() == "accesscontrol"), None)
    if wrong is not None:
        findings.error("key-case", below(where, wrong), "is written accessControl; else it grants nothing")
    if "accessControl" not in defaults:
        return []
    name = recipe.get("ComponentName")
    return check_access(
        defaults["accessControl"], name if isinstance(name, str) else "", below(where, "accessControl"), findings
    )


def _check_sizes(defaults: dict[str, Any], where: str, findings: Findings) -> None:
    size = len(msgspec.json.encode(defaults))
    if size > LITE_CONFIGURATION_BYTES:
        findings.error(
            "size", where, f"is {size} bytes; nucleus lite reads {LITE_CONFIGURATION_BYTES} at once", nucleus="lite"
        )
    keys = 0
    waiting: list[tuple[str, Any]] = [(where, defaults)]
    while waiting:
        place, value = waiting.pop()
        keys += len(value)
        if len(value) > LITE_OBJECT_KEYS:
            said = f"has {len(value)} keys; an object on nucleus lite holds {LITE_OBJECT_KEYS}"
            findings.error("size", place, said, nucleus="lite")
        waiting += [(below(place, key), inner) for key, inner in value.items() if isinstance(inner, dict)]
    if keys > LITE_CONFIGURATION_KEYS:
        said = f"has {keys} keys in all; a component on nucleus lite holds {LITE_CONFIGURATION_KEYS}"
        findings.error("size", where, said, nucleus="lite")


def _check_dependencies(recipe: Recipe, findings: Findings) -> None:
    dependencies = recipe.get("ComponentDependencies")
    if dependencies is None:
        return
    if not isinstance(dependencies, dict):
        said = f"is {type_name(dependencies)}; an object of components by name is needed"
        findings.error("type", "ComponentDependencies", said)
        return
    for name, dependency in dependencies.items():
        where = below("ComponentDependencies", name)
        if name == recipe.get("ComponentName"):
            findings.error("dependency", where, "is this component itself")
        _check_dependency(str(name), dependency, where, findings)


def _check_dependency(name: str, dependency: Any, where: str, findings: Findings) -> None:
    fields = findings.keys(dependency, {"VersionRequirement": True, "DependencyType": False}, where)
    if "VersionRequirement" in fields:
        place = below(where, "VersionRequirement")
        requirement = findings.text(fields["VersionRequirement"], place)
        if requirement is not None and not _REQUIREMENT.fullmatch(requirement):
            findings.error("dependency", place, f"{requirement!r}: is no range of versions, such as >=1.0.0 <2.0.0")
    kind, place = fields.get("DependencyType", "HARD"), below(where, "DependencyType")
    if kind not in ("HARD", "SOFT"):
        findings.error("dependency", place, f"{kind!r}: must be SOFT or HARD")
    elif kind == "HARD" and name == _TOKENS:
        said = "HARD is the documented form; declare it only if the component itself calls AWS"
        findings.note("dependency", place, said)
    elif kind == "HARD":
        given = "HARD" if "DependencyType" in fields else "is missing, which means HARD"
        said = f"{given}; when the dependency fails, nucleus lite stops this component and never starts it again: write SOFT"
        findings.error("dependency", place, said, nucleus="lite")


def _check_together(read: Sequence[_Read]) -> None:
    owners: dict[str, str] = {}
    by_name = {str(one.recipe.get("ComponentName")): one.recipe for one in read}
    for one in read:
        name = str(one.recipe.get("ComponentName"))
        where = "ComponentConfiguration.DefaultConfiguration.accessControl"
        for policy_id in one.policy_ids:
            owner = owners.setdefault(policy_id, name)
            if owner != name:
                one.findings.error("policy-id", where, f"{policy_id}: is the id of a policy of {owner}, too")
        dependencies = one.recipe.get("ComponentDependencies")
        for dependency in dependencies if isinstance(dependencies, dict) else ():
            if only_installs(by_name.get(dependency, {})):
                one.findings.error(
                    "dependency",
                    below("ComponentDependencies", dependency),
                    'has only an install phase, so that the deployment never ends; give it "run": "true"',
                    nucleus="lite",
                )
