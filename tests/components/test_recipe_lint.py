"""What the recipe check finds: every rule with a recipe that breaks it, and nothing in recipes that hold."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from wheeltapper import cli
from wheeltapper_components.recipe import Finding
from wheeltapper_components.recipe_lint import lint

ROOM = Path(__file__).resolve().parents[2] / "components"
Recipe = dict[str, Any]

GOOD: Recipe = {
    "RecipeFormatVersion": "2020-01-25",
    "ComponentName": "com.example.Scorer",
    "ComponentVersion": "1.0.0",
    "ComponentType": "aws.greengrass.generic",
    "ComponentDescription": "Scores.",
    "ComponentPublisher": "Example",
    "ComponentConfiguration": {
        "DefaultConfiguration": {
            "accessControl": {
                "aws.greengrass.ipc.pubsub": {
                    "com.example.Scorer:pubsub:1": {
                        "policyDescription": "In.",
                        "operations": ["aws.greengrass#SubscribeToTopic"],
                        "resources": ["wt/*/reading"],
                    }
                }
            },
            "period_s": 5,
        }
    },
    "ComponentDependencies": {"com.example.Model": {"VersionRequirement": ">=1.0.0", "DependencyType": "SOFT"}},
    "Manifests": [
        {
            "Platform": {"os": "linux", "runtime": "*"},
            "Lifecycle": {
                "install": {"Script": "sh {artifacts:path}/install.sh {artifacts:path} {work:path}", "Timeout": 900},
                "run": {"Script": "exec {work:path}/venv/bin/python {artifacts:path}/main.py", "Setenv": {"A": "b"}},
            },
            "Artifacts": [
                {"Uri": "s3://b/main.py", "Unarchive": "NONE", "Permission": {"Read": "ALL", "Execute": "NONE"}}
            ],
        }
    ],
}
MANIFEST = "Manifests.0"
INSTALL, RUN = f"{MANIFEST}.Lifecycle.install", f"{MANIFEST}.Lifecycle.run"
ARTIFACT = f"{MANIFEST}.Artifacts.0"
DEFAULTS = "ComponentConfiguration.DefaultConfiguration"
POLICY = f"{DEFAULTS}.accessControl|aws.greengrass.ipc.pubsub|com.example.Scorer:pubsub:1"
DEPENDENCY = "ComponentDependencies|com.example.Model"
GONE = object()
TWINS = [{"Uri": "s3://a/x"}, {"Uri": "s3://b/x"}]
OTHERS = "aws.greengrass#PublishToIoTCore"


def changed(path: str, value: Any = GONE, *, rename: str = "") -> Recipe:
    """The good recipe with one place set, removed or renamed; ``|`` parts keys that hold a dot."""
    recipe = copy.deepcopy(GOOD)
    steps: list[Any] = []
    for number, part in enumerate(path.split("|")):
        steps += part.split(".") if number == 0 else [part]
    place: Any = recipe
    for step in steps[:-1]:
        place = place[int(step) if isinstance(place, list) else step]
    key = int(steps[-1]) if isinstance(place, list) else steps[-1]
    if rename:
        place[rename] = place.pop(key)
    elif value is GONE:
        del place[key]
    else:
        place[key] = value
    return recipe


def findings(tmp_path: Path, recipe: Recipe | str, name: str = "recipe.json", target: Any = "both") -> list[Finding]:
    path = tmp_path / name
    path.write_text(recipe if isinstance(recipe, str) else json.dumps(recipe))
    return lint([path], target)


def errors(found: list[Finding]) -> list[tuple[str, str]]:
    return [(one.rule, one.where) for one in found if one.severity == "error"]


@pytest.mark.parametrize("folder", ["inference", "detector", "model"])
def test_the_shipped_recipes_hold_on_both(folder: str) -> None:
    found = lint([ROOM / folder / "recipe.json"])

    assert [one for one in found if one.severity == "error"] == []
    assert {one.rule for one in found} <= {"classic-only"}


def test_a_recipe_that_holds_has_no_findings_in_json_and_only_its_numbers_in_yaml(tmp_path: Path) -> None:
    as_json = findings(tmp_path, GOOD)
    as_yaml = findings(tmp_path, yaml.safe_dump(GOOD).replace("'2020-01-25'", "2020-01-25"), "recipe.yaml")

    assert as_json == []
    assert [(one.rule, one.severity) for one in as_yaml] == [("yaml-number", "warning")]


LOUD: list[tuple[str, Recipe, str, str]] = [
    ("a key of the recipe in the wrong case", changed("Manifests", rename="manifests"), "key-case", "manifests"),
    ("a wrong case inside", changed(f"{RUN}.Script", rename="script"), "key-case", "Lifecycle.run.script"),
    ("a phase with a capital", changed(RUN, rename="Run"), "key-case", "Lifecycle.Run"),
    ("an unknown key", changed("ComponentAuthor", "me"), "unknown-key", "ComponentAuthor"),
    ("an unknown phase", changed(f"{MANIFEST}.Lifecycle.start", "true"), "unknown-key", "Lifecycle.start"),
    ("an unknown key of a step", changed(f"{RUN}.Shell", "x"), "unknown-key", "run.Shell"),
    ("no runtime", changed(f"{MANIFEST}.Platform.runtime"), "runtime", "Platform.runtime"),
    ("another runtime", changed(f"{MANIFEST}.Platform.runtime", "lite"), "runtime", "Platform.runtime"),
    ("a runtime in capitals", changed(f"{MANIFEST}.Platform.runtime", rename="Runtime"), "key-case", "Platform.Runtime"),
    ("no os", changed(f"{MANIFEST}.Platform.os"), "platform", "Platform.os"),
    ("an unknown os", changed(f"{MANIFEST}.Platform.os", "Linux"), "platform", "Platform.os"),
    ("a pattern", changed(f"{MANIFEST}.Platform.architecture", "/arm|x86/"), "platform", "Platform.architecture"),
    ("a Debian architecture", changed(f"{MANIFEST}.Platform.architecture", "x86_64"), "platform", "architecture"),
    ("no Platform", changed(f"{MANIFEST}.Platform"), "missing-key", "Manifests[0].Platform"),
    ("a version of two numbers", changed("ComponentVersion", "1.0"), "version", "ComponentVersion"),
    ("a version with a v", changed("ComponentVersion", "v1.0.0"), "version", "ComponentVersion"),
    ("a version that is a number", changed("ComponentVersion", 1.0), "type", "ComponentVersion"),
    ("a leading zero", changed("ComponentVersion", "1.02.0"), "version", "ComponentVersion"),
    ("no version", changed("ComponentVersion"), "missing-key", "ComponentVersion"),
    ("another format", changed("RecipeFormatVersion", "2020-01-26"), "format", "RecipeFormatVersion"),
    ("a name with a blank", changed("ComponentName", "com example"), "name", "ComponentName"),
    ("another type", changed("ComponentType", "aws.greengrass.Generic"), "component-type", "ComponentType"),
    ("a long description", changed("ComponentDescription", "ä" * 100), "size", "ComponentDescription"),
    ("URI", changed(f"{ARTIFACT}.Uri", rename="URI"), "key-case", "Artifacts[0].URI"),
    ("no Uri", changed(f"{ARTIFACT}.Uri"), "missing-key", "Artifacts[0].Uri"),
    ("an artifact on the web", changed(f"{ARTIFACT}.Uri", "https://b/main.py"), "artifact", "Artifacts[0].Uri"),
    ("a bucket without a file", changed(f"{ARTIFACT}.Uri", "s3://b/"), "artifact", "Artifacts[0].Uri"),
    ("two files of one name", changed(f"{MANIFEST}.Artifacts", TWINS), "artifact", "[1]"),
    ("a tarball", changed(f"{ARTIFACT}.Unarchive", "TAR"), "artifact", "Unarchive"),
    ("zip in small letters", changed(f"{ARTIFACT}.Unarchive", "zip"), "artifact", "Unarchive"),
    ("a permission", changed(f"{ARTIFACT}.Permission.Read", "all"), "permission", "Permission.Read"),
    ("an unknown permission", changed(f"{ARTIFACT}.Permission.Write", "ALL"), "unknown-key", "Permission.Write"),
    ("a group in braces", changed(f"{RUN}.Script", "{ a; b; }"), "braces", "run.Script"),
    ("a shell variable in braces", changed(f"{RUN}.Script", "exec python ${HOME}/x"), "braces", "run.Script"),
    ("awk", changed(RUN, "awk '{print $1}' f"), "braces", "Lifecycle.run"),
    ("a variable with a typo", changed(f"{RUN}.Script", "sh {artifact:path}/x"), "braces", "run.Script"),
    ("another component's path", changed(f"{RUN}.Script", "sh {com.x:artifacts:path}/x"), "braces", "run.Script"),
    ("a hard dependency", changed(f"{DEPENDENCY}|DependencyType", "HARD"), "dependency", "DependencyType"),
    ("a dependency that is hard by default", changed(f"{DEPENDENCY}|DependencyType"), "dependency", "DependencyType"),
    ("a dependency in small letters", changed(f"{DEPENDENCY}|DependencyType", "soft"), "dependency", "DependencyType"),
    ("no range", changed(f"{DEPENDENCY}|VersionRequirement"), "missing-key", "VersionRequirement"),
    ("a range that is none", changed(f"{DEPENDENCY}|VersionRequirement", "newest"), "dependency", "VersionRequirement"),
    ("an empty lifecycle", changed(f"{MANIFEST}.Lifecycle", {}), "phase", "Manifests[0].Lifecycle"),
    ("no lifecycle", changed(f"{MANIFEST}.Lifecycle"), "phase", "Manifests[0].Lifecycle"),
    ("startup", changed(RUN, rename="startup"), "phase", "Lifecycle.startup"),
    ("only shutdown", changed(f"{MANIFEST}.Lifecycle", {"shutdown": "true"}), "phase", "Lifecycle"),
    ("no script", changed(f"{RUN}.Script"), "missing-key", "run.Script"),
    ("an empty script", changed(f"{RUN}.Script", " "), "type", "run.Script"),
    ("a list of scripts", changed(RUN, ["a"]), "type", "Lifecycle.run"),
    ("a time that is none", changed(f"{INSTALL}.Timeout", "10m"), "timeout", "install.Timeout"),
    ("no time at all", changed(f"{INSTALL}.Timeout", 0), "timeout", "install.Timeout"),
    ("a privilege", changed(f"{RUN}.RequiresPrivilege", "yes"), "type", "RequiresPrivilege"),
    ("a broken Python", changed(f"{INSTALL}.Script", "pip install --break-system-packages x"), "script", "install.Script"),
    ("no manifests", changed("Manifests", []), "type", "Manifests"),
    ("a service in the wrong case", changed(f"{DEFAULTS}.accessControl", rename="AccessControl"), "key-case", "Access"),
    ("an unknown operation", changed(f"{POLICY}|operations", ["aws.greengrass#Subscribe"]), "access-control", "operations"),
    ("an operation without its prefix", changed(f"{POLICY}|operations", ["PublishToTopic"]), "access-control", "operations"),
    ("an operation of another service", changed(f"{POLICY}|operations", [OTHERS]), "access-control", "op"),
    ("no resources", changed(f"{POLICY}|resources", []), "access-control", "resources"),
    ("resources in a text", changed(f"{POLICY}|resources", "*"), "access-control", "resources"),
    ("a question mark", changed(f"{POLICY}|resources", ["wt/?/reading"]), "access-control", "resources[0]"),
    ("another variable", changed(f"{POLICY}|resources", ["wt/{work:path}"]), "access-control", "resources[0]"),
    ("a missing list", changed(f"{POLICY}|operations"), "missing-key", "operations"),
    ("policies in a list", changed(f"{DEFAULTS}.accessControl|aws.greengrass.ipc.pubsub", []), "access-control", "pubsub"),
    ("configuration that is none", changed(DEFAULTS, "x"), "type", "DefaultConfiguration"),
    ("a wide object", changed(f"{DEFAULTS}.wide", {f"k{n}": 1 for n in range(65)}), "size", "wide"),
    (
        "many keys",
        changed(f"{DEFAULTS}.many", {f"o{m}": {f"k{n}": 1 for n in range(60)} for m in range(5)}),
        "size",
        "DefaultConfiguration",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("recipe", "rule", "where"), [case[1:] for case in LOUD], ids=[case[0] for case in LOUD])
def test_a_broken_recipe_is_an_error_with_its_place(tmp_path: Path, recipe: Recipe, rule: str, where: str) -> None:
    found = errors(findings(tmp_path, recipe))

    assert any(one == rule and where in place for one, place in found), found
    assert len(found) <= 2


QUIET: list[tuple[str, Recipe, str]] = [
    ("a short time", changed(f"{INSTALL}.Timeout", 100), "timeout"),
    ("no time given", changed(f"{INSTALL}.Timeout"), "timeout"),
    ("only install", changed(RUN), "phase"),
    ("the system's pip", changed(f"{INSTALL}.Script", "python3 -m pip install x"), "script"),
    ("a program among the artifacts", changed(f"{RUN}.Script", "exec {artifacts:path}/scorer"), "script"),
    ("a zip", changed(f"{ARTIFACT}.Unarchive", "ZIP"), "artifact"),
    ("a policy id of anybody", changed(POLICY, rename="reader"), "policy-id"),
    ("a filter of local topics", changed(f"{POLICY}|resources", ["wt/+/reading"]), "literal-topic"),
    ("shutdown", changed(f"{MANIFEST}.Lifecycle.shutdown", "true"), "classic-only"),
    ("recover", changed(f"{MANIFEST}.Lifecycle.recover", {"Script": "true"}), "classic-only"),
    ("Skipif", changed(f"{INSTALL}.Skipif", "onpath git"), "classic-only"),
    ("a plugin", changed("ComponentType", "aws.greengrass.plugin"), "classic-only"),
]  # fmt: skip


@pytest.mark.parametrize(("recipe", "rule"), [case[1:] for case in QUIET], ids=[case[0] for case in QUIET])
def test_what_works_in_one_place_only_is_a_warning(tmp_path: Path, recipe: Recipe, rule: str) -> None:
    found = findings(tmp_path, recipe)

    assert [(one.rule, one.severity) for one in found] == [(rule, "warning")]
    assert findings(tmp_path, recipe, target="lite") == found
    if rule == "classic-only":
        assert findings(tmp_path, recipe, target="classic") == []


def test_what_only_lite_minds_is_silent_for_classic(tmp_path: Path) -> None:
    recipe = changed(RUN, {"Script": "awk '{print $1}'"})
    del recipe["Manifests"][0]["Platform"]["runtime"]
    recipe["Manifests"].append({"Lifecycle": {"run": "echo ${HOME}"}})
    recipe["ComponentDependencies"]["com.example.Model"]["DependencyType"] = "HARD"

    found = findings(tmp_path, recipe, target="classic")

    assert found == []


def test_a_manifest_for_classic_beside_one_for_lite_is_fine(tmp_path: Path) -> None:
    recipe = copy.deepcopy(GOOD)
    classic = copy.deepcopy(GOOD["Manifests"][0])
    classic["Platform"] = {"os": "linux"}
    classic["Lifecycle"] = {"startup": {"Script": "sh ${HOME}/start"}, "shutdown": "true"}
    recipe["Manifests"].append(classic)
    recipe["Manifests"].append({"Platform": {"os": "windows"}, "Lifecycle": {"run": "py -3 main.py {x}"}})

    found = findings(tmp_path, recipe)

    assert {(one.rule, one.severity) for one in found} == {("classic-only", "note")}


def test_a_manifest_for_windows_is_called_classic_only_and_judged_as_such(tmp_path: Path) -> None:
    recipe = changed(f"{MANIFEST}.Platform", {"os": "windows"})
    recipe["Manifests"][0]["Lifecycle"] = {"startup": {"Script": "py -3 main.py {x}"}, "shutdown": "true"}

    found = findings(tmp_path, recipe)

    assert [(one.rule, one.severity) for one in found] == [("classic-only", "warning")]


def test_a_lifecycle_of_the_recipe_serves_the_manifests_that_select_it(tmp_path: Path) -> None:
    recipe = changed(f"{MANIFEST}.Lifecycle")
    recipe["Lifecycle"] = {"all": GOOD["Manifests"][0]["Lifecycle"]}

    assert findings(tmp_path, recipe) == []
    recipe["Lifecycle"]["all"] = {"run": "echo ${X}"}
    assert errors(findings(tmp_path, recipe)) == [("braces", "Lifecycle.all.run")]


def test_the_size_of_the_file_counts(tmp_path: Path) -> None:
    text = json.dumps(GOOD)

    assert findings(tmp_path, text + " " * (8_196 - len(text))) == []
    assert errors(findings(tmp_path, text + " " * (8_197 - len(text)))) == [("size", "")]


def test_policies_of_one_service_beyond_what_lite_reads_are_an_error(tmp_path: Path) -> None:
    recipe = changed(f"{POLICY}|resources", [f"wt/{'x' * 60}/{number}" for number in range(60)])

    assert errors(findings(tmp_path, recipe)) == [
        ("size", f"{DEFAULTS}.accessControl.aws.greengrass.ipc.pubsub"),
    ]


def test_a_key_that_stands_twice_is_an_error_in_both_languages(tmp_path: Path) -> None:
    text = json.dumps(GOOD)[:-1] + ', "ComponentVersion": "2.0.0"}'

    assert errors(findings(tmp_path, text)) == [("duplicate-key", "ComponentVersion")]
    assert ("duplicate-key", "ComponentVersion") in errors(findings(tmp_path, text, "recipe.yaml"))


@pytest.mark.parametrize("text", ["", "[]", "{", "a: [", "\u0000", "null", '{"a": 1} // comment'])
@pytest.mark.parametrize("name", ["recipe.json", "recipe.yaml"])
def test_what_is_no_recipe_at_all_is_an_error(tmp_path: Path, text: str, name: str) -> None:
    assert errors(findings(tmp_path, text, name))


def test_recipes_for_one_device_are_compared(tmp_path: Path) -> None:
    other = changed("ComponentName", "com.example.Model")
    other["ComponentDependencies"] = {}
    del other["Manifests"][0]["Lifecycle"]["run"]
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, recipe in zip(paths, (GOOD, other), strict=True):
        path.write_text(json.dumps(recipe))

    found = errors(lint(paths))

    assert found == [
        ("dependency", "ComponentDependencies.com.example.Model"),
        ("policy-id", f"{DEFAULTS}.accessControl"),
    ]


def test_the_command_prints_findings_for_people_and_for_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(changed("ComponentVersion", "1.0")))

    assert cli.main(["component", "lint", str(path)]) == 1
    assert f"{path}: ComponentVersion: error: '1.0': must be MAJOR.MINOR.PATCH" in capsys.readouterr().out
    assert cli.main(["component", "lint", str(path), "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert (printed[0]["rule"], printed[0]["where"], printed[0]["severity"]) == ("version", "ComponentVersion", "error")
    assert cli.main(["component", "lint", str(ROOM / "inference" / "recipe.json")]) == 0
    assert cli.main(["component", "lint", str(ROOM / "inference" / "recipe.json"), "--strict"]) == 1
    assert cli.main(["component", "lint", str(tmp_path / "none.json")]) == 2


def mutations(value: Any) -> list[Callable[[Any], None]]:
    """Every way to replace one value anywhere in a recipe."""
    places: list[Callable[[Any], None]] = []
    items: list[tuple[Any, Any]] = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for key, inner in items:
        places.append(lambda new, key=key: value.__setitem__(key, new))
        places += mutations(inner)
    return places


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data())
def test_no_recipe_however_odd_breaks_the_check(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    recipe = copy.deepcopy(GOOD)
    places = mutations(recipe)
    places[data.draw(st.integers(0, len(places) - 1))](data.draw(ANYTHING))
    path = tmp_path_factory.getbasetemp() / "odd.json"
    path.write_text(json.dumps(recipe))

    lint([path])
