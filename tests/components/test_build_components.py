"""What a build puts where: recipes, versions, models, detectors, configuration."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.components.small_models import write_small_model
from wheeltapper import cli
from wheeltapper.errors import ModelError, SettingsError
from wheeltapper_components import build as build_module
from wheeltapper_components.build import Plan, build, read_configuration
from wheeltapper_components.build_model import ModelSource
from wheeltapper_components.build_wheels import Device, archive, requirements_for
from wheeltapper_components.recipe_lint import lint
from wheeltapper_components.versions import load_version, versions_in
from wheeltapper_models.component import model_recipe
from wheeltapper_models.signing import create_key, public_path

DEVICE = Device(("3.11",), "x86_64")
INFERENCE, DETECTORS = "com.wheeltapper.Inference", "com.wheeltapper.Detectors"


@pytest.fixture(autouse=True)
def _light_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(_checkout: Path, _device: Device, folder: Path, _given: Path | None) -> None:
        for name in ("b-1-py3-none-any.whl", "a-1-py3-none-any.whl"):
            (folder / name).write_bytes(name.encode())

    monkeypatch.setattr(build_module, "gather", gather)


def plan_of(*models: ModelSource, **settings: Any) -> Plan:
    return Plan(device=DEVICE, models=models, **settings)


def recipe_of(out: Path, name: str, version: str = "0.1.0") -> dict[str, Any]:
    recipe: dict[str, Any] = json.loads((out / "recipes" / f"{name}-{version}.json").read_text())
    return recipe


def test_every_artifact_of_a_recipe_lies_where_a_local_deployment_looks(tmp_path: Path) -> None:
    model = write_small_model(tmp_path / "motor", "1.2.0")

    built = build(plan_of(ModelSource(model)), tmp_path / "out")

    assert [one.name for one in built] == [INFERENCE, DETECTORS, "com.wheeltapper.Model.motor"]
    for one in built:
        recipe = recipe_of(tmp_path / "out", one.name, one.version)
        uris = [artifact["Uri"] for artifact in recipe["Manifests"][0]["Artifacts"]]
        assert sorted(uri.rsplit("/", 1)[-1] for uri in uris) == sorted(file.name for file in one.files())
        assert one.artifacts == tmp_path / "out" / "artifacts" / one.name / one.version
    assert [found for found in lint([one.recipe for one in built]) if found.severity == "error"] == []


def test_a_version_of_ones_own_stands_in_the_recipe_and_its_scripts(tmp_path: Path) -> None:
    build(plan_of(version="2.0.1"), tmp_path)

    recipe = recipe_of(tmp_path, INFERENCE, "2.0.1")
    scripts = [step["Script"] for step in recipe["Manifests"][0]["Lifecycle"].values()]
    assert recipe["ComponentVersion"] == "2.0.1"
    assert all("2.0.1" in script and "0.1.0" not in script for script in scripts)


def test_inference_serves_and_depends_on_the_models_given(tmp_path: Path) -> None:
    motor = write_small_model(tmp_path / "motor", "1.2.0")
    pump = write_small_model(tmp_path / "pump", "3", name="pump")

    build(plan_of(ModelSource.parse(f"{motor}=motor-*"), ModelSource.parse(f"{pump}=pump-*,lift")), tmp_path / "out")

    recipe = recipe_of(tmp_path / "out", INFERENCE)
    assert recipe["ComponentConfiguration"]["DefaultConfiguration"]["models"] == [
        {"things": ["motor-*"], "folder": "com.wheeltapper.Model.motor"},
        {"things": ["pump-*", "lift"], "folder": "com.wheeltapper.Model.pump"},
    ]
    assert recipe["ComponentDependencies"] == {
        "com.wheeltapper.Model.motor": {"VersionRequirement": ">=1.2.0", "DependencyType": "SOFT"},
        "com.wheeltapper.Model.pump": {"VersionRequirement": ">=3.0.0", "DependencyType": "SOFT"},
    }
    assert recipe_of(tmp_path / "out", "com.wheeltapper.Model.pump", "3.0.0")["Manifests"][0]["Lifecycle"] == {
        "run": "true"
    }


def test_a_model_is_signed_and_the_gateway_takes_it_from_where_a_nucleus_puts_it(tmp_path: Path) -> None:
    model = write_small_model(tmp_path / "motor", "1.2.0")
    key = create_key(tmp_path / "keys" / "release.pem")

    build(plan_of(ModelSource(model), key=key), tmp_path / "out")

    trusted = tmp_path / "trusted"
    trusted.mkdir()
    (trusted / "release.pem").write_bytes(public_path(tmp_path / "keys" / "release.pem").read_bytes())
    (version,) = versions_in(tmp_path / "out" / "artifacts" / "com.wheeltapper.Model.motor")
    assert load_version(version, trusted).card.version == "1.2.0"
    (version.folder / "model.onnx").write_bytes(b"flipped")
    with pytest.raises(ModelError, match="its SHA-256 is not the one in the manifest"):
        load_version(version, trusted)


def test_detectors_travel_as_artifacts(tmp_path: Path) -> None:
    definition = tmp_path / "health.json"
    definition.write_text("{}")

    build(plan_of(detectors=[definition]), tmp_path / "out")

    defaults = recipe_of(tmp_path / "out", DETECTORS)["ComponentConfiguration"]["DefaultConfiguration"]
    assert defaults["detectors"]["models"] == [f"{DETECTORS}/0.1.0/health.json"]
    assert (tmp_path / "out" / "artifacts" / defaults["detectors"]["models"][0]).read_text() == "{}"


def test_configuration_goes_into_the_recipe_and_is_checked_first(tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('["com.wheeltapper.Inference"]\nhealth_s = 30\n')

    build(plan_of(configuration=read_configuration(settings)), tmp_path / "out")

    assert recipe_of(tmp_path / "out", INFERENCE)["ComponentConfiguration"]["DefaultConfiguration"]["health_s"] == 30
    with pytest.raises(SettingsError, match="health"):
        build(plan_of(configuration={INFERENCE: {"health": 30}}), tmp_path / "out")
    with pytest.raises(SettingsError, match="not among those built"):
        build(plan_of(configuration={"com.example": {}}), tmp_path / "out")


@pytest.mark.parametrize("name", ["settings.toml", "settings.json"])
def test_a_configuration_that_is_no_text_is_refused_with_its_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xff\xfe{\x00}\x00")

    with pytest.raises(SettingsError, match=name):
        read_configuration(tmp_path / name)


def test_a_configuration_that_no_nucleus_lite_could_hold_is_refused(tmp_path: Path) -> None:
    inputs = {f"input{number}": f"wt/{{thing}}/{'x' * 100}/{number}" for number in range(60)}

    with pytest.raises(Exception, match="nucleus lite"):
        build(plan_of(configuration={DETECTORS: {"detectors": {"models": [], "inputs": inputs}}}), tmp_path)


@pytest.mark.parametrize(("version", "component"), [("1", "1.0.0"), ("1.2", "1.2.0"), ("1.2.3-rc.1", "1.2.3-rc.1")])
def test_a_cards_version_becomes_a_components(tmp_path: Path, version: str, component: str) -> None:
    model = write_small_model(tmp_path, version)

    assert ModelSource(model).component_version() == component


def test_a_hash_is_no_version_and_the_remedy_is_told(tmp_path: Path) -> None:
    model = write_small_model(tmp_path, "0f3c9a1b2d4e")

    with pytest.raises(SettingsError, match="--model-version"):
        build(plan_of(ModelSource(model)), tmp_path / "out")
    build(plan_of(ModelSource(model, version="1.0.0")), tmp_path / "out")
    assert versions_in(tmp_path / "out" / "artifacts" / "com.wheeltapper.Model.motor")[0].folder.name == "1.0.0"


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no card"):
        build(plan_of(ModelSource(tmp_path)), tmp_path / "out")
    model = write_small_model(tmp_path / "motor")
    (model / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"has no model\.onnx"):
        build(plan_of(ModelSource(model)), tmp_path / "out")


def test_wheels_are_packed_sorted_and_without_times(tmp_path: Path) -> None:
    for name in ("b.whl", "a.whl"):
        (tmp_path / name).write_bytes(b"x")

    archive(tmp_path, tmp_path / "wheels.zip")

    with zipfile.ZipFile(tmp_path / "wheels.zip") as zipped:
        entries = zipped.infolist()
    assert [entry.filename for entry in entries] == ["a.whl", "b.whl"]
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}


LOCK = """\
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via wheeltapper
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:cc
rich==15.0.0 \\
    --hash=sha256:dd
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:ee
"""


def test_a_lock_is_read_for_the_device_and_not_for_this_machine() -> None:
    old, new = requirements_for(LOCK, "3.11", "aarch64"), requirements_for(LOCK, "3.13", "aarch64")

    assert old.count("==") == new.count("==") == 2
    assert "numpy==2.4.6 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\nrich" in old
    assert "numpy==2.5.5" in new
    assert "colorama" not in old + new


@pytest.mark.parametrize(
    "device", [Device(("3.9",), "x86_64"), Device(("3",), "x86_64"), Device(("3.11",), "x86_64", "2")]
)
def test_a_device_that_cannot_be_is_refused(device: Device) -> None:
    with pytest.raises(SettingsError):
        device.check()


def test_the_command_says_what_it_built_and_how_to_deploy_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    assert cli.main(["component", "build", "--out", str(out)]) == 0
    assert f"ggl-cli deploy --recipe-dir {out}/recipes" in capsys.readouterr().out
    assert cli.main(["component", "build", "--out", str(out), "--only", "detector", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == [DETECTORS]


def test_the_gdk_finds_recipe_and_artifacts_where_it_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "inference"
    folder.mkdir()
    monkeypatch.chdir(folder)
    command = json.loads((build_module.ROOM / "inference" / "gdk-config.json").read_text())
    words = command["component"][INFERENCE]["build"]["custom_build_command"]

    assert cli.main(words[1:]) == 0

    assert [path.name for path in (folder / "greengrass-build" / "recipes").iterdir()] == ["recipe.json"]
    assert (folder / "greengrass-build" / "artifacts" / INFERENCE / "0.1.0" / "wheels.zip").exists()


def test_the_recipe_of_models_that_is_shown_is_the_one_that_is_built() -> None:
    shown = json.loads((build_module.ROOM / "model" / "recipe.json").read_text())
    uris = [artifact["Uri"] for artifact in shown["Manifests"][0]["Artifacts"]]

    assert model_recipe(shown["ComponentName"], shown["ComponentVersion"], uris) == shown


def test_an_installation_that_is_no_checkout_builds_from_the_one_it_is_run_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkout" / "components" / "inference").mkdir(parents=True)
    (tmp_path / "checkout" / "components" / "inference" / "recipe.json").write_text("{}")
    monkeypatch.setattr(build_module, "ROOM", tmp_path / "site-packages")

    found = []
    for folder in ("checkout", "checkout/components/inference"):
        monkeypatch.chdir(tmp_path / folder)
        found.append(build_module.room_of_checkout())

    assert found == [tmp_path / "checkout" / "components"] * 2


def test_a_model_without_a_components_version_is_refused_before_wheels_are_fetched(tmp_path: Path) -> None:
    model = write_small_model(tmp_path / "model", "0f3a9c")
    plan = Plan(device=Device(("3.11",), "x86_64"), models=[ModelSource(model)], wheels=tmp_path / "nowhere")

    with pytest.raises(SettingsError, match=r"give one with --model-version 1\.0\.0"):
        build(plan, tmp_path / "out")
